package metastore

import (
	"cmp"
	"encoding/binary"
	"math"
	"sort"
	"sync"
)

// packedSize bounds a packed page in bytes. Reading one row is reading and
// decoding its page, which takes a few microseconds.
const packedSize = 1000

// A packed table keeps rows of numbers in ascending order of their keys, many
// to a page, where SQLite would take ten times as long to insert them one by
// one. A page is a row of SQLite: the key of its first row, and
//
//	key, numbers, hash of every row
//
// with varints for all but the hash. A key is the difference to the one
// before; where it is a pair, the second is a difference only if the first is
// the same.
type packing struct {
	table   string
	pairs   bool // keys are pairs
	numbers int  // behind the key
	hashed  bool // and a hash behind them
}

// The packed tables of a view, and of its making.
var (
	packedPieces   = packing{"main.file_chunks", true, 2, false}  // content, offset: length, chunk or 0 for a hole
	packedChunks   = packing{"main.chunks", false, 1, true}       // id: size, hash
	packedPlaces   = packing{"main.blob_chunks", false, 5, false} // chunk: blob, offset and length of the frame, offset and length in it
	packedPaths    = packing{"stage.path_ids", false, 0, false}   // id
	packedFiles    = packing{"stage.file_ids", false, 1, false}   // id: path
	packedContents = packing{"stage.contents", false, 0, false}   // id
	packedSizes    = packing{"stage.sizes", false, 2, false}      // content: bytes, blocks of 512 bytes
)

type packedKey struct{ first, second int64 }

func (k packedKey) compare(o packedKey) int {
	return cmp.Or(cmp.Compare(k.first, o.first), cmp.Compare(k.second, o.second))
}

// bytes is a key whose byte order is that of keys, which are not negative.
func (k packedKey) bytes() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(k.first))
	return binary.BigEndian.AppendUint64(b, uint64(k.second))
}

type packedRow struct {
	packedKey
	n    [5]int64
	hash [hashSize]byte
}

// append appends a row that follows the one with the key before, the zero key
// if it is the first.
func (p *packing) append(dst []byte, before packedKey, r *packedRow) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.first-before.first))
	if p.pairs {
		second := r.second
		if r.first == before.first {
			second -= before.second
		}
		dst = binary.AppendUvarint(dst, uint64(second))
	}
	for _, n := range r.n[:p.numbers] {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	if p.hashed {
		dst = append(dst, r.hash[:]...)
	}
	return dst
}

// row decodes the row at a place in a page, which follows the one with the key
// before, and returns where the next one is. Nothing in the page is trusted: of
// a row that is none, it returns -1.
func (p *packing) row(data []byte, at int, before packedKey, r *packedRow) int {
	n, at := packedNumber(data, at)
	r.packedKey = packedKey{first: before.first + n}
	if p.pairs {
		if r.second, at = packedNumber(data, at); n == 0 {
			r.second += before.second
		}
	}
	for i := range p.numbers {
		r.n[i], at = packedNumber(data, at)
	}
	if p.hashed && at >= 0 {
		if len(data)-at < hashSize {
			return -1
		}
		at += copy(r.hash[:], data[at:])
	}
	if r.compare(before) <= 0 || r.second < 0 {
		return -1
	}
	return at
}

// packedNumber decodes the number at a place and returns what is behind it, -1
// if there is no number.
func packedNumber(data []byte, at int) (int64, int) {
	if uint(at) < uint(len(data)) && data[at] < 0x80 { // most are small
		return int64(data[at]), at + 1
	}
	if uint(at) >= uint(len(data)) {
		return 0, -1
	}
	n, size := binary.Uvarint(data[at:])
	if size <= 0 || n > math.MaxInt64 {
		return 0, -1
	}
	return int64(n), at + size
}

// decode returns all rows of a page, appended to rows.
func (p *packing) decode(data []byte, rows []packedRow) ([]packedRow, error) {
	r := packedRow{}
	for at := 0; at < len(data); {
		if at = p.row(data, at, r.packedKey, &r); at < 0 {
			return nil, errPage
		}
		rows = append(rows, r)
	}
	if len(data) == 0 {
		return nil, errPage
	}
	return rows, nil
}

// searchPacked is the place of the first row that is not before key.
func searchPacked(rows []packedRow, key packedKey) int {
	return sort.Search(len(rows), func(i int) bool { return rows[i].compare(key) >= 0 })
}

// packedPage is a page as it was read, and the row of it that was looked at
// last: whoever asks for one row after the other goes through it once.
type packedPage struct {
	data        []byte
	first, last packedKey
	row         packedRow
	next        int // behind row
}

func (p *packing) open(data []byte) (*packedPage, error) {
	g := &packedPage{data: data}
	r := packedRow{}
	for at := 0; at < len(data); {
		if at = p.row(data, at, r.packedKey, &r); at < 0 {
			return nil, errPage
		}
		if g.last = r.packedKey; g.next == 0 {
			g.first, g.row, g.next = r.packedKey, r, at
		}
	}
	if g.next == 0 {
		return nil, errPage
	}
	return g, nil
}

// find looks at the last row at or before key, which is not before the page.
func (g *packedPage) find(p *packing, key packedKey) {
	if g.row.compare(key) > 0 {
		g.next = p.row(g.data, 0, packedKey{}, &g.row)
	}
	for r := (packedRow{}); g.next < len(g.data); {
		next := p.row(g.data, g.next, g.row.packedKey, &r)
		if r.compare(key) > 0 {
			return
		}
		g.row, g.next = r, next
	}
}

// packedReader looks rows of a packed table up. It may be used by several
// goroutines if load may.
type packedReader struct {
	*packing
	// load returns the data of the last page that begins at or before a key;
	// nil if there is none.
	load func(key []byte) ([]byte, error)

	mu      sync.Mutex
	recent  [32]*packedPage
	replace int // the next one of them
}

// page returns the page that has the last row at or before key, nil if there is
// none. mu is held.
func (p *packedReader) page(key packedKey) (*packedPage, error) {
	for _, g := range p.recent {
		if g != nil && g.first.compare(key) <= 0 && g.last.compare(key) >= 0 {
			return g, nil
		}
	}
	p.mu.Unlock()
	data, err := p.load(key.bytes())
	var g *packedPage
	if err == nil && data != nil {
		g, err = p.open(data)
	}
	p.mu.Lock()
	if g == nil || g.first.compare(key) > 0 {
		return nil, err
	}
	p.recent[p.replace] = g
	p.replace = (p.replace + 1) % len(p.recent)
	return g, nil
}

// get returns the row with a key; found is false if there is none.
func (p *packedReader) get(key packedKey) (r packedRow, found bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.page(key)
	if g == nil {
		return packedRow{}, false, err
	}
	if g.find(p.packing, key); g.row.packedKey != key {
		return packedRow{}, false, nil
	}
	return g.row, true, nil
}

// from returns the last row at or before key, and those behind it that are
// before end and in the same page; none if there is no such row.
func (p *packedReader) from(key, end packedKey) (rows []packedRow, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.page(key)
	if g == nil {
		return nil, err
	}
	g.find(p.packing, key)
	r := g.row
	for at := g.next; ; {
		rows = append(rows, r)
		if at == len(g.data) {
			return rows, nil
		}
		if at = p.row(g.data, at, r.packedKey, &r); r.compare(end) >= 0 {
			return rows, nil
		}
	}
}
