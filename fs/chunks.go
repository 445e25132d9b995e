package fs

import (
	"context"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// Defaults of ChunkOptions.
const (
	DefaultMemory  = 128 << 20
	DefaultTimeout = time.Minute

	// maxReaders bounds how many blobs' file keys are remembered. Each saves
	// an asymmetric decryption (0.3 ms for a hybrid identity) and a fetch.
	maxReaders = 256
)

// ChunkOptions bound what reading costs. Zero fields mean the defaults.
type ChunkOptions struct {
	Memory  int64         // bytes of decompressed frames and of fetches in flight
	Timeout time.Duration // of one fetch
	Now     func() time.Time
}

// Chunks reads frames of blobs: it fetches each once however many ask for it
// at the same time, and keeps what fits into memory. It is shared by all trees
// of a store and safe for concurrent use.
//
// A fetch belongs to nobody: it runs on under its own deadline when the reader
// that began it gives up, because others may wait for it. A failure is not
// cached, except that the same frame fails at once for one second.
type Chunks struct {
	store      remote.Store
	identities []age.Identity
	o          ChunkOptions

	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	fetches  errgroup.Group
	inFlight *semaphore.Weighted // bytes; half of Memory

	mu      sync.Mutex
	closed  bool
	cache   *frameCache
	flights map[frameKey]*flight
	failed  failures
	readers *readerCache
	stats   Stats // but for Wasted
}

// flight is one frame on its way. data and err are set before done is closed.
type flight struct {
	done   chan struct{}
	data   []byte
	err    error
	wanted bool // somebody waits for it; else it was begun ahead
}

// frame says where a frame lies.
type frame struct {
	key    frameKey
	length int64 // compressed
	chunk  int64 // offset of the wanted chunk in the decompressed frame
	plain  int64 // the frame has at least so many bytes decompressed: the end of that chunk
	ref    blob.Ref
}

// NewChunks reads from s what identities can decrypt. Close it in the end.
func NewChunks(s remote.Store, identities []age.Identity, o ChunkOptions) *Chunks {
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Chunks{
		store: s, identities: identities, o: o,
		inFlight: semaphore.NewWeighted(o.Memory / 2),
		cache:    newFrameCache(o.Memory),
		flights:  make(map[frameKey]*flight),
		failed:   failures{now: o.Now, recent: make(map[failedKey]failure)},
		readers:  newReaderCache(maxReaders),
	}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	return c
}

// Close ends all fetches and waits for them. Readers that wait for one fail
// with ErrClosed.
func (c *Chunks) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop(ErrClosed)
	return c.fetches.Wait() // fetches report to their waiters, never here
}

// frames returns the decompressed frames, in the order of want. They are
// shared: nobody may change them.
func (c *Chunks) frames(ctx context.Context, want []frame) ([][]byte, error) {
	out := make([][]byte, len(want))
	waits, err := c.start(want, out)
	if err != nil {
		return nil, err
	}
	for i, f := range waits {
		if f == nil {
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, &BlobError{want[i].ref.Key, context.Cause(ctx)}
		}
		if f.err != nil {
			return nil, f.err
		}
		out[i] = f.data
	}
	return out, nil
}

// start fills out from memory, joins the flights under way and begins one
// fetch a blob for the rest.
func (c *Chunks) start(want []frame, out [][]byte) ([]*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	// All that can fail comes before the first flight: one that is registered
	// must take off, or whoever joins it waits in vain.
	for i, w := range want {
		if err := c.failed.get(failedKey{w.key, w.chunk}); err != nil {
			return nil, err
		}
		if data, ok := c.cache.get(w.key); ok {
			out[i] = data
			continue
		}
		if err := c.failed.get(failedKey{w.key, -1}); err != nil {
			return nil, err
		}
	}
	var waits []*flight
	var fetch map[remote.Hash][]frame
	for i, w := range want {
		if out[i] != nil {
			continue
		}
		if waits == nil {
			waits = make([]*flight, len(want))
		}
		f := c.flights[w.key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[w.key] = f
			if fetch == nil {
				fetch = make(map[remote.Hash][]frame)
			}
			fetch[w.key.blob] = append(fetch[w.key.blob], w)
			c.stats.Demanded += w.length
		}
		f.wanted = true
		waits[i] = f
	}
	c.takeOff(fetch)
	return waits, nil
}

// prefetch begins to fetch what is neither there nor on its way, for whoever
// may ask for it soon. It reports whether that was possible.
func (c *Chunks) prefetch(want []frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	fetch := make(map[remote.Hash][]frame)
	for _, w := range want {
		if c.cache.has(w.key) || c.flights[w.key] != nil || c.failed.get(failedKey{w.key, -1}) != nil {
			continue
		}
		c.flights[w.key] = &flight{done: make(chan struct{})}
		fetch[w.key.blob] = append(fetch[w.key.blob], w)
		c.stats.Ahead += w.length
	}
	c.takeOff(fetch)
	return true
}

// Stats is what reading has cost so far, in bytes of the store.
type Stats struct {
	Demanded int64 // fetched because somebody waited for it
	Ahead    int64 // fetched before anybody asked for it
	Wasted   int64 // of Ahead: dropped again, and nobody had asked
}

// Stats returns what reading has cost so far.
func (c *Chunks) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Wasted = c.cache.wasted
	return s
}
