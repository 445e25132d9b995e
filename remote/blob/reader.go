package blob

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Ref is what a snapshot's metadata knows about a blob. Reading parts of it
// cannot check Hash, which is there for whoever caches or fetches whole blobs.
type Ref struct {
	Key    string
	Hash   remote.Hash
	Size   int64 // of the object, in bytes
	Header int64 // of the age header without the nonce, in bytes
}

// Span is a frame's place in the decrypted blob, in bytes.
type Span struct{ Offset, Length int64 }

// Reader reads parts of one blob. It is safe for concurrent use; calls share
// nothing but the file key, so a cancelled one never disturbs another.
//
// Opening costs no request of its own: the first call fetches the header, the
// last piece, whose tag vouches for the object's size, and its own pieces all
// at once. From then on the file key is known, and a call fetches only what it
// is asked for. An open Reader holds about 70 KiB, mostly the piece decrypted
// last, and needs no closing.
type Reader struct {
	store      remote.Store
	ref        Ref
	identities []age.Identity

	plain    int64 // size of the decrypted blob, from ref
	refErr   error // ref cannot be right
	fetched  sparse
	open     atomic.Pointer[opened]
	requests atomic.Int64
	bytes    atomic.Int64
}

// opened is the decrypted blob, as far as Reader.fetched has the pieces.
type opened struct{ io.ReaderAt }

// NewReader returns a Reader of the blob at ref.Key. It fetches nothing; a ref
// that no blob can have is remote.ErrCorrupt at the first call.
func NewReader(s remote.Store, ref Ref, identities []age.Identity) *Reader {
	r := &Reader{store: s, ref: ref, identities: identities}
	r.plain, r.refErr = seal.PlainSize(ref.Header, ref.Size)
	switch {
	case r.refErr != nil:
	case ref.Size > MaxSize:
		r.refErr = fmt.Errorf("it has %d bytes, the limit is %d: %w", ref.Size, MaxSize, remote.ErrCorrupt)
	case r.plain < int64(len(headerFrame)):
		r.refErr = fmt.Errorf("it holds only %d bytes: %w", r.plain, remote.ErrCorrupt)
	}
	return r
}

// Fetched returns how many requests this Reader has made and how many bytes
// they brought.
func (r *Reader) Fetched() (requests, bytes int64) { return r.requests.Load(), r.bytes.Load() }

// Frames fetches, decrypts and decompresses the frames at spans, in the order
// of spans, which may be any. Spans close to each other become one request,
// and all requests run side by side, so the call takes one round trip if the
// line is fast. The caller owns the frames and checks every chunk in them.
//
// It is all or nothing. Errors do not name the blob, which the caller knows;
// those of the store come through as they are;
// seal.ErrNoIdentity means that the identities do not fit; remote.ErrCorrupt
// that the blob, or what is known about it, is damaged.
func (r *Reader) Frames(ctx context.Context, spans []Span) ([][]byte, error) {
	for _, s := range spans {
		if s.Length > maxFrame {
			return nil, fmt.Errorf("a frame of %d bytes, the limit is %d: %w", s.Length, maxFrame, remote.ErrCorrupt)
		}
	}
	frames := make([][]byte, len(spans))
	err := r.read(ctx, spans, func(i int, packed []byte) error {
		frame, err := Decompress(packed)
		if err != nil {
			return fmt.Errorf("frame at %d+%d: %w", spans[i].Offset, spans[i].Length, err)
		}
		frames[i] = frame
		return nil
	})
	if err != nil {
		return nil, err
	}
	return frames, nil
}

