package restore

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func numbers(t testing.TB, limit int, sorted bool) *spool[uint64] {
	s := &spool[uint64]{limit: limit, dir: t.TempDir(), size: 8,
		put: func(b []byte, v *uint64) { binary.LittleEndian.PutUint64(b, *v) },
		get: func(b []byte, v *uint64) { *v = binary.LittleEndian.Uint64(b) }}
	if sorted {
		s.order = func(a, b *uint64) int { return cmp.Compare(*a, *b) }
	}
	return s
}

// What goes in comes out, in the order asked for, as often as asked for,
// whether it fits into memory or not.
func TestASpoolKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sorted := rapid.Bool().Draw(rt, "sorted")
		s := numbers(t, rapid.IntRange(1, 20).Draw(rt, "limit"), sorted)
		want := rapid.SliceOfN(rapid.Uint64Range(0, 30), 0, 100).Draw(rt, "numbers")
		for part := range slices.Chunk(want, 7) {
			if err := s.add(part...); err != nil {
				rt.Fatal(err)
			}
		}
		want = slices.Clone(want)
		if sorted {
			slices.Sort(want)
		}
		for range 2 {
			var got []uint64
			for v, err := range s.all() {
				if err != nil {
					rt.Fatal(err)
				}
				got = append(got, *v)
			}
			if d := gocmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
				rt.Fatalf("(-want +got):\n%s", d)
			}
		}
		if !sorted {
			slices.Reverse(want)
			var got []uint64
			for v, err := range s.backwards() {
				if err != nil {
					rt.Fatal(err)
				}
				got = append(got, *v)
			}
			if d := gocmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
				rt.Fatalf("backwards (-want +got):\n%s", d)
			}
		}
		if s.count() != int64(len(want)) {
			rt.Fatalf("counted %d of %d", s.count(), len(want))
		}
		if err := s.close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestASpoolIsFilledByMany(t *testing.T) {
	s := numbers(t, 10, true)
	defer s.close()
	var g sync.WaitGroup
	for i := range uint64(8) {
		g.Go(func() {
			for j := range uint64(100) {
				if err := s.add(i*100 + j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	next := uint64(0)
	for v, err := range s.all() {
		if err != nil || *v != next {
			t.Fatalf("%d, %v, want %d", *v, err, next)
		}
		next++
	}
	if next != 800 {
		t.Errorf("%d of 800", next)
	}
}

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
