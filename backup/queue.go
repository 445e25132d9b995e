package backup

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/backup/scan"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
	"git.eeqj.de/sneak/vaultik/remote"
)

const (
	// queueLength bounds how far scan runs ahead, in entries.
	queueLength = 512
	// readAhead bounds the content that readers hold for entries that pack
	// has not come to, in bytes. It is what lets several small files be read
	// at once while one large file is being packed.
	readAhead = 16 << 20
	// pieceSize is about what a piece has at least, in bytes; most files are
	// one.
	pieceSize = 256 << 10
)

// job is one item on its way from scan through read to pack.
type job struct {
	scan.Item
	number int64           // position in walking order
	moves  []snapshot.Move // chunks to be read again and nothing else to be done

	// set by read, complete when pieces is closed
	pieces  chan piece
	file    metastore.File
	err     error
	partial error     // some of the metadata could not be read
	started time.Time // when reading began
}

// piece is a chunk of content, or a hole.
type piece struct {
	restart bool  // forget the pieces before: the file changed and is read anew
	chunk   int64 // of the index, of a chunk that is moved
	offset  int64
	length  int64
	hole    bool
	hash    remote.Hash
	data    []byte // owned by the receiver; goes back with release
}

// queue carries jobs to the readers and, in the same order, to pack.
type queue struct {
	ordered chan *job
	reading chan *job
	last    int64

	// The byte budget of read pieces. Whoever reads the job that pack waits
	// for may exceed it, or both could wait for each other.
	mu   sync.Mutex
	cond *sync.Cond
	used int64
	head int64
	stop bool
}

func newQueue(ctx context.Context) *queue {
	q := &queue{ordered: make(chan *job, queueLength), reading: make(chan *job, queueLength)}
	q.cond = sync.NewCond(&q.mu)
	context.AfterFunc(ctx, func() {
		q.mu.Lock()
		q.stop = true
		q.mu.Unlock()
		q.cond.Broadcast()
	})
	return q
}

// emit hands over what scan found.
func (q *queue) emit(ctx context.Context, i scan.Item) error { return q.put(ctx, &job{Item: i}) }

// put hands a job over; only who begins the pipeline calls it.
func (q *queue) put(ctx context.Context, j *job) error {
	q.last++
	j.number = q.last
	if j.Dir == nil {
		return send(ctx, q.ordered, j)
	}
	j.Dir.Retain()
	// Room for its pieces lets a small file's reader go on to the next; the
	// bytes are bounded by take.
	j.pieces = make(chan piece, min(8, 1+j.Entry.Size/pieceSize))
	err := send(ctx, q.ordered, j)
	if err == nil {
		err = send(ctx, q.reading, j)
	}
	if err != nil {
		return errors.Join(err, j.Dir.Close())
	}
	return nil
}

// drain lets go of what nobody has read, after the stages have ended.
func (q *queue) drain() error {
	var all []error
	for j := range q.reading {
		all = append(all, j.Dir.Close())
	}
	return errors.Join(all...)
}

func (q *queue) close() {
	close(q.ordered)
	close(q.reading)
}

// take waits until n bytes more may be held for a job.
func (q *queue) take(ctx context.Context, j *job, n int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.used+n > readAhead && j.number != q.head && !q.stop {
		q.cond.Wait()
	}
	q.used += n
	return ctx.Err()
}

// give returns what take took.
func (q *queue) give(n int64) {
	q.mu.Lock()
	q.used -= n
	q.mu.Unlock()
	q.cond.Broadcast()
}

// next is pack's turn to the next job in order.
func (q *queue) next(ctx context.Context) (*job, error) {
	j, err := receive(ctx, q.ordered)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	q.head = j.number
	q.mu.Unlock()
	q.cond.Broadcast()
	return j, nil
}

// buffers reuses the memory of chunks and frames by size class, a power of
// two: pages that were touched before are several times cheaper than new
// ones, which a virtual machine may have to fetch from its host.
type buffers struct {
	classes [32]sync.Pool
}

// get returns an empty buffer with room for n bytes.
func (b *buffers) get(n int) []byte {
	class := sizeClass(n)
	if p, ok := b.classes[class].Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, 1<<class)
}

// put takes a buffer back.
func (b *buffers) put(p []byte) {
	if class := sizeClass(cap(p)); cap(p) == 1<<class {
		p = p[:0]
		b.classes[class].Put(&p)
	}
}

// sizeClass is the smallest power of two, as an exponent, that holds n; small
// ones share the class of a page.
func sizeClass(n int) int { return max(9, bits.Len(uint(max(n, 1)-1))) }
