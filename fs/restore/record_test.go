package restore

import "testing"

// Records survive being filed.
func TestRecordsAreWhatTheyWere(t *testing.T) {
	u := use{1 << 40, 1 << 30, 1 << 24, 1<<32 - 1, 1<<24 + 1, [32]byte{1, 31: 9}, 1 << 50, 1 << 51, 1 << 62, true, false}
	n := name{1 << 40, true, 2, 1 << 60}
	e := entry{1 << 40, 1 << 50, exists | passage}
	var u2 use
	var n2 name
	var e2 entry
	for _, last := range []bool{true, false} {
		u.last, u.only, n.first = last, !last, last
		b := make([]byte, useSize)
		u.encode(b)
		u2.decode(b)
		b = make([]byte, nameSize)
		n.encode(b)
		n2.decode(b)
		b = make([]byte, entrySize)
		e.encode(b)
		e2.decode(b)
		if u != u2 || n != n2 || e != e2 {
			t.Errorf("%+v %+v %+v became %+v %+v %+v", u, n, e, u2, n2, e2)
		}
	}
}
