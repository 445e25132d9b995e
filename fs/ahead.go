package fs

import (
	"context"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// How far reading ahead goes.
const (
	// maxRuns is how many runs of one tree are followed at the same time.
	maxRuns = 16
	// firstWindow is how many bytes of content are fetched ahead of a run that
	// has just been recognised. From then on it is as many as the run has read:
	// so no more than half of what is fetched can have been in vain, but for
	// this.
	firstWindow = 1 << 20
	// maxPacked bounds the window in bytes of the store: at 40 ms and 1 Gbit/s
	// 5 MB are on the line at any time, and as much must have arrived.
	maxPacked = 12 << 20
	// groupPacked is how many bytes of the store are fetched at once. Nothing
	// of a group can be used before all of it is there.
	groupPacked = 3 << 20
	// What makes a run has to follow closely: closeEntries of which only the last
	// is read, or closeBytes that are left out. In a run there may be more
	// between two files, and the kernel's own reading ahead comes out of order.
	closeEntries, nearEntries = 8, 64
	closeBytes, nearBytes     = 128 << 10, 4 << 20
	// farEntries is how many entries a second reader may be behind the first.
	farEntries = 4096
	// stale is when a run is over for whoever begins again behind its end.
	stale = time.Second
)

// ahead fetches what readers of a tree are going to want. Entries are numbered
// in the order in which the writer packed them, which is that of whoever copies
// the tree, so a run is a sequence of reads along the numbers, from file to
// file as well as within one.
type ahead struct {
	tree   *Tree
	window int64 // of content in bytes, at most

	mu   sync.Mutex
	runs []*run // the last one used first
	work sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
}

// place is a byte of the tree's content: an offset in the file with a slot.
type place struct {
	slot   uint64
	offset int64
}

func (p place) before(q place) bool {
	return p.slot < q.slot || p.slot == q.slot && p.offset < q.offset
}

// run is a reader who goes along the tree.
type run struct {
	at     place // where the last read ended
	hits   int   // reads that followed one another
	read   int64 // bytes of content
	next   place // what was not asked for yet
	queue  []asked
	plain  int64 // bytes of content in queue
	packed int64 // and of the store
	busy   bool  // somebody fetches for it
	last   time.Time
}

// asked is content that is on its way, and the reader has not come to.
type asked struct {
	until         place
	plain, packed int64
}

func newAhead(t *Tree) *ahead {
	a := &ahead{tree: t, window: t.chunks.o.Memory / 4}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a
}

// close ends all fetching ahead.
func (a *ahead) close() {
	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.work.Wait()
}

// saw is told of a read. It does not wait.
func (a *ahead) saw(n *view.Node, off, length int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from, to := place{n.Cookie, off}, place{n.Cookie, off + length}
	now := a.tree.chunks.o.Now()
	r := a.find(from, now)
	if r == nil {
		if len(a.runs) == maxRuns {
			a.runs = a.runs[:maxRuns-1]
		}
		a.runs = append([]*run{{at: to, next: to, read: length, last: now}}, a.runs...)
		return
	}
	r.last = now
	if !r.at.before(to) {
		return // behind the first reader: that was fetched already
	}
	r.at = to
	r.hits++
	r.read += length
	for len(r.queue) > 0 && !r.at.before(r.queue[0].until) {
		r.plain -= r.queue[0].plain
		r.packed -= r.queue[0].packed
		r.queue = r.queue[1:]
	}
	if r.next.before(r.at) {
		r.next = r.at
	}
	if r.busy || !a.wants(r) || a.ctx.Err() != nil {
		return
	}
	r.busy = true
	a.work.Go(func() { a.fetch(r) })
}

// find returns the run that a read belongs to, in front of the others.
func (a *ahead) find(at place, now time.Time) *run {
	for i, r := range a.runs {
		if r.follows(at, now) {
			copy(a.runs[1:i+1], a.runs[:i])
			a.runs[0] = r
			return r
		}
	}
	return nil
}

// follows reports whether a read at a place belongs to the run.
func (r *run) follows(at place, now time.Time) bool {
	skipped := at.offset - r.at.offset
	switch known := r.hits > 0; {
	case at.slot > r.at.slot && known:
		return at.slot-r.at.slot <= nearEntries
	case at.slot > r.at.slot:
		return at.slot-r.at.slot <= closeEntries
	case at.slot == r.at.slot && known:
		return -nearBytes <= skipped && skipped <= nearBytes
	case at.slot == r.at.slot:
		return 0 <= skipped && skipped <= closeBytes
	}
	return r.hits > 0 && r.at.slot-at.slot <= farEntries && now.Sub(r.last) < stale
}

// wants reports whether more should be fetched for a run: once less than half
// of the window is on its way, so that requests are large.
func (a *ahead) wants(r *run) bool {
	return r.plain < min(max(firstWindow, r.read), a.window)/2 && r.packed < maxPacked/2
}

// fetch asks for what comes next until the window is full.
func (a *ahead) fetch(r *run) {
	for {
		a.mu.Lock()
		at, window := r.next, min(max(firstWindow, r.read), a.window)-r.plain
		packed := maxPacked - r.packed
		a.mu.Unlock()
		got, next, ok := a.collect(at, window, min(packed, groupPacked))
		if ok && a.ctx.Err() == nil {
			ok = a.tree.chunks.prefetch(got.frames)
		}
		a.mu.Lock()
		if next != at {
			r.queue = append(r.queue, asked{next, got.plain, got.packed})
			r.plain, r.packed = r.plain+got.plain, r.packed+got.packed
			if r.next == at { // else the reader has overtaken
				r.next = next
			}
		}
		if !ok || got.plain == 0 || a.ctx.Err() != nil || !a.wants(r) {
			r.busy = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
	}
}

// hasContent is readable without a reason.
func hasContent(n *view.Node) bool {
	return n.Type == metastore.Regular && n.State != metastore.StateUnreadable && n.Content != 0
}

// upcoming is content to be asked for.
type upcoming struct {
	frames        []frame
	plain, packed int64
}

// maxEmpty is how many entries without content are gone through in search of
// some: there may be a million, and nobody waits for what is behind them. The
// next read goes on from there.
const maxEmpty = 4096

// collect finds the frames of what comes after a place, up to some bytes of
// content or of the store, and where that ends.
func (a *ahead) collect(at place, plain, packed int64) (u upcoming, next place, ok bool) {
	const entries = 256
	next = at
	empty := 0 // entries since the last content
	full := func() bool { return u.plain >= plain || u.packed >= packed || empty >= maxEmpty }
	// The rest of the file at hand comes first.
	slot, offset := at.slot-1, at.offset
	for !full() {
		nodes, err := a.tree.view.After(a.ctx, slot, entries)
		if err != nil || len(nodes) == 0 {
			return u, next, err == nil && next != at
		}
		for i := range nodes {
			n := &nodes[i]
			slot = n.Cookie
			empty++
			if n.Cookie != at.slot {
				offset = 0
			}
			if hasContent(n) && offset < n.Size {
				end, err := a.file(&u, n, offset, plain-u.plain)
				if err != nil {
					return u, next, false
				}
				next, empty = place{slot, end}, 0
			} else {
				next = place{slot, max(n.Size, offset)}
			}
			if full() {
				break
			}
		}
	}
	return u, next, true
}

// file adds the frames of a file from an offset on.
func (a *ahead) file(u *upcoming, n *view.Node, off, length int64) (end int64, err error) {
	extents, err := a.tree.view.Extents(a.ctx, *n, off, min(max(length, 1), n.Size-off))
	if err != nil {
		return off, err
	}
	end = off
	for _, x := range extents {
		end = x.Offset + x.Length
		if x.Hole || x.Lost {
			continue
		}
		u.plain += x.Length
		f := a.tree.frameOf(a.tree.placed(a.ctx, x))
		if k := len(u.frames); k > 0 && u.frames[k-1].key == f.key {
			u.frames[k-1].plain = max(u.frames[k-1].plain, f.plain)
			continue
		}
		u.frames = append(u.frames, f)
		u.packed += f.length
	}
	return end, nil
}
