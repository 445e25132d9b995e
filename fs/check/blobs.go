package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// How blobs are read, in bytes.
const (
	// inFlight bounds what is held of them.
	inFlight = 96 << 20
	// batch is how many bytes of frames are decompressed together, and asked for
	// together where a blob is not fetched as a whole.
	batch, batchAsked = 512 << 10, 4 << 20
	// atOnce is how many blobs are worked on: what waits for the store costs
	// nothing but memory.
	atOnce = 16
)

// named is a blob that is to be checked.
type named struct {
	key  string
	hash remote.Hash
	size int64
}

// state is what is known of a blob that was looked at.
type state struct {
	header int64    // bytes of its age header; 0 if it has none
	sound  []uint64 // fingerprints of the chunks that are where they should be, sorted
	untold bool     // its table of contents cannot be read
	err    error    // what is wrong with it; nil: nothing
}

// has reports whether a chunk is where somebody says it is.
func (s *state) has(fingerprint uint64) bool {
	_, found := slices.BinarySearch(s.sound, fingerprint)
	return found
}

// fingerprint stands for a chunk in its place. The seed is nobody's to know, so
// that a dump cannot be made to hit a fingerprint that is not its own.
func (c *checker) fingerprint(k blob.Chunk) uint64 {
	var b [len(k.ID) + 32]byte
	copy(b[:], k.ID[:])
	for i, n := range [...]int64{k.FrameOffset, k.FrameLength, k.Offset, k.Length} {
		binary.LittleEndian.PutUint64(b[len(k.ID)+8*i:], uint64(n))
	}
	return maphash.Bytes(c.seed, b[:])
}

// allBlobs checks the blobs that the manifests name.
func (c *checker) allBlobs(ctx context.Context) error {
	all := make(map[string]named)
	for _, s := range c.Snapshots {
		objects, err := c.named(ctx, s)
		if err != nil {
			if err := c.refuse(ctx, s, "", err); err != nil {
				return err
			}
			continue
		}
		for _, o := range objects {
			key := remote.BlobKey(s.Writer, o.Seq, o.SHA256)
			all[key] = named{key, o.SHA256, o.Size}
		}
	}
	var blobs []named
	for _, key := range slices.Sorted(maps.Keys(all)) {
		blobs = append(blobs, all[key])
	}
	return c.blobs(ctx, blobs)
}

// blobs checks some, side by side.
func (c *checker) blobs(ctx context.Context, blobs []named) error {
	c.tell(func(p *Progress) {
		for _, b := range blobs {
			p.AllBlobs.add(b.size)
		}
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, b := range blobs {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			s, err := c.inspect(ctx, b, nil)
			if err != nil {
				return err
			}
			c.mu.Lock()
			c.states[b.key] = s
			c.mu.Unlock()
			if s.err != nil {
				c.report(Finding{Kind: KindBlob, Key: b.key, Err: s.err})
			}
			c.tell(func(p *Progress) { p.Blobs.add(b.size) })
			return nil
		})
	}
	return g.Wait()
}

