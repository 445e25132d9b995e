package view_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// hashAt is the hash of a made up chunk. Every tenth begins as the one before.
func hashAt(n int) (h [32]byte) {
	c := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = c.Read(h[:]) // never fails
	if n%10 == 1 {
		before := hashAt(n - 1)
		copy(h[:8], before[:])
	}
	return h
}

func stored(n int) view.Extent {
	x := view.Extent{Length: 10, ChunkSize: 10, Chunk: hashAt(n)}
	x.Blob = view.BlobInfo{Hash: [32]byte{byte(n % 3), 2}, Seq: 1, Size: 1 << 30, Header: 200}
	x.FrameOffset, x.FrameLength = int64(50*n), 50
	return x
}

func TestChunksAreFoundByTheirHashes(t *testing.T) {
	const many = 3000
	var long []view.Extent
	for n := range many {
		long = append(long, stored(n))
		if n%7 == 0 {
			long = append(long, view.Extent{Length: 4096, Hole: true})
		}
	}
	lost := view.Extent{Length: 10, Chunk: hashAt(many), Lost: true}
	shown := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{metatest.File("/long", long...), metatest.File("/lost", lost)}})
	var askers sync.WaitGroup
	for asker := range 4 { // at once, from the first one on
		askers.Go(func() {
			for n := asker; n < many; n += 4 {
				want := stored(n)
				x, found, err := shown.Find(t.Context(), want.Chunk)
				if !found || err != nil || x != want {
					t.Errorf("chunk %d: %+v, %t, %v", n, x, found, err)
					return
				}
			}
		})
	}
	askers.Wait()
	near := hashAt(5)
	near[31] ^= 1
	for what, h := range map[string][32]byte{"lost": lost.Chunk, "similar": near, "unknown": hashAt(many + 1), "least": {}, "greatest": ones()} {
		if x, found, err := shown.Find(t.Context(), h); found || err != nil {
			t.Errorf("%s: %+v, %t, %v", what, x, found, err)
		}
	}
	empty := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{metatest.Dir("/")}})
	if _, found, err := empty.Find(t.Context(), near); found || err != nil {
		t.Errorf("in a view without chunks: %t, %v", found, err)
	}
}

func ones() (h [32]byte) {
	for i := range h {
		h[i] = 255
	}
	return h
}

// Going through the tables shows what asking for each file does.
func TestAllChunksAndPiecesAreThoseOfTheFiles(t *testing.T) {
	var entries []metatest.Entry
	for i := range 700 {
		lost := view.Extent{Length: 10, Chunk: hashAt(9000 + i), Lost: true}
		hole := view.Extent{Length: 512, Hole: true}
		entries = append(entries, metatest.File(fmt.Sprintf("/%03d", i), stored(i), hole, stored(i/2), lost))
	}
	shown := metatest.View(t, metatest.Tree{Entries: entries})
	ctx := t.Context()
	chunks := make(map[int64]view.StoredChunk)
	last := int64(0)
	must(t, shown.Chunks(ctx, func(c *view.StoredChunk) error {
		if c.ID <= last {
			t.Errorf("chunk %d comes after %d", c.ID, last)
		}
		last = c.ID
		chunks[c.ID] = *c
		return nil
	}))
	if n := int64(len(chunks)); n != shown.Totals().Chunks {
		t.Errorf("%d chunks of %d", n, shown.Totals().Chunks)
	}
	blobs := make(map[int64]view.BlobInfo)
	must(t, shown.Blobs(ctx, func(id int64, b view.BlobInfo) error { blobs[id] = b; return nil }))
	got := make(map[int64][]view.Extent)
	must(t, shown.ContentPieces(ctx, func(p view.ContentPiece) error {
		x := view.Extent{Offset: p.Offset, Length: p.Length, Hole: p.Chunk == 0}
		if c := chunks[p.Chunk]; !x.Hole {
			x.Chunk, x.ChunkSize, x.Lost = c.Hash, c.Size, c.BlobID == 0
			if x.Blob = blobs[c.BlobID]; !x.Lost {
				x.FrameOffset, x.FrameLength, x.FrameStart = c.FrameOffset, c.FrameLength, c.FrameStart
			}
		}
		got[p.Content] = append(got[p.Content], x)
		return nil
	}))
	files := 0
	for after := uint64(0); ; {
		nodes, err := shown.After(ctx, after, 100)
		must(t, err)
		if len(nodes) == 0 {
			break
		}
		for _, n := range nodes {
			if after = n.Cookie; n.Content == 0 {
				continue
			}
			files++
			want, err := shown.Extents(ctx, n, 0, n.Size)
			must(t, err)
			if d := cmp.Diff(want, got[n.Content]); d != "" {
				t.Fatalf("%q (-extents +pieces):\n%s", n.Name, d)
			}
		}
	}
	if files != len(entries) {
		t.Errorf("%d files of %d", files, len(entries))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkFind(b *testing.B) {
	const many = 1_000_000
	f := make([]view.Extent, many)
	for n := range f {
		f[n] = stored(n)
		f[n].FrameOffset = int64(n)
	}
	v := metatest.View(b, metatest.Tree{Entries: []metatest.Entry{metatest.File("/f", f...)}})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, found, err := v.Find(b.Context(), f[0].Chunk); !found || err != nil {
		b.Fatal(found, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("%.1f bytes a chunk", float64(after.HeapAlloc-before.HeapAlloc)/many)
	b.Run("Chunks", func(b *testing.B) {
		for b.Loop() {
			if err := v.Chunks(b.Context(), func(*view.StoredChunk) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Find", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, found, err := v.Find(b.Context(), f[i*7919%many].Chunk); !found || err != nil {
				b.Fatal(found, err)
			}
		}
	})
}
