package audit

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Subset says which objects are read. The zero Subset is all of them.
//
// Objects have their order by hash, which is random and never changes. A slice
// is a fixed part of all hashes, so that t runs, each with another slice, read
// every object once without anybody having to remember anything. A share or an
// amount of bytes begins where the last one on this machine ended, and comes
// round to every object, those that came in between included.
type Subset struct {
	Percent   float64 // of all bytes, in (0, 100]; 0: not limited so
	Bytes     int64   // 0: not limited so; the last object may reach beyond
	Slice, Of int     // the Slice-th of Of, from 1; 0: not limited so
}

// All reports whether everything is read.
func (s Subset) All() bool { return s == Subset{} }

// rotates reports whether the next run goes on where this one ended.
func (s Subset) rotates() bool { return s.Percent > 0 || s.Bytes > 0 }

// sortByHash puts objects in the order in which they are read.
func sortByHash(objects []object) {
	slices.SortFunc(objects, func(a, b object) int {
		return cmp.Or(bytes.Compare(a.name.SHA256[:], b.name.SHA256[:]), cmp.Compare(a.key(a.writer), b.key(b.writer)))
	})
}

// choose returns those of the sorted objects that are to be read, in order:
// of those in rotation, the ones behind after, then from the first one on.
func (s Subset) choose(objects []object, after remote.Hash) []object {
	switch {
	case s.Of > 0:
		var slice []object
		for _, o := range objects {
			// The first 64 bits of the hash, times Of, by 2^64.
			if n, _ := bits.Mul64(binary.BigEndian.Uint64(o.name.SHA256[:8]), uint64(s.Of)); int(n) == s.Slice-1 {
				slice = append(slice, o)
			}
		}
		return slice
	case s.rotates():
		return s.next(objects, after)
	}
	return objects
}

func (s Subset) next(objects []object, after remote.Hash) []object {
	budget := s.Bytes
	if s.Percent > 0 {
		var total int64
		for _, o := range objects {
			total += o.size
		}
		budget = int64(float64(total) * s.Percent / 100)
	}
	first, _ := slices.BinarySearchFunc(objects, after, func(o object, h remote.Hash) int {
		if c := bytes.Compare(o.name.SHA256[:], h[:]); c != 0 {
			return c
		}
		return -1 // what has the hash itself was read
	})
	var chosen []object
	for i, o := range slices.Concat(objects[first:], objects[:first]) {
		same := i > 0 && chosen[i-1].name.SHA256 == o.name.SHA256 // else the next run would pass it over
		if budget <= 0 && i > 0 && !same {
			break
		}
		chosen = append(chosen, o)
		budget -= o.size
	}
	return chosen
}
