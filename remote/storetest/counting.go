package storetest

import (
	"context"
	"io"
	"iter"
	"slices"
	"sync"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Counting is a store that tells what was asked of it. Use NewCounting.
type Counting struct {
	remote.Store

	mu       sync.Mutex
	counts   map[string]Count
	read     []string
	inFlight map[string]int
}

// Count is what Counting knows about one method.
type Count struct {
	Calls       int
	Failed      int   // calls that returned an error, at once or while reading
	Bytes       int64 // of bodies that Put was given or that readers of Get returned
	MaxInFlight int   // most calls at one time; a Get lasts until its reader is closed
}

// NewCounting wraps s.
func NewCounting(s remote.Store) *Counting {
	c := &Counting{Store: s, inFlight: make(map[string]int)}
	c.Reset()
	return c
}

// Reset forgets everything but the calls in flight.
func (c *Counting) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = make(map[string]Count)
	c.read = nil
}

// Count returns the count of one method (OpPut …). For "" it adds up Calls,
// Failed and Bytes of all methods; MaxInFlight then is that of all together.
func (c *Counting) Count(op string) Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[op]
}

// KeysRead returns the keys of all calls of Get in order, with repetitions.
func (c *Counting) KeysRead() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.read)
}

// Put implements remote.Store.
func (c *Counting) Put(ctx context.Context, key string, body []byte) error {
	c.begin(OpPut)
	err := c.Store.Put(ctx, key, body)
	c.end(OpPut, int64(len(body)), err)
	return err
}

// Get implements remote.Store.
func (c *Counting) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	c.mu.Lock()
	c.read = append(c.read, key)
	c.mu.Unlock()
	c.begin(OpGet)
	r, err := c.Store.Get(ctx, key, off, n)
	if err != nil {
		c.end(OpGet, 0, err)
		return nil, err
	}
	return &countingBody{ReadCloser: r, c: c}, nil
}

// Stat implements remote.Store.
func (c *Counting) Stat(ctx context.Context, key string) (remote.Info, error) {
	c.begin(OpStat)
	info, err := c.Store.Stat(ctx, key)
	c.end(OpStat, 0, err)
	return info, err
}

// List implements remote.Store. A listing is one call, however many pages
// the store needs for it.
func (c *Counting) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		var failed error
		c.begin(OpList)
		defer func() { c.end(OpList, 0, failed) }()
		for info, err := range c.Store.List(ctx, prefix) {
			failed = err
			if !yield(info, err) {
				return
			}
		}
	}
}

// Delete implements remote.Store.
func (c *Counting) Delete(ctx context.Context, key string) error {
	c.begin(OpDelete)
	err := c.Store.Delete(ctx, key)
	c.end(OpDelete, 0, err)
	return err
}

func (c *Counting) begin(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range []string{op, ""} {
		c.inFlight[op]++
		n := c.counts[op]
		n.Calls++
		n.MaxInFlight = max(n.MaxInFlight, c.inFlight[op])
		c.counts[op] = n
	}
}

func (c *Counting) end(op string, bytes int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, op := range []string{op, ""} {
		c.inFlight[op]--
		n := c.counts[op]
		n.Bytes += bytes
		if err != nil {
			n.Failed++
		}
		c.counts[op] = n
	}
}

type countingBody struct {
	io.ReadCloser
	c    *Counting
	n    int64
	err  error
	once sync.Once
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

func (b *countingBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.c.end(OpGet, b.n, b.err) })
	return err
}
