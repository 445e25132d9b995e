package diskcache

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBuffers bounds what is on its way to the disk: 16 MiB.
	maxBuffers = 64
	// A reader waits so long for the disk …
	patience = 100 * time.Millisecond
	// … and then not again for so long.
	indulgence = time.Second
)

// block is room for a record.
type block [headerSize + maxRecord]byte

// memory is what records are read into.
var memory = sync.Pool{New: func() any { return new(block) }}

// appending is a record on its way to the disk.
type appending struct {
	key, name string
	span
	buf    *block
	voided uint64 // of the cache when it was asked for
}

// buffers are the blocks of what is fetched and not yet written.
type buffers struct {
	free    chan *block
	made    atomic.Int32
	stalled atomic.Int64 // nobody waits before this, in nanoseconds since 1970
}

// get returns a block, or nil if the disk falls behind.
func (b *buffers) get(now func() time.Time) *block {
	select {
	case free := <-b.free:
		return free
	default:
	}
	if b.made.Add(1) <= maxBuffers {
		return new(block)
	}
	b.made.Add(-1)
	if now().UnixNano() < b.stalled.Load() {
		return nil
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case free := <-b.free:
		return free
	case <-wait.C:
		b.stalled.Store(now().Add(indulgence).UnixNano())
		return nil
	}
}

func (b *buffers) put(used *block) { b.free <- used }

// recording collects what a body gets from the store.
type recording struct {
	buf *block // nil between two records
	span
}

// keep takes p, which was fetched from offset off on, where a piece of left
// bytes begins.
func (r *recording) keep(b *body, p []byte, off, left int64) {
	for len(p) > 0 {
		if r.buf == nil {
			if r.buf = b.cache.buffers.get(b.cache.o.Now); r.buf == nil {
				return
			}
			r.span = span{off, 0}
		}
		n := copy(r.buf[int64(headerSize)+r.n:], p)
		p, off, left, r.n = p[n:], off+int64(n), left-int64(n), r.n+int64(n)
		if r.n == maxRecord || left == 0 {
			b.cache.submit(&appending{b.key, b.name, r.span, r.buf, b.voided})
			r.buf = nil
		}
	}
}

// drop gives up a record that did not become whole.
func (r *recording) drop(c *Cache) {
	if r.buf != nil {
		c.buffers.put(r.buf)
		r.buf = nil
	}
}

// submit never waits: there are no more blocks than have room in the queue.
func (c *Cache) submit(a *appending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.buffers.put(a.buf)
		return
	}
	c.queue <- a
}
