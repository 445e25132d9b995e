package layout

import (
	"encoding/binary"
	"errors"
	"sort"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// pageSize bounds a page in bytes, unless a single entry is bigger. Reading a
// directory is reading its pages, so they are as big as SQLite copies cheaply.
const pageSize = 64 << 10

// A page holds consecutive entries of one directory:
//
//	count uint32, count × end of the entry in what follows uint32, entries
//
// all little-endian. Entry i has the slot first+i, slots being numbers that no
// two entries of a view share; it is also its inode number unless the entry is
// a hard link to one with a lower slot. An entry:
//
//	length of name, name, row of files, flags, [inode number], blocks, file (see AppendFile)
//
// with numbers as varints and flags in a byte.
const (
	FlagXattrs = 1 << iota
	FlagLink   // an inode number follows

	knownFlags = FlagXattrs | FlagLink
)

// PageBuilder collects the entries of a page.
type PageBuilder struct {
	ends    []byte
	entries []byte
}

// Add appends an entry unless the page would become too big.
func (b *PageBuilder) Add(e *Entry) bool {
	before := len(b.entries)
	b.entries = binary.AppendUvarint(b.entries, uint64(len(e.Name)))
	b.entries = append(b.entries, e.Name...)
	b.entries = binary.AppendUvarint(b.entries, uint64(e.Row))
	b.entries = append(b.entries, e.Flags)
	if e.Flags&FlagLink != 0 {
		b.entries = binary.AppendUvarint(b.entries, e.Ino)
	}
	b.entries = binary.AppendUvarint(b.entries, uint64(e.Blocks))
	b.entries = append(b.entries, e.File...)
	if before > 0 && 4+len(b.ends)+4+len(b.entries) > pageSize {
		b.entries = b.entries[:before]
		return false
	}
	b.ends = binary.LittleEndian.AppendUint32(b.ends, uint32(len(b.entries)))
	return true
}

// AppendTo appends the finished page and empties b.
func (b *PageBuilder) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.Count()))
	dst = append(append(dst, b.ends...), b.entries...)
	b.ends, b.entries = b.ends[:0], b.entries[:0]
	return dst
}

func (b *PageBuilder) Count() int { return len(b.ends) / 4 }

// Entry is a page's entry taken apart, its file still packed.
type Entry struct {
	Name   []byte
	Row    int64
	Flags  byte
	Ino    uint64 // with flagLink
	Blocks int64
	File   []byte
}

// Page is a page as it was read. Nothing in it is trusted to lie within it.
type Page struct {
	First   uint64 // slot of the first entry
	Dir     uint64 // inode number of the directory
	Count   int
	ends    []byte
	entries []byte
}

func OpenPage(first, dir uint64, data []byte) (Page, error) {
	if len(data) < 4 {
		return Page{}, ErrDamaged
	}
	count := int64(binary.LittleEndian.Uint32(data))
	if count == 0 || count*4 > int64(len(data)-4) {
		return Page{}, ErrDamaged
	}
	return Page{first, dir, int(count), data[4 : 4+count*4], data[4+count*4:]}, nil
}

// Has reports whether a slot is in the page.
func (p *Page) Has(slot uint64) bool { return slot >= p.First && slot-p.First < uint64(p.Count) }

// raw is entry i.
func (p *Page) raw(i int) ([]byte, error) {
	start := uint32(0)
	if i > 0 {
		start = binary.LittleEndian.Uint32(p.ends[4*(i-1):])
	}
	end := binary.LittleEndian.Uint32(p.ends[4*i:])
	if start > end || int64(end) > int64(len(p.entries)) {
		return nil, ErrDamaged
	}
	return p.entries[start:end], nil
}

func (p *Page) Entry(i int) (e Entry, err error) {
	raw, err := p.raw(i)
	if err != nil {
		return Entry{}, err
	}
	d := decoder{raw, false}
	e.Name = d.bytes(d.uvarint())
	e.Row = int64(d.uvarint())
	if flags := d.bytes(1); len(flags) == 1 {
		e.Flags = flags[0]
	}
	if e.Flags&FlagLink != 0 {
		e.Ino = d.uvarint()
	}
	e.Blocks = int64(d.uvarint())
	e.File = d.data
	if d.failed || e.Flags&^knownFlags != 0 {
		return Entry{}, ErrDamaged
	}
	return e, nil
}

// Lookup finds the entry called name.
func (p *Page) Lookup(name string) (at int, found bool, err error) {
	for _, directory := range []bool{false, true} {
		i := sort.Search(p.Count, func(i int) bool {
			order, failed := p.compare(i, directory, name)
			err = errors.Join(err, failed)
			return order >= 0
		})
		if err != nil {
			return 0, false, err
		}
		if i == p.Count {
			continue
		}
		if order, err := p.compare(i, directory, name); err != nil || order == 0 {
			return i, err == nil, err
		}
	}
	return 0, false, nil
}

// Reaches reports whether the page begins at or before the place where an
// entry called name belongs that is not a directory.
func (p *Page) Reaches(name string) bool {
	order, err := p.compare(0, false, name)
	return err == nil && order <= 0
}

// compare says where entry i stands against one called name, in the order of
// listings: directories come after everything else, each in byte order.
func (p *Page) compare(i int, directory bool, name string) (int, error) {
	e, err := p.Entry(i)
	if err != nil || len(e.File) < 3 {
		return 0, ErrDamaged
	}
	switch is := metastore.Type(e.File[2]) == metastore.Directory; {
	case is == directory:
		return strings.Compare(string(e.Name), name), nil
	case directory:
		return -1, nil
	}
	return 1, nil
}

// SortKey is a key whose byte order is that of listings.
func SortKey(directory bool, name string) []byte {
	key := make([]byte, 1, 1+len(name))
	if directory {
		key[0] = 1
	}
	return append(key, name...)
}
