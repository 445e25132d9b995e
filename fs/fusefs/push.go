package fusefs

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// How far pushing goes.
const (
	// pushSize is the largest file that is pushed, in bytes. For larger ones
	// the kernel reads ahead, which is as fast.
	pushSize = 128 << 10
	// Of canaryEach files one is not pushed: since programs read what was pushed
	// without anybody being told, it is how one learns that they still read.
	canaryEach = 32
	// A READ of a small file gives credit for pushing more of them, in files and
	// in bytes, up to a maximum: as much is pushed in vain at most.
	creditFiles, maxCreditFiles = 4 * canaryEach, 16 * canaryEach
	creditBytes, maxCreditBytes = 4 << 20, 16 << 20
	// maxListed bounds how many listed directories are remembered.
	maxListed = 4096
)

// pusher stores small files in the kernel's page cache before programs read
// them: whoever copies a tree then asks nothing about their content. A round
// trip through the kernel and back costs several times as much as a store,
// which nobody waits for.
//
// It follows whoever goes through the tree in listing order. Only what the
// kernel knows can be stored: the entries of a directory up to the offset that
// its next READDIRPLUS begins at. And only while content is being read, or
// find(1) would fetch all of it.
//
// Storing waits for the page's lock, which a READ under way holds. So it is
// done by a goroutine of its own, never by one that answers requests.
type pusher struct {
	fs     *fileSystem
	store  func(ino uint64, data []byte) fuse.Status
	wake   chan struct{}
	buffer []byte

	mu      sync.Mutex
	listed  map[uint64]*listed // by the directory's inode number
	order   []*listed          // in the order in which they were listed, from the one at hand on
	files   int                // credit
	bytes   int64              // credit
	reading map[uint64]int     // READs under way, by inode number

	busy            bool  // while it pushes
	pushed, refused int64 // files; for tests
}

// listed is a directory whose entries the kernel knows.
type listed struct {
	dir, base uint64
	next      uint64 // slot behind which nothing was pushed
	upTo      uint64 // slot up to which the kernel knows the entries
}

func newPusher(f *fileSystem, store func(uint64, []byte) fuse.Status) *pusher {
	return &pusher{
		fs: f, store: store, wake: make(chan struct{}, 1), buffer: make([]byte, pushSize),
		listed: make(map[uint64]*listed), reading: make(map[uint64]int),
	}
}

// knows is told that the kernel knows the entries of a directory up to a slot.
func (p *pusher) knows(dir, base, slot uint64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listed[dir]
	if l == nil {
		if len(p.listed) >= maxListed {
			clear(p.listed)
			p.order = nil
		}
		l = &listed{dir: dir, base: base}
		p.listed[dir] = l
		p.order = append(p.order, l)
	}
	l.upTo = max(l.upTo, slot)
	p.rouse()
}

// begins is told of a READ, and returns what is to be called once it is
// answered.
func (p *pusher) begins(ino, base uint64, n *view.Node, off int64) (ends func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading[ino]++
	if off == 0 && n.Size <= pushSize {
		p.files = min(p.files+creditFiles, maxCreditFiles)
		p.bytes = min(p.bytes+creditBytes, maxCreditBytes)
		p.follow(base|n.Parent, n.Cookie)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.reading[ino]--; p.reading[ino] == 0 {
			delete(p.reading, ino)
		}
		p.rouse()
	}
}

// follow makes the entries behind a slot of a directory the next ones.
func (p *pusher) follow(dir, slot uint64) {
	l := p.listed[dir]
	if l == nil {
		return
	}
	l.next = max(l.next, slot)
	for i, o := range p.order {
		if o == l {
			// Whoever reads here is done with what was listed before.
			for _, gone := range p.order[:i] {
				delete(p.listed, gone.dir)
			}
			p.order = p.order[i:]
			return
		}
	}
}

// rouse wakes the goroutine that pushes.
func (p *pusher) rouse() {
	if p.files <= 0 || p.bytes <= 0 {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run pushes until ctx ends.
func (p *pusher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.working(true)
		for ctx.Err() == nil && p.step(ctx) {
		}
		p.working(false)
	}
}

func (p *pusher) working(busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = busy
}

// step pushes some files of the directory at hand, and reports whether there
// may be more to do.
func (p *pusher) step(ctx context.Context) bool {
	p.mu.Lock()
	for len(p.order) > 0 && p.order[0].next >= p.order[0].upTo && len(p.order) > 1 {
		delete(p.listed, p.order[0].dir)
		p.order = p.order[1:]
	}
	if len(p.order) == 0 || p.files <= 0 || p.bytes <= 0 || p.order[0].next >= p.order[0].upTo {
		p.mu.Unlock()
		return false
	}
	l := *p.order[0]
	p.mu.Unlock()

	r := p.fs.begin(ctx.Done())
	defer r.end()
	t, base, done, err := p.fs.use(r, l.dir)
	if err != nil {
		return false
	}
	defer done()
	var nodes []view.Node
	if l.next == 0 {
		nodes, err = t.ReadDir(ctx, l.dir&inodeMask, 0, 1)
	} else {
		nodes, err = t.After(ctx, l.next, canaryEach)
	}
	if err != nil {
		return false
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Cookie > l.upTo || n.Type == metastore.Directory {
			p.pass(l.dir, l.upTo) // directories come last
			return true
		}
		if !p.wants(l.dir, base, n) {
			continue
		}
		got, err := t.ReadAt(r, *n, p.buffer[:n.Size], 0)
		if err != nil && !errors.Is(err, io.EOF) || int64(got) != n.Size {
			continue // whoever reads it is told why
		}
		p.push(base|n.Ino, p.buffer[:got])
		if !p.more() {
			return false
		}
	}
	if len(nodes) == 0 {
		p.pass(l.dir, l.upTo)
	}
	return true
}

// pass notes that the entries of a directory up to a slot are done with.
func (p *pusher) pass(dir, slot uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.listed[dir]; l != nil {
		l.next = max(l.next, slot)
	}
}

// wants reports whether a file should be pushed, and passes it.
func (p *pusher) wants(dir, base uint64, n *view.Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listed[dir]
	if l == nil || n.Cookie <= l.next {
		return false // its reader was faster
	}
	l.next = n.Cookie
	return n.Type == metastore.Regular && n.Content != 0 && n.State == metastore.StateComplete &&
		n.Size > 0 && n.Size <= pushSize && n.Cookie%canaryEach != 0 && p.reading[base|n.Ino] == 0
}

// push stores a file, unless somebody has begun to read it.
func (p *pusher) push(ino uint64, data []byte) {
	p.mu.Lock()
	if p.reading[ino] > 0 {
		p.mu.Unlock()
		return
	}
	p.files--
	p.bytes -= int64(len(data))
	p.mu.Unlock()
	ok := p.store(ino, data).Ok() // ENOENT: the kernel has forgotten the inode
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok {
		p.pushed++
	} else {
		p.refused++
	}
}

// more reports whether there is credit left.
func (p *pusher) more() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files > 0 && p.bytes > 0
}
