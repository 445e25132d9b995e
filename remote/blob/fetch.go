package blob

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// How ranges become requests, in bytes.
const (
	// maxGap is the largest gap that is fetched along instead of making two
	// requests: at 50 MB/s it costs 2.5 ms, less than any round trip that is
	// worth saving.
	maxGap = 2 * seal.SealedSize
	// maxRequest is the largest single request. What is longer is split and
	// fetched over several connections at once, since one alone rarely fills
	// the line.
	maxRequest = 8 << 20
	// maxRequests bounds how many requests one call has under way.
	maxRequests = 8
)

// extent is a range of the object.
type extent struct{ start, end int64 }

// coalesce sorts extents and joins those that overlap or nearly touch.
func coalesce(extents []extent) []extent {
	slices.SortFunc(extents, func(a, b extent) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return 0
	})
	joined := extents[:0]
	for _, e := range extents {
		if n := len(joined); n > 0 && e.start <= joined[n-1].end+maxGap {
			joined[n-1].end = max(joined[n-1].end, e.end)
		} else {
			joined = append(joined, e)
		}
	}
	return joined
}

// region is a part of the object that is in memory.
type region struct {
	start int64
	bytes []byte
}

// fetch reads extents from the store, side by side.
func (r *Reader) fetch(ctx context.Context, extents []extent) ([]*region, error) {
	regions := make([]*region, len(extents))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxRequests)
	for i, e := range extents {
		regions[i] = &region{e.start, memory(int(e.end - e.start))}
		for part := range slices.Chunk(regions[i].bytes, maxRequest) {
			at := e.start
			e.start += int64(len(part))
			g.Go(func() error { return r.get(ctx, at, part) })
		}
	}
	if err := g.Wait(); err != nil {
		release(regions)
		return nil, err
	}
	return regions, nil
}

// get fills p from offset off of the object.
func (r *Reader) get(ctx context.Context, off int64, p []byte) error {
	body, err := r.store.Get(ctx, r.ref.Key, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.ReadFull(body, p)
	r.requests.Add(1)
	r.bytes.Add(int64(n))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("bytes %d+%d of the object end after %d: %w", off, len(p), n, err)
	}
	return nil
}

// sparse is the object as far as it is in memory, as the io.ReaderAt that age
// decrypts from. Regions come and go with the calls that fetched them; they
// may overlap, since calls do not wait for each other.
type sparse struct {
	mu      sync.RWMutex
	regions []*region
}

func (s *sparse) add(regions []*region) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions = append(s.regions, regions...)
}

// drop forgets regions and reuses their memory.
func (s *sparse) drop(regions []*region) {
	s.mu.Lock()
	s.regions = slices.DeleteFunc(s.regions, func(r *region) bool { return slices.Contains(regions, r) })
	s.mu.Unlock()
	release(regions)
}

// ReadAt implements io.ReaderAt. Whatever is not in memory was not asked for
// by the plan, which knows the object's shape: so the shape is wrong.
func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	most := 0
	for _, r := range s.regions {
		if off < r.start || off >= r.start+int64(len(r.bytes)) {
			continue
		}
		if most = max(most, copy(p, r.bytes[off-r.start:])); most == len(p) {
			return most, nil
		}
	}
	return most, fmt.Errorf("byte %d lies where nothing should be: %w", off+int64(most), remote.ErrCorrupt)
}

// scratch keeps the memory of ciphertext and compressed frames, which live no
// longer than one call, by size class: powers of two.
var scratch [bits.UintSize]sync.Pool

func memory(n int) []byte {
	class := bits.Len(uint(n - 1))
	if b, ok := scratch[class].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, 1<<class)
}

// free takes back what memory gave.
func free(b []byte) { scratch[bits.Len(uint(cap(b)-1))].Put(&b) }

func release(regions []*region) {
	for _, r := range regions {
		free(r.bytes)
		r.bytes = nil
	}
}
