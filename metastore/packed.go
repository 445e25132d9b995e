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
const packedSize = 4000

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

// decode is the inverse of append, for a whole page. Nothing in it is trusted.
func (p *packing) decode(data []byte) ([]packedRow, error) {
	d := decoder{data, false}
	number := func() int64 {
		n := d.uvarint()
		d.failed = d.failed || n > math.MaxInt64
		return int64(n)
	}
	rows := make([]packedRow, 0, 1+len(data)/(2+2*p.numbers))
	var key packedKey
	for len(d.data) > 0 {
		before := key
		key.first += number()
		if p.pairs {
			second := number()
			if key.first == before.first {
				second += before.second
			}
			key.second = second
		}
		r := packedRow{packedKey: key}
		for i := range p.numbers {
			r.n[i] = number()
		}
		if p.hashed {
			copy(r.hash[:], d.bytes(hashSize))
		}
		if d.failed || key.compare(before) <= 0 || key.second < 0 {
			return nil, errPage
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil, errPage
	}
	return rows, nil
}

// searchPacked is the place of the first row that is not before key.
func searchPacked(rows []packedRow, key packedKey) int {
	return sort.Search(len(rows), func(i int) bool { return rows[i].compare(key) >= 0 })
}

// packedReader looks rows of a packed table up. It may be used by several
// goroutines if load may.
type packedReader struct {
	*packing
	// load returns the data of the last page that begins at or before a key;
	// nil if there is none.
	load func(key []byte) ([]byte, error)

	mu     sync.Mutex
	recent [16][]packedRow
	next   int // to be replaced
}

// page returns the rows of the page in which key has its place, and that
// place: the last row at or before key, or -1.
func (p *packedReader) page(key packedKey) ([]packedRow, int, error) {
	if rows := p.known(key); rows != nil {
		return rows, place(rows, key), nil
	}
	data, err := p.load(key.bytes())
	if err != nil || data == nil {
		return nil, -1, err
	}
	rows, err := p.decode(data)
	if err != nil {
		return nil, -1, err
	}
	p.mu.Lock()
	p.recent[p.next] = rows
	p.next = (p.next + 1) % len(p.recent)
	p.mu.Unlock()
	return rows, place(rows, key), nil
}

func place(rows []packedRow, key packedKey) int {
	i := searchPacked(rows, key)
	if i == len(rows) || rows[i].packedKey != key {
		i--
	}
	return i
}

// known is a page read before that has rows on both sides of key.
func (p *packedReader) known(key packedKey) []packedRow {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rows := range p.recent {
		if len(rows) > 0 && rows[0].compare(key) <= 0 && rows[len(rows)-1].compare(key) >= 0 {
			return rows
		}
	}
	return nil
}

// get returns the row with a key; found is false if there is none.
func (p *packedReader) get(key packedKey) (r packedRow, found bool, err error) {
	rows, i, err := p.page(key)
	if err != nil || i < 0 || rows[i].packedKey != key {
		return packedRow{}, false, err
	}
	return rows[i], true, nil
}
