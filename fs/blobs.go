package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"sync"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Pieces tells where the contents of many files lie; see metastore.View.
func (t *Tree) Pieces(ctx context.Context, contents []int64, each func(metastore.Piece) error) error {
	return t.view.Pieces(ctx, contents, each)
}

// Blob returns what reading a blob takes that a Piece names.
func (t *Tree) Blob(ctx context.Context, id int64) (metastore.BlobInfo, error) {
	return t.view.Blob(ctx, id)
}

// Download is one blob for a reader that knows beforehand all that it needs of
// it, and who has no use for Chunks and its cache. It is safe for concurrent
// use.
type Download struct {
	key    string
	chunks *Chunks
	plain  []byte       // the whole blob, decrypted; nil: reader has it
	object []byte       // the whole blob, damaged: what reader reads from
	reader *blob.Reader // of parts

	whole    bool  // it was fetched as such
	requests int64 // for that
	bytes    int64 // that they brought
}

// DownloadMax is the largest blob in bytes that Download takes as a whole.
const DownloadMax = 64 << 20

// Download fetches a whole blob with one request and decrypts it. A piece of it
// that is damaged fails those Frames that need it. Its plaintext is held until
// Release, and while it is decrypted as much again.
func (t *Tree) Download(ctx context.Context, b metastore.BlobInfo) (*Download, error) {
	d := t.Parts(b)
	if b.Size > DownloadMax {
		return d, nil
	}
	d.whole = true
	d.object = buffers.get(int(b.Size))
	if err := d.fetch(ctx, t.chunks.store); err != nil {
		d.Release()
		return d, d.fail(ctx, err)
	}
	d.plain = decrypt(d.object, b, t.chunks.identities)
	if d.plain == nil && t.chunks.forget(d.key) { // only a copy was damaged, perhaps
		if err := d.fetch(ctx, t.chunks.store); err != nil {
			d.Release()
			return d, d.fail(ctx, err)
		}
		d.plain = decrypt(d.object, b, t.chunks.identities)
	}
	if d.plain != nil {
		buffers.put(d.object)
		d.object = nil
		return d, nil
	}
	// It goes by pieces from here, so that who needs none of the damage has none.
	d.reader = blob.NewReader(inMemory{object: d.object}, t.ref(b), t.chunks.identities)
	return d, nil
}

// decrypt decrypts a whole blob, or returns nil if anything is wrong with it.
func decrypt(object []byte, b metastore.BlobInfo, ids []age.Identity) []byte {
	size, err := seal.PlainSize(b.Header, b.Size)
	if err != nil {
		return nil
	}
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

// Parts prepares to read parts of a blob. It fetches nothing: each call of
// Frames fetches what it needs, neighbours in one request.
func (t *Tree) Parts(b metastore.BlobInfo) *Download {
	r := t.ref(b)
	return &Download{key: r.Key, chunks: t.chunks, reader: blob.NewReader(t.chunks.store, r, t.chunks.identities)}
}

func (t *Tree) ref(b metastore.BlobInfo) blob.Ref {
	h := remote.Hash(b.Hash)
	return blob.Ref{Key: remote.BlobKey(t.writer, remote.Seq(b.Seq), h), Hash: h, Size: b.Size, Header: b.Header}
}

func (d *Download) fetch(ctx context.Context, s remote.Store) error {
	d.requests++
	body, err := s.Get(ctx, d.key, 0, int64(len(d.object)))
	if err != nil {
		return err
	}
	n, err := io.ReadFull(body, d.object)
	d.bytes += int64(n)
	if err != nil {
		err = fmt.Errorf("it ends after %d bytes of %d: %w", n, len(d.object), err)
	}
	return errors.Join(err, body.Close())
}

// Frames returns decompressed frames, in the order of spans. Nothing but the
// hash of a chunk proves that it is the one that was looked for, see
// blob.Chunk.Cut. If a part of the blob is damaged, all of the call fails with
// remote.ErrCorrupt.
func (d *Download) Frames(ctx context.Context, spans ...blob.Span) ([][]byte, error) {
	if d.plain == nil {
		frames, err := d.reader.Frames(ctx, spans)
		if errors.Is(err, remote.ErrCorrupt) && !d.whole && d.chunks.forget(d.key) {
			frames, err = d.reader.Frames(ctx, spans)
		}
		if err != nil {
			return nil, d.fail(ctx, err)
		}
		return frames, nil
	}
	frames := make([][]byte, len(spans))
	for i, s := range spans {
		size := int64(len(d.plain))
		if s.Offset < 0 || s.Length < 1 || s.Length > size || s.Offset > size-s.Length {
			return nil, d.fail(ctx, fmt.Errorf("frame at %d+%d of %d bytes: %w", s.Offset, s.Length, size, remote.ErrCorrupt))
		}
		var err error
		if frames[i], err = blob.Decompress(d.plain[s.Offset : s.Offset+s.Length]); err != nil {
			return nil, d.fail(ctx, fmt.Errorf("frame at %d+%d: %w", s.Offset, s.Length, err))
		}
	}
	return frames, nil
}

// Key is the blob's key in the store.
func (d *Download) Key() string { return d.key }

// fail names the blob, and the reason why ctx ended if that is the cause.
func (d *Download) fail(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, iofs.ErrNotExist):
		err = ErrLost
	}
	return &BlobError{d.key, err}
}

// Fetched returns how many requests were made of the store and how many bytes
// they brought.
func (d *Download) Fetched() (requests, bytes int64) {
	if d.whole {
		return d.requests, d.bytes
	}
	return d.reader.Fetched()
}

// Release gives the memory back. Frames must not be called afterwards.
func (d *Download) Release() {
	buffers.put(d.plain)
	buffers.put(d.object)
	d.plain, d.object = nil, nil
}

// inMemory is a store of one object.
type inMemory struct {
	remote.Store // none: nothing else is asked of it
	object       []byte
}

func (s inMemory) Get(_ context.Context, _ string, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(s.object), off, n)), nil
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
