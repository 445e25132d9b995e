package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "ann/blobs/0000000001/x"

// person is a key pair.
type person struct {
	recipients []age.Recipient
	identities []age.Identity
}

// load reads a key pair from testdata: "x25519" or "hybrid".
func load(t testing.TB, kind string) person {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", kind+".identity"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := seal.ParseIdentities(bytes.NewReader(text), kind)
	if err != nil {
		t.Fatal(err)
	}
	switch id := ids[0].(type) {
	case *age.X25519Identity:
		return person{[]age.Recipient{id.Recipient()}, ids}
	case *age.HybridIdentity:
		return person{[]age.Recipient{id.Recipient()}, ids}
	default:
		t.Fatalf("%s holds a %T", kind, id)
		return person{}
	}
}

// frame is the plaintext of a frame: its chunks.
type frame [][]byte

func (f frame) plain() []byte { return slices.Concat(f...) }

func (f frame) chunks() []blob.FrameChunk {
	var chunks []blob.FrameChunk
	for _, c := range f {
		chunks = append(chunks, blob.FrameChunk{ID: remote.Sum(c), Length: int64(len(c))})
	}
	return chunks
}

// build makes a blob of frames.
func build(t rapid.TB, p person, level seal.Level, frames ...frame) *blob.Blob {
	t.Helper()
	w, err := blob.NewWriter(p.recipients, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		plain := f.plain()
		if err := w.Add(compress(nil, plain, level), len(plain), f.chunks()); err != nil {
			t.Fatal(err)
		}
	}
	size := w.Size()
	b, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if size != int64(len(b.Object)) {
		t.Fatalf("Size announced %d bytes, the object has %d", size, len(b.Object))
	}
	if b.Hash != remote.Sum(b.Object) {
		t.Fatalf("the hash is %s, not that of the object", b.Hash)
	}
	return b
}

// put stores an object and returns a Ref to it.
func put(t rapid.TB, b *blob.Blob) (*mem.Store, blob.Ref) {
	t.Helper()
	s := mem.New(nil)
	if err := s.Put(context.Background(), key, b.Object); err != nil {
		t.Fatal(err)
	}
	return s, blob.Ref{Key: key, Hash: b.Hash, Size: int64(len(b.Object)), Header: b.Header}
}

func spans(chunks []blob.Chunk) []blob.Span {
	var spans []blob.Span
	for _, c := range chunks {
		spans = append(spans, c.Span())
	}
	return spans
}

// content is n bytes of words or random bytes, the same for the same seed.
func content(seed uint64, n int, text bool) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, 0, n+20)
	for len(b) < n {
		if text {
			b = fmt.Appendf(b, "%s of %d\n", []string{"snapshot", "writer", "chunk", "frame"}[rng.IntN(4)], rng.IntN(500))
		} else {
			b = append(b, byte(rng.Uint32()))
		}
	}
	return b[:n]
}

// far is a blob of n random chunks of size bytes, each a frame.
func far(n, size int) []frame {
	var frames []frame
	for i := range n {
		frames = append(frames, frame{content(uint64(i), size, false)})
	}
	return frames
}

func TestWhatIsPackedComesBack(t *testing.T) {
	people := []person{load(t, "x25519"), load(t, "hybrid")}
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		var frames []frame
		var plain [][]byte
		for i, sizes := range rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(1, 90_000), 1, 5), 1, 6).Draw(t, "frames") {
			var f frame
			for j, n := range sizes {
				f = append(f, content(uint64(i*10+j), n, rapid.Bool().Draw(t, "text")))
			}
			frames, plain = append(frames, f), append(plain, f...)
		}
		p := people[rapid.IntRange(0, 1).Draw(t, "key")]
		b := build(t, p, seal.Level(rapid.IntRange(1, 4).Draw(t, "level")), frames...)
		s, ref := put(t, b)

		r := blob.NewReader(s, ref, p.identities)
		if rapid.Bool().Draw(t, "TOC first") {
			toc, err := r.TOC(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(b.Chunks, toc); d != "" {
				t.Fatalf("Close and TOC disagree: %s", d)
			}
		}
		for range 3 {
			wanted := rapid.SliceOfN(rapid.IntRange(0, len(plain)-1), 0, 8).Draw(t, "wanted")
			var chunks []blob.Chunk
			for _, i := range wanted {
				chunks = append(chunks, b.Chunks[i])
			}
			got, err := r.Frames(ctx, spans(chunks))
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range chunks {
				chunk, err := c.Cut(got[i])
				if err != nil || !bytes.Equal(chunk, plain[wanted[i]]) {
					t.Fatalf("chunk %d comes back as %d bytes, %v", wanted[i], len(chunk), err)
				}
			}
		}
	})
}

