package fs

import (
	"container/list"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// frameKey names one frame in the whole store: blobs are named by the hash of
// their bytes, so the writer and the seq add nothing.
type frameKey struct {
	blob   remote.Hash
	offset int64 // of the compressed frame in the decrypted blob
}

// frameCache keeps decompressed frames, the least recently used go first. It
// counts every byte it is told about, fetches in flight included, so that
// limit bounds them together. The caller locks.
type frameCache struct {
	limit  int64 // bytes
	used   int64 // bytes of frames held and of fetches in flight
	order  list.List
	frames map[frameKey]*list.Element
	wasted int64 // bytes of the store that were fetched ahead and never asked for
}

type cachedFrame struct {
	key   frameKey
	data  []byte // never changed once it is in the cache
	ahead int64  // bytes of the store, while nobody has asked for it
}

func newFrameCache(limit int64) *frameCache {
	return &frameCache{limit: limit, frames: make(map[frameKey]*list.Element)}
}

// has reports whether a frame is there, and does not mark it as used.
func (c *frameCache) has(k frameKey) bool { return c.frames[k] != nil }

// get returns a frame and marks it as used.
func (c *frameCache) get(k frameKey) ([]byte, bool) {
	e, ok := c.frames[k]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	f := e.Value.(*cachedFrame)
	f.ahead = 0
	return f.data, true
}

// put keeps a frame. One that is bigger than the whole cache goes at once.
// ahead is how many bytes of the store it took if nobody has asked for it.
func (c *frameCache) put(k frameKey, data []byte, ahead int64) {
	if _, ok := c.frames[k]; ok {
		return
	}
	c.frames[k] = c.order.PushFront(&cachedFrame{k, data, ahead})
	c.grow(int64(len(data)))
}

// drop forgets a frame.
func (c *frameCache) drop(k frameKey) {
	e, ok := c.frames[k]
	if !ok {
		return
	}
	c.order.Remove(e)
	delete(c.frames, k)
	f := e.Value.(*cachedFrame)
	c.used -= int64(len(f.data))
	c.wasted += f.ahead
}

// grow counts n bytes more (or less) and makes room for them.
func (c *frameCache) grow(n int64) {
	c.used += n
	for c.used > c.limit && c.order.Len() > 0 {
		c.drop(c.order.Back().Value.(*cachedFrame).key)
	}
}

// readerCache remembers the blob readers used last, for the file keys that
// they hold: a known blob is read without its header and without asymmetric
// cryptography. The caller locks.
type readerCache struct {
	limit   int
	order   list.List
	readers map[remote.Hash]*list.Element
}

type cachedReader struct {
	blob   remote.Hash
	reader *blob.Reader
}

func newReaderCache(limit int) *readerCache {
	return &readerCache{limit: limit, readers: make(map[remote.Hash]*list.Element)}
}

// get returns the reader of a blob, made by open if it is not known.
func (c *readerCache) get(h remote.Hash, open func() *blob.Reader) *blob.Reader {
	if e, ok := c.readers[h]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*cachedReader).reader
	}
	r := open()
	c.readers[h] = c.order.PushFront(&cachedReader{h, r})
	for c.order.Len() > c.limit {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.readers, last.Value.(*cachedReader).blob)
	}
	return r
}

// failFast is how long a failed frame fails again without asking the store.
// The kernel repeats a failed read-ahead page by page; without it an outage of
// one deadline would become one deadline a page.
const failFast = time.Second

// maxFailures bounds how many are remembered.
const maxFailures = 1024

// failures remembers what failed within the last failFast. The caller locks.
type failures struct {
	now    func() time.Time
	recent map[failedKey]failure
}

// failedKey names what failed: a frame that could not be had (chunk is -1), or
// one chunk in a frame, whose neighbours may be sound.
type failedKey struct {
	frame frameKey
	chunk int64 // offset in the decompressed frame
}

type failure struct {
	err   error
	until time.Time
}

// get returns the error of a failure that is less than failFast ago.
func (f *failures) get(k failedKey) error {
	e, ok := f.recent[k]
	if !ok {
		return nil
	}
	if f.now().Before(e.until) {
		return e.err
	}
	delete(f.recent, k)
	return nil
}

func (f *failures) remember(k failedKey, err error) {
	now := f.now()
	if len(f.recent) >= maxFailures {
		for k, e := range f.recent {
			if !now.Before(e.until) {
				delete(f.recent, k)
			}
		}
	}
	if len(f.recent) >= maxFailures {
		clear(f.recent) // only costs the store some questions more
	}
	f.recent[k] = failure{err, now.Add(failFast)}
}
