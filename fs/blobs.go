package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Pieces tells where the contents of many files lie; see view.View.
func (t *Tree) Pieces(ctx context.Context, contents []int64, each func(view.Piece) error) error {
	return t.view.Pieces(ctx, contents, each)
}

// Blob returns what reading a blob takes that a Piece names.
func (t *Tree) Blob(ctx context.Context, id int64) (view.BlobInfo, error) {
	return t.view.Blob(ctx, id)
}

// Blobs, Chunks and ContentPieces go through all that a snapshot's dump says
// about content; see view.View.
func (t *Tree) Blobs(ctx context.Context, each func(id int64, b view.BlobInfo) error) error {
	return t.view.Blobs(ctx, each)
}

// Chunks is described at Blobs.
func (t *Tree) Chunks(ctx context.Context, each func(*view.StoredChunk) error) error {
	return t.view.Chunks(ctx, each)
}

// ContentPieces is described at Blobs.
func (t *Tree) ContentPieces(ctx context.Context, each func(view.ContentPiece) error) error {
	return t.view.ContentPieces(ctx, each)
}

// Download is a blob, or the parts of it that are needed, in memory: for a
// reader that knows beforehand what it needs, and has no use for Chunks and its
// cache. It is safe for concurrent use.
type Download struct {
	chunks *Chunks
	ref    blob.Ref
	plain  []byte   // the whole blob, decrypted; nil: reader decrypts from ranges
	ranges []extent // of the object
	reader *blob.Reader

	requests atomic.Int64
	bytes    atomic.Int64
}

// extent is a part of an object that is fetched with one request.
type extent struct {
	start, end int64
	bytes      []byte
}

// How blobs are fetched, in bytes.
const (
	// DownloadMax is the largest blob that is taken as a whole.
	DownloadMax = 64 << 20
	// DownloadGap is the largest gap that is fetched along to save a request.
	DownloadGap = 512 << 10
	// maxDownloads bounds how many requests a Download has under way.
	maxDownloads = 8
)

// Download fetches the frames at spans, or without any the whole blob, with one
// request for all that lies together. A piece of it that is damaged fails those
// Frames that need it. It holds what it has fetched, and of a whole blob its
// plaintext at the same time for as long as it takes to decrypt it.
func (t *Tree) Download(ctx context.Context, b view.BlobInfo, spans ...blob.Span) (*Download, error) {
	h := remote.Hash(b.Hash)
	d := &Download{chunks: t.chunks, ref: blob.Ref{Key: remote.BlobKey(t.writer, remote.Seq(b.Seq), h), Hash: h, Size: b.Size, Header: b.Header}}
	plain, err := seal.PlainSize(b.Header, b.Size)
	if err == nil && len(spans) == 0 && b.Size > DownloadMax {
		err = fmt.Errorf("it has %d bytes, and is to be fetched as a whole: %w", b.Size, remote.ErrCorrupt)
	}
	if err != nil {
		return nil, d.fail(ctx, err)
	}
	d.plan(spans, plain)
	for again := range 2 {
		if err := d.fetch(ctx); err != nil {
			d.Release()
			return nil, d.fail(ctx, err)
		}
		whole := len(d.ranges) == 1 && d.ranges[0].end-d.ranges[0].start == b.Size
		if whole {
			d.plain = decrypt(d.ranges[0].bytes, plain, t.chunks.identities)
		}
		if !whole || d.plain != nil || again > 0 || !t.chunks.forget(d.ref.Key) {
			break
		}
		// A copy on this side of the store may be all that was damaged.
	}
	if d.plain != nil {
		buffers.put(d.ranges[0].bytes)
		d.ranges = nil
		return d, nil
	}
	d.reader = blob.NewReader(inMemory{d.chunks.store, d}, d.ref, t.chunks.identities)
	return d, nil
}

// plan finds out which ranges of the object hold spans of its plaintext, and
// what opening it takes: its header, and its last piece, which vouches for its
// length.
func (d *Download) plan(spans []blob.Span, plain int64) {
	if len(spans) == 0 {
		d.ranges = []extent{{end: d.ref.Size}}
		return
	}
	data := d.ref.Header + seal.NonceSize
	piece := func(at int64) extent {
		start := data + at/seal.PieceSize*seal.SealedSize
		return extent{start: start, end: min(start+seal.SealedSize, d.ref.Size)}
	}
	all := []extent{{end: data}, piece(max(0, plain-1))}
	for _, s := range spans {
		if s.Offset < 0 || s.Length < 1 || s.Length > plain || s.Offset > plain-s.Length {
			continue // Frames will say so
		}
		all = append(all, extent{start: piece(s.Offset).start, end: piece(s.Offset + s.Length - 1).end})
	}
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	d.ranges = all[:1]
	for _, e := range all[1:] {
		if last := &d.ranges[len(d.ranges)-1]; e.start <= last.end+DownloadGap {
			last.end = max(last.end, e.end)
		} else {
			d.ranges = append(d.ranges, e)
		}
	}
}

