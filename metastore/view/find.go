package view

import (
	"context"
	"encoding/binary"
	"slices"
	"sort"
	"sync"

	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// Find returns where a chunk is, given its hash: a piece of no file. found is
// false if the dump does not name it or no blob holds it. The first call goes
// through all chunks once, half a second for a million, and 8 bytes a chunk are kept
// as long as the view is open; from then on one takes a few microseconds.
func (v *View) Find(ctx context.Context, hash [32]byte) (x Extent, found bool, err error) {
	x, found, err = v.findHash(ctx, hash)
	return x, found, v.fail("look a chunk up by its hash", err)
}

func (v *View) findHash(ctx context.Context, hash [32]byte) (x Extent, found bool, err error) {
	h, err := v.hashes.get(ctx, v)
	if err != nil {
		return Extent{}, false, err
	}
	var rows []layout.Row
	for _, first := range h.pages(hash) {
		data, err := v.chunks.Load(layout.Key{First: first}.Bytes())
		if err == nil {
			rows, err = layout.Chunks.Decode(data, rows[:0])
		}
		if err != nil {
			return Extent{}, false, err
		}
		for i := range rows {
			if rows[i].Hash != hash {
				continue
			}
			x, err := v.extent(&layout.Row{N: [5]int64{rows[i].N[0], rows[i].First}})
			if err != nil || !x.Lost {
				return x, err == nil, err
			}
		}
	}
	return Extent{}, false, nil
}

// knownHashes is the hashes of a view, made when somebody asks first.
type knownHashes struct {
	mu sync.Mutex
	*hashIndex
}

func (k *knownHashes) get(ctx context.Context, v *View) (*hashIndex, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hashIndex == nil {
		h, err := v.indexHashes(ctx)
		if err != nil {
			return nil, err
		}
		k.hashIndex = h
	}
	return k.hashIndex, nil
}

// hashIndex leads from a hash to the page of the chunk that has it. An entry is
// the first 40 bits of a hash and the number of the page in 24 bits: so the
// entries of a hash stand together when all are sorted as numbers, and of a
// million chunks hardly two share one.
type hashIndex struct {
	entries []uint64
	firsts  []int64 // id of the first chunk of each page
}

const pageBits = 24

func (v *View) indexHashes(ctx context.Context) (*hashIndex, error) {
	h := &hashIndex{entries: make([]uint64, 0, min(max(v.totals.Chunks, 0), 1<<24))}
	for s := v.scan(ctx, &layout.Chunks); ; {
		r, err := s.next()
		if err != nil {
			return nil, err
		}
		if r == nil {
			break
		}
		if s.pageN == len(h.firsts) {
			if s.pageN >= 1<<pageBits {
				return nil, tooMany(&layout.Chunks, s.pageN)
			}
			h.firsts = append(h.firsts, r.First)
		}
		h.entries = append(h.entries, entryOf(r.Hash)|uint64(s.pageN))
	}
	slices.Sort(h.entries)
	return h, nil
}

// entryOf is the least entry that a hash can have.
func entryOf(hash [32]byte) uint64 {
	return binary.BigEndian.Uint64(hash[:]) &^ (1<<pageBits - 1)
}

// pages yields the first ids of the pages that may have a hash.
func (h *hashIndex) pages(hash [32]byte) (firsts []int64) {
	low := entryOf(hash)
	i := sort.Search(len(h.entries), func(i int) bool { return h.entries[i] >= low })
	for ; i < len(h.entries) && h.entries[i]-low < 1<<pageBits; i++ {
		first := h.firsts[h.entries[i]&(1<<pageBits-1)]
		if n := len(firsts); n == 0 || firsts[n-1] != first {
			firsts = append(firsts, first)
		}
	}
	return firsts
}
