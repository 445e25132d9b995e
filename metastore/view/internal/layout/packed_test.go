package layout

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzPackedPage(f *testing.F) {
	f.Add([]byte{}, false, uint8(0), false)
	f.Add([]byte{1, 0, 5, 7, 0, 9, 1, 1}, true, uint8(2), false)
	f.Add([]byte(strings.Repeat("\x01", 90)), false, uint8(1), true)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01"), false, uint8(0), false)
	f.Add([]byte("\x01\xff"), false, uint8(3), true)
	f.Fuzz(func(t *testing.T, data []byte, pairs bool, numbers uint8, hashed bool) {
		p := Packing{"", pairs, int(numbers % 6), hashed}
		rows, err := p.Decode(data, nil)
		if err != nil {
			return
		}
		var out []byte
		var before Key
		for i := range rows {
			if i > 0 && rows[i].Compare(before) <= 0 {
				t.Fatalf("%v behind %v", rows[i].Key, before)
			}
			out = p.Append(out, before, &rows[i])
			before = rows[i].Key
		}
		again, err := p.Decode(out, nil)
		if diff := cmp.Diff(rows, again); diff != "" || err != nil || len(out) > len(data) || len(out) == len(data) && !bytes.Equal(out, data) {
			t.Fatalf("%s %v", diff, err)
		}
	})
}
