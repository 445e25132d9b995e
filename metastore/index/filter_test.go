package index

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

func TestAFilterKnowsWhatWasAddedAndLittleElse(t *testing.T) {
	const chunks = minFilter / 2 / filterBits
	f := newFilter(chunks)
	hash := func(n int) *[32]byte { h := sha256.Sum256(fmt.Append(nil, n)); return &h }
	for n := range chunks {
		f.add(hash(n))
	}
	wrong := 0
	for n := range chunks {
		if !f.mayHave(hash(n)) {
			t.Fatalf("hash %d was added and is not known", n)
		}
		if f.mayHave(hash(-1 - n)) {
			wrong++
		}
	}
	if wrong > chunks/20 {
		t.Errorf("%d of %d hashes that were not added seem to be known", wrong, chunks)
	}
}

func TestAFilterIsBoundedInBytes(t *testing.T) {
	for _, chunks := range []int64{0, 1, 1 << 20, 1 << 50} {
		if n := int64(len(newFilter(chunks))) * 64; n < minFilter || n > maxFilter {
			t.Errorf("the filter of %d chunks has %d bits", chunks, n)
		}
	}
}

// Chunks that an index has are found in a later run, before the filter is there
// and after.
func TestKnownChunksAreFoundThroughTheFilter(t *testing.T) {
	const chunks = 2000
	x := newIndex(t, Options{})
	hash := func(n int) [32]byte { return sha256.Sum256(fmt.Append(nil, n)) }
	ids := map[int]int64{}
	for run := range 3 {
		r := begin(t, x, "home")
		for n := range chunks * (run + 1) {
			id, _, err := r.Chunk(t.Context(), hash(n), 100)
			if err != nil {
				t.Fatal(err)
			}
			if known, ok := ids[n]; ok && known != id {
				t.Fatalf("run %d: chunk %d was %d and is %d", run, n, known, id)
			}
			ids[n] = id
		}
		if r.known == nil {
			t.Errorf("run %d found %d new chunks without a filter", run, chunks)
		}
		commit(t, r)
	}
}
