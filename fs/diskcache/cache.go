package diskcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote"
)

// DefaultSize is how much a folder may hold unless Options say otherwise.
const DefaultSize = 4 << 30

// touchEvery is how exactly a file's mtime says when it was used last.
const touchEvery = time.Minute

// Options of a Cache. Zero fields but Folder mean the defaults.
type Options struct {
	Folder string // made, with those above it, by the first append
	Size   int64  // bytes that all files may have together, in blocks of 4 KiB
	Now    func() time.Time
	Warn   func(error) // is told once why nothing is recorded; called from any goroutine
}

// Cache is a store with a folder in front of it. It is safe for concurrent
// use; make one with New and Close it in the end.
type Cache struct {
	remote.Store
	o Options

	indexes indexes
	// voided counts calls of Forget: what was fetched before the last one
	// does not count.
	voided atomic.Uint64

	buffers buffers
	queue   chan *appending
	writer  errgroup.Group

	writing sync.Mutex // held by whoever appends, and by Forget
	disk    disk
	paused  time.Time // nothing is appended before this

	mu     sync.Mutex
	closed bool
	warned bool
}

// New returns a store in front of s. It touches no file: whether the folder
// can be used, the first use shows.
func New(s remote.Store, o Options) *Cache {
	if o.Size <= 0 {
		o.Size = DefaultSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{Store: s, o: o, queue: make(chan *appending, maxBuffers)}
	c.buffers.free = make(chan *block, maxBuffers)
	c.disk = disk{folder: o.Folder, limit: o.Size, indexes: &c.indexes}
	c.writer.Go(func() error {
		for a := range c.queue {
			c.record(a)
			c.buffers.put(a.buf)
		}
		return c.disk.close()
	})
	return c
}

// Close writes what is still to be recorded, and lets go of the folder. The
// store stays open. Bodies of Get may be read on, but are no longer recorded.
func (c *Cache) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.queue)
	}
	c.mu.Unlock()
	return c.writer.Wait()
}

// fileName is the name of the file of a blob; ok is false for keys that are
// no blobs'.
func fileName(key string) (name string, ok bool) {
	k, err := remote.ParseKey(key)
	if err != nil || k.Kind != remote.KindBlob {
		return "", false
	}
	return strings.ReplaceAll(key, "/", ","), true
}

// keyOf is the inverse of fileName.
func keyOf(name string) (key string, ok bool) {
	key = strings.ReplaceAll(name, ",", "/")
	back, ok := fileName(key)
	return key, ok && back == name
}

// Get implements remote.Store. What of a blob is not in the folder is fetched
// by as few requests as sensible, all at once. The store's errors come through
// as they are.
//
// Only ranges of known length are recorded; n < 0 goes to the store.
func (c *Cache) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	name, ok := fileName(key)
	if !ok || n <= 0 || off < 0 || off > math.MaxInt64-n {
		return c.Store.Get(ctx, key, off, n)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	b := &body{cache: c, ctx: ctx, key: key, name: name, voided: c.voided.Load()}
	b.file, b.pieces = c.find(name, span{off, n})
	b.pieces = coalesce(b.pieces)
	if err := b.fetch(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// find cuts a range into what the folder has and what it lacks. The file is
// nil if it has nothing.
func (c *Cache) find(name string, want span) (*os.File, []piece) {
	missing := []piece{{span: want}}
	path := filepath.Join(c.o.Folder, name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.warn(err)
		}
		return nil, missing
	}
	x := c.indexes.get(name)
	x.mu.Lock()
	info, err := x.update(f)
	var pieces []piece
	if err == nil {
		pieces = x.plan(want)
	}
	x.mu.Unlock()
	if err != nil {
		c.discardThat(name, f)
		f.Close()
		return nil, missing
	}
	if len(pieces) == 1 && !pieces[0].cached {
		f.Close()
		return nil, missing
	}
	if now := c.o.Now(); now.Sub(info.used) >= touchEvery {
		_ = os.Chtimes(path, now, now) // only decides which file goes first
	}
	return f, pieces
}

// Forget removes a blob from the folder, because what was read of it is not
// what belongs there though the folder has what the store sent. What is being
// fetched at the moment is not recorded either. Keys of anything else are
// ignored.
func (c *Cache) Forget(key string) {
	if name, ok := fileName(key); ok {
		c.writing.Lock()
		defer c.writing.Unlock()
		c.voided.Add(1)
		c.discard(name)
	}
}

// discardThat removes a file that was found damaged, unless another one has
// taken its place since: several readers may find the damage, and what the
// first one fetched again has to stay.
func (c *Cache) discardThat(name string, damaged *os.File) {
	c.writing.Lock()
	defer c.writing.Unlock()
	there, err := os.Lstat(filepath.Join(c.o.Folder, name))
	if was, failed := damaged.Stat(); err == nil && failed == nil && !os.SameFile(was, there) {
		return
	}
	c.discard(name)
}

// discard removes a damaged file.
func (c *Cache) discard(name string) {
	c.indexes.drop(name)
	// The size in the lock file stays too high, which does no harm.
	if err := os.Remove(filepath.Join(c.o.Folder, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.warn(err)
	}
}

// Unwrap returns the store behind the cache, for what it offers besides.
func (c *Cache) Unwrap() remote.Store { return c.Store }

// Delete implements remote.Store.
func (c *Cache) Delete(ctx context.Context, key string) error {
	c.Forget(key)
	return c.Store.Delete(ctx, key)
}

// warn tells what is wrong with the folder, once.
func (c *Cache) warn(err error) {
	c.mu.Lock()
	first := !c.warned
	c.warned = true
	c.mu.Unlock()
	if first && c.o.Warn != nil {
		c.o.Warn(fmt.Errorf("what is fetched is not kept in the cache folder: %w", err))
	}
}