// TOC returns what the blob holds, in order, from its own table of contents,
// after a look at its header. It takes two round trips at most. This is how a
// key holder without any metadata finds the chunks; the table itself is only
// as good as whoever encrypted it, so check the blob's hash or signature too.
func (r *Reader) TOC(ctx context.Context) ([]Chunk, error) {
	const guess = seal.PieceSize // the last full piece holds 1,800 chunks
	tail := Span{max(0, r.plain-guess), min(r.plain, guess)}
	head := Span{0, int64(len(headerFrame))}
	if r.refErr == nil && r.plain < int64(len(headerFrame)+trailerSize) {
		return nil, fmt.Errorf("it holds only %d bytes: %w", r.plain, remote.ErrCorrupt)
	}
	var toc []byte
	var length int64
	err := r.read(ctx, []Span{head, tail}, func(i int, plain []byte) (err error) {
		if i == 0 {
			return checkHeader(plain)
		}
		length, err = tocLength(plain[len(plain)-trailerSize:], r.plain)
		toc = append(toc, plain[max(0, int64(len(plain))-length):]...)
		return err
	})
	if err != nil {
		return nil, err
	}
	if missing := length - int64(len(toc)); missing > 0 {
		err := r.read(ctx, []Span{{r.plain - length, missing}}, func(_ int, plain []byte) error {
			toc = append(append(make([]byte, 0, length), plain...), toc...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return decodeTOC(toc, r.plain-length)
}

// read fetches the pieces around spans and calls use with the plaintext of
// every span, side by side. use must not keep the slice.
func (r *Reader) read(ctx context.Context, spans []Span, use func(i int, plain []byte) error) error {
	extents, err := r.plan(spans)
	if err != nil || len(spans) == 0 {
		return err
	}
	regions, err := r.fetch(ctx, extents)
	if err != nil {
		return err
	}
	r.fetched.add(regions)
	defer r.fetched.drop(regions)
	object := r.open.Load()
	if object == nil {
		if object, err = r.unlock(regions[0]); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range spans {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			plain := memory(int(s.Length))
			defer free(plain)
			if n, err := object.ReadAt(plain, s.Offset); n < len(plain) {
				return fmt.Errorf("decrypt %d+%d: %w: %w", s.Offset, s.Length, err, remote.ErrCorrupt)
			}
			return use(i, plain)
		})
	}
	return g.Wait()
}

// plan returns the parts of the object that spans need, and what opening it
// needs unless that is done.
func (r *Reader) plan(spans []Span) ([]extent, error) {
	if r.refErr != nil {
		return nil, r.refErr
	}
	payload := r.ref.Header + seal.NonceSize
	extents := make([]extent, 0, len(spans)+2)
	add := func(offset, length int64) {
		first, last := offset/seal.PieceSize, (offset+length-1)/seal.PieceSize
		extents = append(extents, extent{
			payload + first*seal.SealedSize,
			min(payload+(last+1)*seal.SealedSize, r.ref.Size),
		})
	}
	if r.open.Load() == nil {
		extents = append(extents, extent{0, payload})
		add(r.plain-1, 1)
	}
	for _, s := range spans {
		if s.Offset < 0 || s.Length < 1 || s.Length > r.plain || s.Offset > r.plain-s.Length {
			return nil, fmt.Errorf("bytes %d+%d of %d: %w", s.Offset, s.Length, r.plain, remote.ErrCorrupt)
		}
		add(s.Offset, s.Length)
	}
	return coalesce(extents), nil
}

// unlock finds the file key, in the region that begins with the header, and
// checks the last piece. Two first calls may both do it; that costs a fraction
// of a millisecond and spares them waiting for each other's requests.
func (r *Reader) unlock(head *region) (*opened, error) {
	key, header, err := seal.Unlock(head.bytes, r.identities)
	if err != nil {
		return nil, err
	}
	if header != r.ref.Header {
		return nil, fmt.Errorf("the age header has %d bytes, not %d: %w", header, r.ref.Header, remote.ErrCorrupt)
	}
	plain, size, err := age.DecryptReaderAt(&r.fetched, r.ref.Size, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, remote.ErrCorrupt)
	}
	if size != r.plain {
		return nil, fmt.Errorf("it holds %d bytes, not %d: %w", size, r.plain, remote.ErrCorrupt)
	}
	object := &opened{plain}
	if !r.open.CompareAndSwap(nil, object) {
		object = r.open.Load()
	}
	return object, nil
}