// together is a store that answers no Get before n of them are under way, so
// a reader that waits for one before it asks for the next hangs.
type together struct {
	remote.Store
	wait sync.WaitGroup
}

func (s *together) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	s.wait.Done()
	s.wait.Wait()
	return s.Store.Get(ctx, key, off, n)
}

func TestAColdReadIsOneRoundTrip(t *testing.T) {
	p := load(t, "hybrid")
	b := build(t, p, seal.Default, far(20, 1<<20)...)
	s, ref := put(t, b)
	for _, c := range []struct {
		name     string
		wanted   []blob.Chunk
		requests int
	}{
		{"middle: header, end and data", b.Chunks[10:11], 3},
		{"first frame: header with data, and end", b.Chunks[:1], 2},
		{"last frame: header, and data with end", b.Chunks[19:], 2},
		{"two far apart", []blob.Chunk{b.Chunks[5], b.Chunks[15]}, 4},
		{"neighbours, backwards", []blob.Chunk{b.Chunks[11], b.Chunks[10]}, 3},
		{"the same one twice", []blob.Chunk{b.Chunks[10], b.Chunks[10]}, 3},
		{"all of it, in requests of 8 MiB", b.Chunks, 3},
	} {
		gate := &together{Store: s}
		gate.wait.Add(c.requests)
		r := blob.NewReader(gate, ref, p.identities)
		frames, err := r.Frames(t.Context(), spans(c.wanted))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for i, w := range c.wanted {
			if _, err := w.Cut(frames[i]); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if requests, _ := r.Fetched(); int(requests) != c.requests {
			t.Errorf("%s: %d requests, want %d", c.name, requests, c.requests)
		}
	}
}

func TestAnOpenReaderFetchesOnlyThePiecesAroundAFrame(t *testing.T) {
	p := load(t, "hybrid")
	b := build(t, p, seal.Default, far(20, 1<<20)...)
	s, ref := put(t, b)
	r := blob.NewReader(s, ref, p.identities)
	if _, err := r.Frames(t.Context(), spans(b.Chunks[3:4])); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{10, 19, 0} {
		requests, before := r.Fetched()
		if _, err := r.Frames(t.Context(), spans(b.Chunks[i:i+1])); err != nil {
			t.Fatal(err)
		}
		again, after := r.Fetched()
		if again-requests != 1 || after-before > b.Chunks[i].FrameLength+2*seal.SealedSize {
			t.Errorf("frame %d of %d bytes: %d requests, %d bytes", i, b.Chunks[i].FrameLength, again-requests, after-before)
		}
	}
}

func TestASmallGapIsFetchedAlongAndALargeOneIsNot(t *testing.T) {
	p := load(t, "x25519")
	b := build(t, p, seal.Default, far(30, 60_000)...)
	s, ref := put(t, b)
	r := blob.NewReader(s, ref, p.identities)
	for _, c := range []struct {
		wanted   []int
		requests int64
	}{{[]int{10}, 3}, {[]int{14, 10}, 1}, {[]int{14, 2, 4, 12}, 2}, {[]int{2, 14, 26}, 3}} {
		before, _ := r.Fetched()
		var chunks []blob.Chunk
		for _, i := range c.wanted {
			chunks = append(chunks, b.Chunks[i])
		}
		if _, err := r.Frames(t.Context(), spans(chunks)); err != nil {
			t.Fatal(err)
		}
		if after, _ := r.Fetched(); after-before != c.requests {
			t.Errorf("frames %v: %d requests, want %d", c.wanted, after-before, c.requests)
		}
	}
}

func TestTheTOCOfABlobOfManySmallChunksIsFoundInTwoSteps(t *testing.T) {
	p := load(t, "x25519")
	var frames []frame
	for i := range 50 {
		var f frame
		for j := range 100 {
			f = append(f, fmt.Appendf(nil, "file %d of folder %d", j, i))
		}
		frames = append(frames, f)
	}
	b := build(t, p, seal.Default, frames...)
	s, ref := put(t, b)
	r := blob.NewReader(s, ref, p.identities)
	toc, err := r.TOC(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.Chunks, toc); d != "" {
		t.Error(d)
	}
}
