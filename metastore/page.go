package metastore

import (
	"encoding/binary"
	"errors"
	"sort"
	"strings"
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
//	length of name, name, row of files, flags, [inode number], blocks, file (see appendFile)
//
// with numbers as varints and flags in a byte.
const (
	flagXattrs = 1 << iota
	flagLink   // an inode number follows

	knownFlags = flagXattrs | flagLink
)

// pageBuilder collects the entries of a page.
type pageBuilder struct {
	ends    []byte
	entries []byte
}

// add appends an entry unless the page would become too big.
func (b *pageBuilder) add(e *entry) bool {
	before := len(b.entries)
	b.entries = binary.AppendUvarint(b.entries, uint64(len(e.name)))
	b.entries = append(b.entries, e.name...)
	b.entries = binary.AppendUvarint(b.entries, uint64(e.row))
	b.entries = append(b.entries, e.flags)
	if e.flags&flagLink != 0 {
		b.entries = binary.AppendUvarint(b.entries, e.ino)
	}
	b.entries = binary.AppendUvarint(b.entries, uint64(e.blocks))
	b.entries = append(b.entries, e.file...)
	if before > 0 && 4+len(b.ends)+4+len(b.entries) > pageSize {
		b.entries = b.entries[:before]
		return false
	}
	b.ends = binary.LittleEndian.AppendUint32(b.ends, uint32(len(b.entries)))
	return true
}

// appendTo appends the finished page and empties b.
func (b *pageBuilder) appendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.count()))
	dst = append(append(dst, b.ends...), b.entries...)
	b.ends, b.entries = b.ends[:0], b.entries[:0]
	return dst
}

func (b *pageBuilder) count() int { return len(b.ends) / 4 }

// entry is a page's entry taken apart, its file still packed.
type entry struct {
	name   []byte
	row    int64
	flags  byte
	ino    uint64 // with flagLink
	blocks int64
	file   []byte
}

// page is a page as it was read. Nothing in it is trusted to lie within it.
type page struct {
	first   uint64 // slot of the first entry
	dir     uint64 // inode number of the directory
	count   int
	ends    []byte
	entries []byte
}

func openPage(first, dir uint64, data []byte) (page, error) {
	if len(data) < 4 {
		return page{}, errPage
	}
	count := int64(binary.LittleEndian.Uint32(data))
	if count == 0 || count*4 > int64(len(data)-4) {
		return page{}, errPage
	}
	return page{first, dir, int(count), data[4 : 4+count*4], data[4+count*4:]}, nil
}

// has reports whether a slot is in the page.
func (p *page) has(slot uint64) bool { return slot >= p.first && slot-p.first < uint64(p.count) }

// raw is entry i.
func (p *page) raw(i int) ([]byte, error) {
	start := uint32(0)
	if i > 0 {
		start = binary.LittleEndian.Uint32(p.ends[4*(i-1):])
	}
	end := binary.LittleEndian.Uint32(p.ends[4*i:])
	if start > end || int64(end) > int64(len(p.entries)) {
		return nil, errPage
	}
	return p.entries[start:end], nil
}

func (p *page) entry(i int) (e entry, err error) {
	raw, err := p.raw(i)
	if err != nil {
		return entry{}, err
	}
	d := decoder{raw, false}
	e.name = d.bytes(d.uvarint())
	e.row = int64(d.uvarint())
	if flags := d.bytes(1); len(flags) == 1 {
		e.flags = flags[0]
	}
	if e.flags&flagLink != 0 {
		e.ino = d.uvarint()
	}
	e.blocks = int64(d.uvarint())
	e.file = d.data
	if d.failed || e.flags&^knownFlags != 0 {
		return entry{}, errPage
	}
	return e, nil
}

// node decodes entry i into n, keeping n's strings where they are the same.
func (p *page) node(i int, n *Node) error {
	e, err := p.entry(i)
	if err != nil {
		return err
	}
	n.Parent, n.Cookie = p.dir, p.first+uint64(i)
	n.Ino = n.Cookie
	if e.flags&flagLink != 0 {
		n.Ino = e.ino
	}
	n.Name, n.row = string(e.name), e.row
	n.HasXattrs, n.Blocks = e.flags&flagXattrs != 0, e.blocks
	return decodeFile(e.file, &n.File)
}

// lookup decodes the entry called name into n.
func (p *page) lookup(name string, n *Node) (found bool, err error) {
	for _, directory := range []bool{false, true} {
		i := sort.Search(p.count, func(i int) bool {
			order, failed := p.compare(i, directory, name)
			err = errors.Join(err, failed)
			return order >= 0
		})
		if err != nil {
			return false, err
		}
		if i == p.count {
			continue
		}
		if order, err := p.compare(i, directory, name); err != nil || order == 0 {
			return err == nil, errors.Join(err, p.node(i, n))
		}
	}
	return false, nil
}

// reaches reports whether the page begins at or before the place where an
// entry called name belongs that is not a directory.
func (p *page) reaches(name string) bool {
	order, err := p.compare(0, false, name)
	return err == nil && order <= 0
}

// compare says where entry i stands against one called name, in the order of
// listings: directories come after everything else, each in byte order.
func (p *page) compare(i int, directory bool, name string) (int, error) {
	e, err := p.entry(i)
	if err != nil || len(e.file) < 3 {
		return 0, errPage
	}
	switch is := Type(e.file[2]) == Directory; {
	case is == directory:
		return strings.Compare(string(e.name), name), nil
	case directory:
		return -1, nil
	}
	return 1, nil
}

// sortKey is a key whose byte order is that of listings.
func sortKey(directory bool, name string) []byte {
	key := make([]byte, 1, 1+len(name))
	if directory {
		key[0] = 1
	}
	return append(key, name...)
}
