package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestAWrongRefIsCorruptNotAStory(t *testing.T) {
	p := load(t, "x25519")
	b := build(t, p, seal.Default, far(3, 200_000)...)
	for _, c := range []struct {
		name  string
		wrong func(*blob.Ref)
	}{
		{"header longer", func(r *blob.Ref) { r.Header++ }},
		{"header shorter", func(r *blob.Ref) { r.Header-- }},
		{"header much longer", func(r *blob.Ref) { r.Header += 5000 }},
		{"header above the limit", func(r *blob.Ref) { r.Header = seal.MaxHeader + 1 }},
		{"no header", func(r *blob.Ref) { r.Header = 0 }},
		{"size larger", func(r *blob.Ref) { r.Size++ }},
		{"size smaller", func(r *blob.Ref) { r.Size-- }},
		{"size a piece smaller", func(r *blob.Ref) { r.Size -= seal.SealedSize }},
		{"size nothing", func(r *blob.Ref) { r.Size = 0 }},
		{"size negative", func(r *blob.Ref) { r.Size = -1 }},
		{"size above the limit", func(r *blob.Ref) { r.Size += (1 << 30 / seal.SealedSize) * seal.SealedSize }},
	} {
		s, ref := put(t, b)
		c.wrong(&ref)
		r := blob.NewReader(s, ref, p.identities)
		if _, err := r.Frames(t.Context(), spans(b.Chunks[1:2])); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: Frames says %v", c.name, err)
		}
		if _, err := r.TOC(t.Context()); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: TOC says %v", c.name, err)
		}
	}
}

func TestAnErrorGivesTheReasonAndLeavesTheNameToTheCaller(t *testing.T) {
	p := load(t, "x25519")
	s, ref := put(t, build(t, p, seal.Default, far(1, 1000)...))
	ref.Header += 3
	_, err := blob.NewReader(s, ref, p.identities).TOC(t.Context())
	want := fmt.Sprintf("the age header has %d bytes, not %d: corrupt object", ref.Header-3, ref.Header)
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestAWrongSpanIsCorrupt(t *testing.T) {
	p := load(t, "x25519")
	b := build(t, p, seal.Default, far(3, 200_000)...)
	s, ref := put(t, b)
	r := blob.NewReader(s, ref, p.identities)
	good := b.Chunks[1].Span()
	for _, span := range []blob.Span{
		{good.Offset, good.Length - 1}, {good.Offset, good.Length + 1}, {good.Offset - 1, good.Length}, {good.Offset + 1, good.Length},
		{good.Offset, 0}, {good.Offset, -1}, {-1, good.Length}, {0, 24}, {1 << 40, 10}, {1<<63 - 1, 10}, {0, 1<<63 - 1},
		{good.Offset, 1 << 25}, {ref.Size - 1000, 900},
	} {
		frames, err := r.Frames(t.Context(), []blob.Span{good, span})
		if !errors.Is(err, remote.ErrCorrupt) || frames != nil {
			t.Errorf("%v: %d frames, %v", span, len(frames), err)
		}
	}
	if frames, err := r.Frames(t.Context(), nil); err != nil || len(frames) != 0 {
		t.Errorf("no spans: %d frames, %v", len(frames), err)
	}
}

func TestErrorsOfTheStoreComeThrough(t *testing.T) {
	p := load(t, "x25519")
	b := build(t, p, seal.Default, far(3, 200_000)...)
	s, ref := put(t, b)
	ref.Key = "ann/blobs/0000000001/gone"
	r := blob.NewReader(s, ref, p.identities)
	if _, err := r.Frames(t.Context(), spans(b.Chunks)); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("missing object: %v", err)
	}
	s, ref = put(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := blob.NewReader(s, ref, p.identities).Frames(ctx, spans(b.Chunks)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	cut := &short{Store: s}
	if _, err := blob.NewReader(cut, ref, p.identities).Frames(t.Context(), spans(b.Chunks)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("connection cut: %v", err)
	}
	stranger := load(t, "hybrid")
	if _, err := blob.NewReader(s, ref, stranger.identities).Frames(t.Context(), spans(b.Chunks)); !errors.Is(err, seal.ErrNoIdentity) {
		t.Errorf("stranger: %v", err)
	}
}

// short loses the last byte of every body.
type short struct{ remote.Store }

func (s *short) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return s.Store.Get(ctx, key, off, n-1)
}

// stuck blocks the Gets of contexts that carry it until they are cancelled.
type stuck struct{ remote.Store }

type stuckKey struct{}

func (s *stuck) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if reached, ok := ctx.Value(stuckKey{}).(chan struct{}); ok {
		reached <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Get(ctx, key, off, n)
}

func TestACancelledReadDisturbsNobody(t *testing.T) {
	p := load(t, "x25519")
	b := build(t, p, seal.Default, far(8, 200_000)...)
	s, ref := put(t, b)
	r := blob.NewReader(&stuck{s}, ref, p.identities)
	reached := make(chan struct{}, 8)
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), stuckKey{}, reached))
	var g errgroup.Group
	g.Go(func() error {
		_, err := r.Frames(ctx, spans(b.Chunks[4:5]))
		return err
	})
	storetest.Within(t, reached) // the first caller hangs in the store
	if _, err := r.Frames(t.Context(), spans(b.Chunks[4:6])); err != nil {
		t.Errorf("another caller meanwhile: %v", err)
	}
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled caller: %v", err)
	}
	if _, err := r.Frames(t.Context(), spans(b.Chunks)); err != nil {
		t.Errorf("another caller afterwards: %v", err)
	}
}

func TestManyReadAtOnce(t *testing.T) {
	p := load(t, "hybrid")
	b := build(t, p, seal.Fastest, far(40, 100_000)...)
	s, ref := put(t, b)
	r := blob.NewReader(s, ref, p.identities)
	var g errgroup.Group
	for n := range uint64(16) {
		g.Go(func() error {
			rng := rand.New(rand.NewPCG(n, 3))
			for range 20 {
				i := rng.IntN(len(b.Chunks))
				wanted := b.Chunks[i:min(len(b.Chunks), i+1+rng.IntN(4))]
				frames, err := r.Frames(t.Context(), spans(wanted))
				if err != nil {
					return err
				}
				for i, c := range wanted {
					if _, err := c.Cut(frames[i]); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAChunkIsCheckedOnEveryCut(t *testing.T) {
	plain := []byte("hello, world")
	c := blob.Chunk{ID: remote.Sum([]byte("world")), Offset: 7, Length: 5}
	if got, err := c.Cut(plain); err != nil || string(got) != "world" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []blob.Chunk{
		{ID: c.ID, Offset: 6, Length: 5}, {ID: c.ID, Offset: 7, Length: 6}, {ID: c.ID, Offset: -1, Length: 5},
		{ID: c.ID, Offset: 7, Length: 0}, {ID: c.ID, Offset: 1 << 62, Length: 5}, {ID: c.ID, Offset: 7, Length: 1<<63 - 1},
		{ID: remote.Sum(nil), Offset: 7, Length: -5},
	} {
		if _, err := bad.Cut(plain); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%d+%d: %v", bad.Offset, bad.Length, err)
		}
	}
	if err := blob.CheckChunk(c.ID, []byte("World")); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("another plaintext: %v", err)
	}
}
