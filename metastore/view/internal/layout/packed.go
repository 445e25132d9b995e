package layout

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"sort"
	"sync"
)

// PackedSize bounds a packed page in bytes. Reading one row is reading and
// decoding its page, which takes a few microseconds.
const PackedSize = 1000

// A packed table keeps rows of numbers in ascending order of their keys, many
// to a page, where SQLite would take ten times as long to insert them one by
// one. A page is a row of SQLite: the key of its first row, and
//
//	key, numbers, hash of every row
//
// with varints for all but the hash. A key is the difference to the one
// before; where it is a pair, the second is a difference only if the first is
// the same.
type Packing struct {
	Table   string
	Pairs   bool // keys are pairs
	Numbers int  // behind the key
	Hashed  bool // and a hash behind them
}

// The packed tables of a view.
var (
	Pieces = Packing{"main.file_chunks", true, 2, false}  // content, offset: length, chunk or 0 for a hole
	Chunks = Packing{"main.chunks", false, 1, true}       // id: size, hash
	Places = Packing{"main.blob_chunks", false, 5, false} // chunk: blob, offset and length of the frame, offset and length in it
)

type Key struct{ First, Second int64 }

func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.First, o.First), cmp.Compare(k.Second, o.Second))
}

// Bytes is a key whose byte order is that of keys, which are not negative.
func (k Key) Bytes() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(k.First))
	return binary.BigEndian.AppendUint64(b, uint64(k.Second))
}

type Row struct {
	Key
	N    [5]int64
	Hash [sha256.Size]byte
}

// Append appends a row that follows the one with the key before, the zero key
// if it is the first.
func (p *Packing) Append(dst []byte, before Key, r *Row) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.First-before.First))
	if p.Pairs {
		second := r.Second
		if r.First == before.First {
			second -= before.Second
		}
		dst = binary.AppendUvarint(dst, uint64(second))
	}
	for _, n := range r.N[:p.Numbers] {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	if p.Hashed {
		dst = append(dst, r.Hash[:]...)
	}
	return dst
}

// row decodes the row at a place in a page, which follows the one with the key
// before, and returns where the next one is. Nothing in the page is trusted: of
// a row that is none, it returns -1.
func (p *Packing) row(data []byte, at int, before Key, r *Row) int {
	n, at := packedNumber(data, at)
	r.Key = Key{First: before.First + n}
	if p.Pairs {
		if r.Second, at = packedNumber(data, at); n == 0 {
			r.Second += before.Second
		}
	}
	for i := range p.Numbers {
		r.N[i], at = packedNumber(data, at)
	}
	if p.Hashed && at >= 0 {
		if len(data)-at < sha256.Size {
			return -1
		}
		at += copy(r.Hash[:], data[at:])
	}
	if r.Compare(before) <= 0 || r.Second < 0 {
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

// Decode returns all rows of a page, appended to rows.
func (p *Packing) Decode(data []byte, rows []Row) ([]Row, error) {
	r := Row{}
	for at := 0; at < len(data); {
		if at = p.row(data, at, r.Key, &r); at < 0 {
			return nil, ErrDamaged
		}
		rows = append(rows, r)
	}
	if len(data) == 0 {
		return nil, ErrDamaged
	}
	return rows, nil
}

// Search is the place of the first row that is not before key.
func Search(rows []Row, key Key) int {
	return sort.Search(len(rows), func(i int) bool { return rows[i].Compare(key) >= 0 })
}

// packedPage is a page as it was read, and the row of it that was looked at
// last: whoever asks for one row after the other goes through it once.
type packedPage struct {
	data        []byte
	first, last Key
	row         Row
	next        int // behind row
}

func (p *Packing) open(data []byte) (*packedPage, error) {
	g := &packedPage{data: data}
	r := Row{}
	for at := 0; at < len(data); {
		if at = p.row(data, at, r.Key, &r); at < 0 {
			return nil, ErrDamaged
		}
		if g.last = r.Key; g.next == 0 {
			g.first, g.row, g.next = r.Key, r, at
		}
	}
	if g.next == 0 {
		return nil, ErrDamaged
	}
	return g, nil
}

// find looks at the last row at or before key, which is not before the page.
func (g *packedPage) find(p *Packing, key Key) {
	if g.row.Compare(key) > 0 {
		g.next = p.row(g.data, 0, Key{}, &g.row)
	}
	for r := (Row{}); g.next < len(g.data); {
		next := p.row(g.data, g.next, g.row.Key, &r)
		if r.Compare(key) > 0 {
			return
		}
		g.row, g.next = r, next
	}
}

// Reader looks rows of a packed table up. It may be used by several
// goroutines if load may.
type Reader struct {
	*Packing
	// load returns the data of the last page that begins at or before a key;
	// nil if there is none.
	Load func(key []byte) ([]byte, error)

	mu      sync.Mutex
	recent  [32]*packedPage
	replace int // the next one of them
}

// page returns the page that has the last row at or before key, nil if there is
// none. mu is held.
func (p *Reader) page(key Key) (*packedPage, error) {
	for _, g := range p.recent {
		if g != nil && g.first.Compare(key) <= 0 && g.last.Compare(key) >= 0 {
			return g, nil
		}
	}
	p.mu.Unlock()
	data, err := p.Load(key.Bytes())
	var g *packedPage
	if err == nil && data != nil {
		g, err = p.open(data)
	}
	p.mu.Lock()
	if g == nil || g.first.Compare(key) > 0 {
		return nil, err
	}
	p.recent[p.replace] = g
	p.replace = (p.replace + 1) % len(p.recent)
	return g, nil
}

// Get returns the row with a key; found is false if there is none.
func (p *Reader) Get(key Key) (r Row, found bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.page(key)
	if g == nil {
		return Row{}, false, err
	}
	if g.find(p.Packing, key); g.row.Key != key {
		return Row{}, false, nil
	}
	return g.row, true, nil
}

// From returns the last row at or before key, and those behind it that are
// before end and in the same page; none if there is no such row.
func (p *Reader) From(key, end Key) (rows []Row, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.page(key)
	if g == nil {
		return nil, err
	}
	g.find(p.Packing, key)
	r := g.row
	for at := g.next; ; {
		rows = append(rows, r)
		if at == len(g.data) {
			return rows, nil
		}
		if at = p.row(g.data, at, r.Key, &r); r.Compare(end) >= 0 {
			return rows, nil
		}
	}
}
