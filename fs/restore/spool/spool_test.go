package spool

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func numbers(t testing.TB, limit int, sorted bool) *Records[uint64] {
	f := Format[uint64]{
		Size: 8,
		Put:  func(b []byte, v *uint64) { binary.LittleEndian.PutUint64(b, *v) },
		Get:  func(b []byte, v *uint64) { *v = binary.LittleEndian.Uint64(b) },
	}
	if sorted {
		f.Order = func(a, b *uint64) int { return cmp.Compare(*a, *b) }
	}
	return New(t.TempDir(), limit, f)
}

// What goes in comes out, in the order asked for, as often as asked for,
// whether it fits into memory or not.
func TestASpoolKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sorted := rapid.Bool().Draw(rt, "sorted")
		s := numbers(t, rapid.IntRange(1, 20).Draw(rt, "limit"), sorted)
		want := rapid.SliceOfN(rapid.Uint64Range(0, 30), 0, 100).Draw(rt, "numbers")
		for part := range slices.Chunk(want, 7) {
			if err := s.Add(part...); err != nil {
				rt.Fatal(err)
			}
		}
		want = slices.Clone(want)
		if sorted {
			slices.Sort(want)
		}
		for range 2 {
			var got []uint64
			for v, err := range s.All() {
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
			for v, err := range s.Backwards() {
				if err != nil {
					rt.Fatal(err)
				}
				got = append(got, *v)
			}
			if d := gocmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
				rt.Fatalf("backwards (-want +got):\n%s", d)
			}
		}
		if s.Count() != int64(len(want)) {
			rt.Fatalf("counted %d of %d", s.Count(), len(want))
		}
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestASpoolIsFilledByMany(t *testing.T) {
	s := numbers(t, 10, true)
	defer s.Close()
	var g sync.WaitGroup
	for i := range uint64(8) {
		g.Go(func() {
			for j := range uint64(100) {
				if err := s.Add(i*100 + j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	next := uint64(0)
	for v, err := range s.All() {
		if err != nil || *v != next {
			t.Fatalf("%d, %v, want %d", *v, err, next)
		}
		next++
	}
	if next != 800 {
		t.Errorf("%d of 800", next)
	}
}
