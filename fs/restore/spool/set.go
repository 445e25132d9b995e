package spool

import "sync/atomic"

// Set is a set of inode numbers or slots, which are small and dense. Its size
// is fixed, so that it can be used by many at once.
type Set []atomic.Uint64

// NewSet makes an empty set of numbers up to most: a bit each.
func NewSet(most uint64) Set { return make(Set, most/64+1) }

// Add reports whether n was new. A number that is too large never is.
func (b Set) Add(n uint64) bool {
	if n/64 >= uint64(len(b)) {
		return false
	}
	mask := uint64(1) << (n % 64)
	return b[n/64].Or(mask)&mask == 0
}

// Has reports whether n was added.
func (b Set) Has(n uint64) bool {
	return n/64 < uint64(len(b)) && b[n/64].Load()&(1<<(n%64)) != 0
}
