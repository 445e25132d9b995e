package restore

import (
	"cmp"
	"encoding/binary"
)

// entry is an entry of the snapshot: its place among those of its directory. An
// inode number would not do, because it leads to the first of several names.
type entry struct {
	dir   uint64 // inode number of the directory
	slot  uint64 // Node.Cookie
	flags uint8
}

// What is to be done about an entry.
const (
	exists   uint8 = 1 << iota // a directory that is there already
	describe                   // a directory that gets the snapshot's metadata
	replace                    // a directory in whose place something else is
	passage                    // a directory above the set's paths: it gets its metadata at once
	fix                        // anything else that is there and only lacks the right metadata
)

const entrySize = 17

func (e *entry) encode(b []byte) {
	binary.LittleEndian.PutUint64(b, e.dir)
	binary.LittleEndian.PutUint64(b[8:], e.slot)
	b[16] = e.flags
}

func (e *entry) decode(b []byte) {
	e.dir, e.slot, e.flags = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[16]
}

// name is one of several names of an inode.
type name struct {
	ino   uint64
	first bool // the one that is made; the others become links to it
	dir   uint64
	slot  uint64
}

const nameSize = 25

func (n *name) encode(b []byte) {
	for i, v := range [...]uint64{n.ino, n.dir, n.slot} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	if b[24] = 0; n.first {
		b[24] = 1
	}
}

func (n *name) decode(b []byte) {
	for i, v := range [...]*uint64{&n.ino, &n.dir, &n.slot} {
		*v = binary.LittleEndian.Uint64(b[8*i:])
	}
	n.first = b[24] == 1
}

func (n *name) compare(o *name) int {
	if c := cmp.Compare(n.ino, o.ino); c != 0 || n.first == o.first {
		return cmp.Or(c, cmp.Compare(n.slot, o.slot))
	}
	if n.first {
		return -1
	}
	return 1
}

// use is a range of a file that is to be filled with a chunk.
type use struct {
	blob   int64 // id
	frame  int64 // where the frame begins, in the decrypted blob
	start  int64 // where the chunk begins, in the decompressed frame
	packed uint32
	length uint32
	chunk  [32]byte
	dir    uint64
	slot   uint64
	offset int64 // in the file
	only   bool  // nothing else is in the file
	last   bool  // of the file's uses in the order of compare
}

const useSize = 7*8 + 32 + 1

func (u *use) encode(b []byte) {
	for i, v := range [...]uint64{
		uint64(u.blob), uint64(u.frame), uint64(u.start), uint64(u.packed)<<32 | uint64(u.length), u.dir, u.slot, uint64(u.offset),
	} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	copy(b[56:], u.chunk[:])
	b[88] = 0
	if u.only {
		b[88] |= 1
	}
	if u.last {
		b[88] |= 2
	}
}

func (u *use) decode(b []byte) {
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	u.blob, u.frame, u.start = int64(n(0)), int64(n(1)), int64(n(2))
	u.packed, u.length = uint32(n(3)>>32), uint32(n(3))
	u.dir, u.slot, u.offset = n(4), n(5), int64(n(6))
	copy(u.chunk[:], b[56:])
	u.only, u.last = b[88]&1 != 0, b[88]&2 != 0
}

// compare is the order in which blobs are read.
func (u *use) compare(o *use) int {
	if c := cmp.Compare(u.blob, o.blob); c != 0 {
		return c
	}
	if c := cmp.Compare(u.frame, o.frame); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(u.start, o.start), cmp.Compare(u.slot, o.slot), cmp.Compare(u.offset, o.offset))
}
