package diskcache

import (
	"container/list"
	"math"
	"os"
	"slices"
	"sort"
	"sync"
)

// maxIndexes bounds how many files' records are remembered: at 24 bytes a
// record and 64 records in a file of usual size, 400 KiB in all.
const maxIndexes = 256

// index knows the records of one file, which grows while it is in use.
type index struct {
	mu sync.Mutex
	identity
	end     int64    // of what has been read of the file
	records []record // by offset; none lies within another
}

// update reads what was appended to f since the last time, or all of it if it
// is another file by now.
func (x *index) update(f *os.File) (info status, err error) {
	if info, err = statusOf(f); err != nil {
		return info, err
	}
	if info.identity != x.identity || info.size < x.end {
		x.identity, x.end, x.records = info.identity, 0, nil
	}
	if info.size > x.end {
		x.end, err = scan(f, x.end, info.size, x.add)
	}
	return info, err
}

// add remembers a record and forgets those that lie within it.
func (x *index) add(r record) {
	if len(x.records) >= maxRecords {
		return
	}
	i := x.at(r.off)
	if i >= 0 && x.records[i].end() >= r.end() {
		return
	}
	first := i + 1
	if i >= 0 && x.records[i].off == r.off {
		first = i
	}
	last := first
	for last < len(x.records) && x.records[last].end() <= r.end() {
		last++
	}
	x.records = slices.Replace(x.records, first, last, r)
}

// at returns the last record that begins at or before off, or -1. Since none
// lies within another, it is the one that reaches farthest.
func (x *index) at(off int64) int {
	return sort.Search(len(x.records), func(i int) bool { return x.records[i].off > off }) - 1
}

// covers reports whether all of s is recorded.
func (x *index) covers(s span) bool {
	for _, p := range x.plan(s) {
		if !p.cached {
			return false
		}
	}
	return true
}

// piece is a part of what a reader wants that comes from one place.
type piece struct {
	span
	cached bool
	record record // that has it, if cached
}

// plan cuts want into pieces: what records have, and what is missing.
func (x *index) plan(want span) []piece {
	var pieces []piece
	for want.n > 0 {
		p := piece{span: want}
		i := x.at(want.off)
		if i >= 0 && x.records[i].end() > want.off {
			p.cached, p.record = true, x.records[i]
			p.n = min(want.n, p.record.end()-want.off)
		} else if i+1 < len(x.records) {
			p.n = min(want.n, x.records[i+1].off-want.off)
		}
		pieces = append(pieces, p)
		want.off, want.n = want.off+p.n, want.n-p.n
	}
	return pieces
}

// How missing pieces become requests.
const (
	// maxGap is how much that is recorded is fetched along, in bytes, instead
	// of making two requests: at 50 MB/s it costs 2.5 ms, less than any round
	// trip that is worth saving.
	maxGap = 128 << 10
	// maxRequests bounds how many requests one Get becomes.
	maxRequests = 8
)

// coalesce joins missing pieces with little between them, and those with the
// least between them while they are many.
func coalesce(pieces []piece) []piece {
	for {
		missing, least, from := 0, int64(math.MaxInt64), 0
		for i, last := 0, -1; i < len(pieces); i++ {
			if pieces[i].cached {
				continue
			}
			missing++
			if last >= 0 {
				if gap := pieces[i].off - pieces[last].end(); gap < least {
					least, from = gap, last
				}
			}
			last = i
		}
		if missing < 2 || least > maxGap && missing <= maxRequests {
			return pieces
		}
		to := from + 1
		for pieces[to].cached {
			to++
		}
		joined := piece{span: span{pieces[from].off, pieces[to].end() - pieces[from].off}}
		pieces = slices.Replace(pieces, from, to+1, joined)
	}
}

// indexes are those of the files that were used last. The zero value is empty.
type indexes struct {
	mu    sync.Mutex
	order list.List // of *named, the one used last in front
	names map[string]*list.Element
}

type named struct {
	name string
	index
}

// get returns the index of a file, an empty one if it is not remembered.
func (x *indexes) get(name string) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.names[name]; ok {
		x.order.MoveToFront(e)
		return &e.Value.(*named).index
	}
	if x.names == nil {
		x.names = make(map[string]*list.Element)
	}
	n := &named{name: name}
	x.names[name] = x.order.PushFront(n)
	if x.order.Len() > maxIndexes {
		delete(x.names, x.order.Remove(x.order.Back()).(*named).name)
	}
	return &n.index
}

// drop forgets a file.
func (x *indexes) drop(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.names[name]; ok {
		x.order.Remove(e)
		delete(x.names, name)
	}
}
