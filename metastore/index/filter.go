package index

import (
	"context"
	"encoding/binary"
)

// filter is a Bloom filter over the hashes of all chunks in the index. Nearly
// all lookups of a first backup are of chunks that are new, and this answers
// them without a walk through prefixes.
type filter []uint64

const (
	// filterBits is how many bits there are for a chunk, filterProbes how many
	// of them are set: together one lookup in 40 is made in vain.
	filterBits   = 8
	filterProbes = 4
	// A filter has at least minFilter and at most maxFilter bits (512 KiB and
	// 16 MiB); one that is too small for its chunks is of less use and no harm.
	minFilter = 1 << 22
	maxFilter = 1 << 27
)

func newFilter(chunks int64) filter {
	size := int64(minFilter)
	for size < maxFilter && size < 2*chunks*filterBits {
		size *= 2
	}
	return make(filter, size/64)
}

// probe is where a hash sets its nth bit: the hash is as good as random.
func (f filter) probe(hash *[32]byte, n int) (word int, bit uint64) {
	at := binary.LittleEndian.Uint64(hash[8*n:]) % uint64(64*len(f))
	return int(at / 64), 1 << (at % 64)
}

func (f filter) add(hash *[32]byte) {
	for n := range filterProbes {
		word, bit := f.probe(hash, n)
		f[word] |= bit
	}
}

// mayHave is true if hash was added, and seldom if it was not.
func (f filter) mayHave(hash *[32]byte) bool {
	for n := range filterProbes {
		if word, bit := f.probe(hash, n); f[word]&bit == 0 {
			return false
		}
	}
	return true
}

// unknown reports whether a chunk is in no table. The filter is filled once an
// eighth as many lookups were in vain as there are chunks: reading all of them
// takes about as long as those did.
func (r *Run) unknown(ctx context.Context, hash *[32]byte) (bool, error) {
	if r.known == nil {
		chunks := r.x.last.chunks
		if r.vain < chunks/8 {
			return false, nil
		}
		known := newFilter(chunks)
		err := r.x.db.Each(ctx, "SELECT hash FROM chunks", nil, func(scan func(...any) error) error {
			var b []byte
			err := scan(&b)
			if len(b) == len(hash) {
				known.add((*[32]byte)(b))
			}
			return err
		})
		if err != nil {
			return false, err
		}
		for hash := range r.fresh {
			known.add(&hash)
		}
		r.known = known
	}
	return !r.known.mayHave(hash), nil
}
