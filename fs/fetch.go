package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// takeOff begins one fetch a blob.
func (c *Chunks) takeOff(fetch map[remote.Hash][]frame) {
	for _, group := range fetch {
		r := c.readers.get(group[0].key.blob, func() *blob.Reader {
			return blob.NewReader(c.store, group[0].ref, c.identities)
		})
		c.fetches.Go(func() error { c.fetch(r, group); return nil })
	}
}

// fetch gets the frames of one blob and tells their waiters.
func (c *Chunks) fetch(r *blob.Reader, group []frame) {
	ctx, cancel := context.WithTimeoutCause(c.ctx, c.o.Timeout,
		fmt.Errorf("the store did not deliver within %v: %w", c.o.Timeout, context.DeadlineExceeded))
	defer cancel()

	weight := int64(0)
	for _, f := range group {
		weight += f.length + f.plain
	}
	weight = min(weight, c.o.Memory/2)
	if err := c.inFlight.Acquire(ctx, weight); err != nil {
		c.land(group, nil, c.because(ctx, group[0], err))
		return
	}
	defer c.inFlight.Release(weight)
	c.count(weight)
	defer c.count(-weight)

	data, err := c.get(ctx, r, group)
	if errors.Is(err, remote.ErrCorrupt) && len(group) > 1 {
		// One bad frame must not take its neighbours along: ask for each, so
		// that exactly those that are bad fail.
		for i := range group {
			data, err := c.get(ctx, r, group[i:i+1])
			c.land(group[i:i+1], data, err)
		}
		return
	}
	c.land(group, data, err)
}

func (c *Chunks) get(ctx context.Context, r *blob.Reader, group []frame) ([][]byte, error) {
	spans := make([]blob.Span, len(group))
	for i, f := range group {
		spans[i] = blob.Span{Offset: f.key.offset, Length: f.length}
	}
	data, err := r.Frames(ctx, spans)
	if errors.Is(err, remote.ErrCorrupt) && c.forget(group[0].ref.Key) {
		data, err = r.Frames(ctx, spans)
	}
	if err != nil {
		return nil, c.because(ctx, group[0], err)
	}
	if len(data) != len(group) {
		return nil, &BlobError{group[0].ref.Key, fmt.Errorf("asked for %d frames, got %d: %w", len(group), len(data), remote.ErrCorrupt)}
	}
	return data, nil
}

// because names the blob, and the reason why ctx ended if that is the cause.
func (c *Chunks) because(ctx context.Context, f frame, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, iofs.ErrNotExist):
		err = ErrLost
	}
	return &BlobError{f.ref.Key, err}
}

// BlobError says which blob of the store could not be read. Its text names the
// blob once.
type BlobError struct {
	Key string
	Err error
}

func (e *BlobError) Error() string {
	if s := (*remote.StoreError)(nil); errors.As(e.Err, &s) && s.Key == e.Key {
		return fmt.Sprintf("blob %q in %s: %v", e.Key, s.Where, s.Err)
	}
	return fmt.Sprintf("blob %q: %v", e.Key, e.Err)
}

// Unwrap leads errors.Is to the reason.
func (e *BlobError) Unwrap() error { return e.Err }

// lost makes the absence of an object an ErrLost and nothing else.
func lost(err error) error {
	if errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("%w: %v", ErrLost, err)
	}
	return err
}

func (c *Chunks) count(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.grow(n)
}

// land ends the flights of a group, with their frames or with err.
func (c *Chunks) land(group []frame, data [][]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, g := range group {
		f := c.flights[g.key]
		delete(c.flights, g.key)
		switch {
		case err == nil && f.wanted:
			f.data = data[i]
			c.cache.put(g.key, data[i], 0)
		case err == nil:
			f.data = data[i]
			c.cache.put(g.key, data[i], g.length)
		default:
			f.err = err
			if f.wanted { // else whoever asks shall try for himself
				c.failed.remember(failedKey{g.key, -1}, err)
			}
		}
		close(f.done)
	}
}

// forgetter is a store that keeps copies of blobs.
type forgetter interface {
	// Forget drops the copy of a blob, which turned out to be damaged.
	Forget(key string)
}

// forget drops what the store keeps of a blob, and reports whether it keeps
// anything.
func (c *Chunks) forget(key string) bool {
	f, ok := c.store.(forgetter)
	if ok {
		f.Forget(key)
	}
	return ok
}

// doubt drops all copies of a frame: the next one comes from where the blob is.
func (c *Chunks) doubt(f frame) {
	c.forget(f.ref.Key)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.drop(f.key)
}

// distrust is told of a chunk that has the wrong hash. Its frame leaves the
// memory, where it may have been damaged.
func (c *Chunks) distrust(f frame, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache.drop(f.key)
	c.failed.remember(failedKey{f.key, f.chunk}, err)
}
