package backup

import (
	"context"
	"errors"
	"io"
	"sync"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// frameTarget is the plaintext size at which a frame of small chunks is
// closed, in bytes. Small files of one folder compress better together, and a
// reader who wants one of them most likely wants its neighbours; docs/DESIGN.md
// has the measurements.
const frameTarget = 512 << 10

// frame is a run of chunks that are compressed together.
type frame struct {
	plain  []byte // nil once done is closed
	chunks []frameChunk
	packed []byte        // the zstd frame, valid once done is closed
	size   int           // bytes of plain, likewise
	done   chan struct{} // closed by compress
}

type frameChunk struct {
	id     int64 // of the index
	hash   remote.Hash
	length int64
}

// frames carries frames to the compressors and, in order, to seal.
type frames struct {
	ordered  chan *frame
	squeezed chan *frame
}

func newFrames(cores int) *frames {
	// Enough to keep every core busy while seal waits for the slowest; a
	// frame holds at most one maximal chunk.
	return &frames{ordered: make(chan *frame, 2*cores), squeezed: make(chan *frame, 2*cores)}
}

func (f *frames) put(ctx context.Context, fr *frame) error {
	if err := send(ctx, f.ordered, fr); err != nil {
		return err
	}
	return send(ctx, f.squeezed, fr)
}

func (f *frames) close() {
	close(f.ordered)
	close(f.squeezed)
}

// compress is one compressor.
func (w *writer) compress(ctx context.Context, in *frames) error {
	c := blob.NewCompressor(w.Level)
	var packed []byte
	for {
		f, err := receive(ctx, in.squeezed)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// What comes out is a fraction of what could: not every frame on its
		// way needs memory for the worst case.
		if n := blob.Bound(len(f.plain)); cap(packed) < n {
			packed = make([]byte, 0, n)
		}
		packed = c.Compress(packed, f.plain)
		f.packed = append(w.buffers.get(len(packed)), packed...)
		f.size = len(f.plain)
		w.buffers.put(f.plain)
		f.plain = nil
		close(f.done)
	}
}

// transit is the set of chunks on their way to the store, packed but not yet
// recorded as stored. It is as large as the blobs in the making.
type transit struct {
	mu  sync.Mutex
	ids map[int64]struct{}
}

// add reports whether id was not in the set yet.
func (t *transit) add(id int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.ids[id]; ok {
		return false
	}
	if t.ids == nil {
		t.ids = map[int64]struct{}{}
	}
	t.ids[id] = struct{}{}
	return true
}

func (t *transit) remove(chunks []frameChunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range chunks {
		delete(t.ids, c.id)
	}
}
