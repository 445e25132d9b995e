package idset

import (
	"encoding/binary"
	"errors"
	"iter"
	"math/bits"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// Set is a set of row ids, which are small and dense: an eighth of a byte
// for each row that there ever was, where a temporary table takes a hundred
// times that.
type Set []uint64

// Add adds an id, which is not negative.
func (b *Set) Add(id int64) {
	word := int(id >> 6)
	if word >= len(*b) {
		*b = append(*b, make([]uint64, word+1-len(*b)+len(*b)/2)...)
	}
	(*b)[word] |= 1 << (id & 63)
}

// Has reports whether an id is in the set.
func (b Set) Has(id int64) bool {
	word := id >> 6
	return word < int64(len(b)) && b[word]&(1<<(id&63)) != 0
}

// Count is how many ids are in the set.
func (b Set) Count() (n int64) {
	for _, word := range b {
		n += int64(bits.OnesCount64(word))
	}
	return n
}

// Without yields the ids that are in b and not in o, in ascending order.
func (b Set) Without(o Set) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for i, word := range b {
			if i < len(o) {
				word &^= o[i]
			}
			for ; word != 0; word &= word - 1 {
				if !yield(int64(i)<<6 + int64(bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

// Ranges yields ranges that together hold all ids of the set, in ascending
// order, and leaves out those that hold none.
func (b Set) Ranges() iter.Seq[sqlite.Keys] {
	return func(yield func(sqlite.Keys) bool) {
		const words = sqlite.RangeKeys / 64
		for i := 0; i < len(b); i += words {
			for _, word := range b[i:min(i+words, len(b))] {
				if word != 0 {
					if !yield(sqlite.Keys{After: int64(i)*64 - 1, UpTo: int64(i+words)*64 - 1}) {
						return
					}
					break
				}
			}
		}
	}
}

// Merge adds the ids of o.
func (b *Set) Merge(o Set) {
	if len(o) > len(*b) {
		*b = append(*b, make([]uint64, len(o)-len(*b))...)
	}
	for i, word := range o {
		(*b)[i] |= word
	}
}

// Missing counts the ids of b that are not in o.
func (b Set) Missing(o Set) (n int64) {
	for i, word := range b {
		if i < len(o) {
			word &^= o[i]
		}
		n += int64(bits.OnesCount64(word))
	}
	return n
}

// encode appends the number of words, without zeros at the end, and the words,
// little-endian.
func (b Set) encode(dst []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	for _, word := range b {
		dst = binary.LittleEndian.AppendUint64(dst, word)
	}
	return dst
}

// decodeSet is the inverse of encode, and returns what is behind it.
func decodeSet(src []byte) (b Set, rest []byte, err error) {
	n, size := binary.Uvarint(src)
	if size <= 0 || n > uint64(len(src)-size)/8 {
		return nil, nil, &Error{errors.New("a set of ids is cut off")}
	}
	src = src[size:]
	b = make(Set, n)
	for i := range b {
		b[i] = binary.LittleEndian.Uint64(src[8*i:])
	}
	return b, src[8*n:], nil
}
