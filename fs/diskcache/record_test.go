package diskcache

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// sealed is a record of data as it lies in a file.
func sealed(key string, off int64, data []byte) []byte {
	b := append(make([]byte, headerSize), data...)
	seal(b, key, off)
	return b
}

// Whatever a file has, what is taken from it is what was recorded under the
// file's key.
func FuzzScan(f *testing.F) {
	one := sealed("key", 7, []byte("data"))
	two := sealed("key", 1<<40, storetest.Bytes(1, 300))
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Add(slices.Concat(one, two), uint16(1000), uint16(0))
	f.Add(slices.Concat(one, two), uint16(80), uint16(70))
	f.Add(slices.Concat(one[:60], two), uint16(1000), uint16(0))
	f.Add(slices.Concat(one, sealed("other", 0, []byte("x"))), uint16(1000), uint16(0))
	f.Fuzz(func(t *testing.T, file []byte, size, from uint16) {
		end := min(int64(size), int64(len(file)))
		at := min(int64(from), end)
		r := bytes.NewReader(file)
		var x index
		last, err := scan(r, at, end, func(rec record) {
			if rec.at != at || rec.n < 1 || rec.n > maxRecord || rec.off < 0 || rec.end() < rec.off {
				t.Fatalf("%+v at %d", rec, at)
			}
			at += int64(headerSize) + rec.n
			x.add(rec)
			var b block
			if data, err := rec.load(r, "key", b[:]); err == nil && !bytes.Equal(sealed("key", rec.off, data), file[rec.at:at]) {
				t.Fatalf("%+v: it says another thing than it is", rec)
			}
		})
		if last != at || last > end || err != nil && !errors.Is(err, errDamaged) {
			t.Fatalf("%d records to %d, file to %d: ends at %d, %v", len(x.records), at, end, last, err)
		}
		for i := 1; i < len(x.records); i++ {
			if a, b := x.records[i-1], x.records[i]; a.off >= b.off || a.end() >= b.end() {
				t.Fatalf("%+v before %+v", a, b)
			}
		}
		at = 0
		for _, p := range coalesce(x.plan(span{0, 1 << 20})) {
			if p.off != at || p.n < 1 || p.cached && (p.off < p.record.off || p.end() > p.record.end()) {
				t.Fatalf("%+v at %d", p, at)
			}
			at = p.end()
		}
		if at != 1<<20 {
			t.Fatalf("the plan ends at %d", at)
		}
	})
}

func TestFilesNameTheirBlobs(t *testing.T) {
	key := "ann.example.org/blobs/0000000001/" + "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"
	name, ok := fileName(key)
	back, ok2 := keyOf(name)
	if !ok || !ok2 || back != key {
		t.Errorf("%q, %v, %q, %v", name, ok, back, ok2)
	}
	for _, name := range []string{"", "lock", key, name + "x", "ann,metadata,0000000001,manifest.json.zst"} {
		if key, ok := keyOf(name); ok {
			t.Errorf("%q is the file of %q", name, key)
		}
	}
}