// fetch gets all ranges, side by side.
func (d *Download) fetch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxDownloads)
	for i := range d.ranges {
		e := &d.ranges[i]
		if e.bytes == nil {
			e.bytes = buffers.get(int(e.end - e.start))
		}
		g.Go(func() error {
			body, err := d.chunks.store.Get(ctx, d.ref.Key, e.start, e.end-e.start)
			d.requests.Add(1)
			if err != nil {
				return err
			}
			n, err := io.ReadFull(body, e.bytes)
			d.bytes.Add(int64(n))
			if err != nil {
				err = fmt.Errorf("bytes %d+%d of it end after %d: %w", e.start, len(e.bytes), n, err)
			}
			return errors.Join(err, body.Close())
		})
	}
	return g.Wait()
}

// decrypt decrypts a whole blob, or returns nil if anything is wrong with it.
func decrypt(object []byte, size int64, ids []age.Identity) []byte {
	in, err := age.Decrypt(bytes.NewReader(object), ids...)
	if err != nil {
		return nil
	}
	plain := buffers.get(int(size))
	if _, err := io.ReadFull(in, plain); err != nil {
		buffers.put(plain)
		return nil
	}
	return plain
}

// Frame returns a decompressed frame. Nothing but the hash of a chunk proves
// that it is the one that was looked for, see blob.Chunk.Cut.
func (d *Download) Frame(ctx context.Context, s blob.Span) ([]byte, error) {
	if d.plain == nil {
		frames, err := d.reader.Frames(ctx, []blob.Span{s})
		if errors.Is(err, remote.ErrCorrupt) && d.chunks.forget(d.ref.Key) {
			frames, err = blob.NewReader(d.chunks.store, d.ref, d.chunks.identities).Frames(ctx, []blob.Span{s})
		}
		if err != nil {
			return nil, d.fail(ctx, err)
		}
		return frames[0], nil
	}
	size := int64(len(d.plain))
	if s.Offset < 0 || s.Length < 1 || s.Length > size || s.Offset > size-s.Length {
		return nil, d.fail(ctx, fmt.Errorf("frame at %d+%d of %d bytes: %w", s.Offset, s.Length, size, remote.ErrCorrupt))
	}
	frame, err := blob.Decompress(d.plain[s.Offset : s.Offset+s.Length])
	if err != nil {
		return nil, d.fail(ctx, fmt.Errorf("frame at %d+%d: %w", s.Offset, s.Length, err))
	}
	return frame, nil
}

// Key is the blob's key in the store.
func (d *Download) Key() string { return d.ref.Key }

// fail names the blob, and the reason why ctx ended if that is the cause.
func (d *Download) fail(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, iofs.ErrNotExist):
		err = ErrLost
	}
	return &BlobError{d.ref.Key, err}
}

// Fetched returns how many requests were made of the store and how many bytes
// they brought.
func (d *Download) Fetched() (requests, bytes int64) { return d.requests.Load(), d.bytes.Load() }

// Release gives the memory back. Frame must not be called afterwards.
func (d *Download) Release() {
	buffers.put(d.plain)
	for _, e := range d.ranges {
		buffers.put(e.bytes)
	}
	d.plain, d.ranges = nil, nil
}

// inMemory is a store that has what was downloaded.
type inMemory struct {
	remote.Store // for what was not
	d            *Download
}

func (s inMemory) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	for _, e := range s.d.ranges {
		if off >= e.start && n >= 0 && off+n <= e.end {
			return io.NopCloser(bytes.NewReader(e.bytes[off-e.start : off-e.start+n])), nil
		}
	}
	s.d.requests.Add(1)
	return s.Store.Get(ctx, key, off, n)
}

// buffers are reused: memory that the system has taken back is dear.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get(n int) []byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

func (p *bufferPool) put(b []byte) {
	if b != nil {
		p.pool.Put(&b)
	}
}