// state returns what is known of a blob, and looks at it if nothing is.
func (c *checker) state(ctx context.Context, b named) (*state, error) {
	c.mu.Lock()
	s := c.states[b.key]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if err := c.blobs(ctx, []named{b}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[b.key], nil
}

// inspect reads a blob. What is in it its table of contents says; if that cannot
// be read, the chunks that are looked for are claimed. An error is none of the
// blob's.
func (c *checker) inspect(ctx context.Context, b named, claimed []blob.Chunk) (*state, error) {
	weight := min(b.size, c.whole)
	if err := c.flight.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	defer c.flight.Release(weight)
	s, store := &state{}, c.Store
	var head []byte
	var err error
	if b.size <= c.whole {
		head, s.err = c.fetch(ctx, b)
		store = object{bytes: head}
		defer c.reuse(head)
	} else {
		head, s.err = c.read(ctx, b, min(b.size, remote.MaxHeader))
	}
	if head == nil {
		if fatal(ctx, s.err) {
			return nil, s.err
		}
		return s, nil
	}
	if _, s.header, err = seal.Unlock(head, c.Catalog.Identities()); err != nil {
		s.header, s.err = 0, firstOf(s.err, err)
		return s, nil
	}
	r := blob.NewReader(store, blob.Ref{Key: b.key, Hash: b.hash, Size: b.size, Header: s.header}, c.Catalog.Identities())
	chunks, err := r.TOC(ctx)
	if err != nil {
		s.untold, chunks = true, claimed
		s.err = firstOf(s.err, fmt.Errorf("its table of contents: %w", err))
	}
	bad, err := c.verify(ctx, r, chunks, batchOf(b.size <= c.whole), s)
	if _, fetched := r.Fetched(); b.size > c.whole {
		c.mu.Lock()
		c.result.Blobs.add(fetched)
		c.mu.Unlock()
	}
	if fatal(ctx, err) {
		return nil, err
	}
	if bad > 0 {
		s.err = fmt.Errorf("%d of %d chunks in it cannot be read: %w", bad, len(chunks), firstOf(s.err, err))
	}
	return s, nil
}

// firstOf is the reason that was found first.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// verify decompresses the frames that chunks are in and compares the chunks with
// their hashes. It returns how many are not what they should be, and the first
// reason.
func (c *checker) verify(ctx context.Context, r *blob.Reader, chunks []blob.Chunk, batch int64, s *state) (bad int, first error) {
	var mu sync.Mutex
	var sound Tally
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for some := range batches(chunks, batch) {
		g.Go(func() error {
			if err := c.workers.Acquire(ctx, 1); err != nil {
				return err
			}
			ok, size, why := c.verifySome(ctx, r, some)
			c.workers.Release(1)
			if fatal(ctx, why) {
				return why
			}
			mu.Lock()
			defer mu.Unlock()
			s.sound = append(s.sound, ok...)
			sound.Count, sound.Bytes = sound.Count+int64(len(ok)), sound.Bytes+size
			bad += len(some) - len(ok)
			first = firstOf(first, why)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return bad, err
	}
	slices.Sort(s.sound)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Chunks.Count += sound.Count
	c.result.Chunks.Bytes += sound.Bytes
	return bad, first
}

func batchOf(fetched bool) int64 {
	if fetched {
		return batch
	}
	return batchAsked
}

// batches yields the chunks of as many frames as are decompressed together.
func batches(chunks []blob.Chunk, batch int64) func(yield func([]blob.Chunk) bool) {
	return func(yield func([]blob.Chunk) bool) {
		start, size := 0, int64(0)
		for i, k := range chunks {
			if i > start && k.Span() == chunks[i-1].Span() {
				continue
			}
			if size > 0 && size+k.FrameLength > batch {
				if !yield(chunks[start:i]) {
					return
				}
				start, size = i, 0
			}
			size += k.FrameLength
		}
		if start < len(chunks) {
			yield(chunks[start:])
		}
	}
}

// verifySome returns the fingerprints of those chunks that are sound, the bytes
// in them, and the first reason why others are not.
func (c *checker) verifySome(ctx context.Context, r *blob.Reader, chunks []blob.Chunk) (sound []uint64, size int64, why error) {
	var spans []blob.Span
	for _, k := range chunks {
		if n := len(spans); n == 0 || spans[n-1] != k.Span() {
			spans = append(spans, k.Span())
		}
	}
	frames, err := r.Frames(ctx, spans)
	if err != nil && len(spans) > 1 { // one of them is to blame
		for len(chunks) > 0 {
			n := 1
			for n < len(chunks) && chunks[n].Span() == chunks[0].Span() {
				n++
			}
			ok, bytes, err := c.verifySome(ctx, r, chunks[:n])
			sound, size, why, chunks = append(sound, ok...), size+bytes, firstOf(why, err), chunks[n:]
		}
		return sound, size, why
	}
	if err != nil {
		return nil, 0, err
	}
	at := 0
	for _, k := range chunks {
		if spans[at] != k.Span() {
			at++
		}
		if _, err := k.Cut(frames[at]); err != nil {
			why = firstOf(why, fmt.Errorf("frame at %d: %w", k.FrameOffset, err))
			continue
		}
		sound, size = append(sound, c.fingerprint(k)), size+k.Length
	}
	return sound, size, why
}
