package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that only moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is one snapshot, its tree over a store that can be made to fail, and
// the clock of its failures.
type world struct {
	*fstest.World
	counting *storetest.Counting
	faulty   *storetest.Faulty
	clock    clock
	tree     *Tree
}

func newWorld(t testing.TB, o ChunkOptions, entries ...fstest.Entry) *world {
	w := &world{World: fstest.New(t)}
	w.counting = storetest.NewCounting(w.Store)
	w.faulty = storetest.NewFaulty(w.counting)
	m := w.Snapshot("ann", "home", entries...)
	o.Now = w.clock.Now
	chunks := NewChunks(w.faulty, []age.Identity{w.Identity}, o)
	w.tree = NewTree(w.View(m), chunks)
	t.Cleanup(func() {
		if err := errors.Join(w.tree.Close(), chunks.Close()); err != nil {
			t.Error(err)
		}
	})
	w.counting.Reset()
	return w
}

// node finds an entry by its path.
func (w *world) node(t testing.TB, path ...string) view.Node {
	t.Helper()
	ino := w.tree.Root()
	var n view.Node
	for _, name := range path {
		var err error
		if n, err = w.tree.Lookup(t.Context(), ino, name); err != nil {
			t.Fatal(err)
		}
		ino = n.Ino
	}
	return n
}

func (w *world) read(ctx context.Context, n view.Node) ([]byte, error) {
	p := make([]byte, n.Size)
	got, err := w.tree.ReadAt(ctx, n, p, 0)
	return p[:got], err
}

// sparse has data, holes, two chunks in one frame, and a tail that shares a
// frame with another file.
func sparse() fstest.Entry {
	return fstest.Entry{Path: "/sparse", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o600}}, Pieces: []fstest.Piece{
		{Hole: 10_000}, {Data: fstest.Noise(1, 70_000)}, {Data: fstest.Noise(2, 1)}, {Hole: 1 << 20},
		{Data: fstest.Noise(3, 1<<20)}, {Data: bytes.Repeat([]byte("a"), 300_000)}, {Data: fstest.Noise(4, 99)}, {Hole: 5},
	}}
}

func TestEveryRangeOfAFileReadsAsItWasWritten(t *testing.T) {
	e := sparse()
	w := newWorld(t, ChunkOptions{Memory: 3 << 20}, e, fstest.Regular("/other", []byte("neighbour")))
	n, want := w.node(t, "sparse"), e.Bytes()
	rapid.Check(t, func(r *rapid.T) {
		off := rapid.Int64Range(0, n.Size+10).Draw(r, "offset")
		p := bytes.Repeat([]byte{0xAA}, rapid.IntRange(0, 200_000).Draw(r, "length"))
		got, err := w.tree.ReadAt(t.Context(), n, p, off)
		expect := bytes.NewReader(want)
		q := make([]byte, len(p))
		n, wantErr := expect.ReadAt(q, off)
		if got != n || !errors.Is(err, wantErr) || !bytes.Equal(p[:got], q[:n]) {
			r.Fatalf("%d bytes from %d on: got %d, %v; want %d, %v", len(p), off, got, err, n, wantErr)
		}
	})
}

func TestALongReadGoesThroughInWindows(t *testing.T) {
	e := fstest.Regular("/long", fstest.Noise(9, 2*readWindow+12_345))
	w := newWorld(t, ChunkOptions{Memory: 4 << 20}, e)
	got, err := w.read(t.Context(), w.node(t, "long"))
	if err != nil || !bytes.Equal(got, e.Bytes()) {
		t.Errorf("%d of %d bytes, %v", len(got), len(e.Bytes()), err)
	}
}

func TestWhatHasNoContentFailsAsWhatItIs(t *testing.T) {
	unreadable := fstest.Regular("/secret", nil).With(func(e *fstest.Entry) {
		e.State, e.Errno, e.Size = metastore.StateUnreadable, 13, 100
	})
	lost := fstest.Regular("/lost", nil).With(func(e *fstest.Entry) {
		e.Pieces = []fstest.Piece{{Data: []byte("here")}, {Data: []byte("gone"), Lost: true}, {Hole: 7}}
	})
	w := newWorld(t, ChunkOptions{}, unreadable, lost, fstest.Dir("/dir"), fstest.Symlink("/link", "secret"),
		fstest.Special("/fifo", metastore.FIFO, 0, 0), fstest.Regular("/empty", nil))
	for name, want := range map[string]error{
		"secret": ErrNotCaptured, "lost": ErrLost, "dir": ErrIsDirectory, "link": ErrNotRegular, "fifo": ErrNotRegular, "empty": io.EOF,
	} {
		p := bytes.Repeat([]byte{0xAA}, 15)
		if n, err := w.tree.ReadAt(t.Context(), w.node(t, name), p, 0); n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d bytes, %v; want %v", name, n, err, want)
		}
	}
	p := make([]byte, 4)
	if n, err := w.tree.ReadAt(t.Context(), w.node(t, "lost"), p, 0); n != 4 || err != nil || string(p) != "here" {
		t.Errorf("what is left beside a lost chunk: %q, %v", p[:n], err)
	}
}

func TestHolesAndDataAreFound(t *testing.T) {
	e := sparse()
	w := newWorld(t, ChunkOptions{}, e, fstest.Regular("/full", []byte("full")))
	n := w.node(t, "sparse")
	const a, b = 10_000, 10_000 + 70_001 // first data
	const c, d = b + 1<<20, b + 2<<20 + 300_099
	for _, c := range []struct{ off, data, hole int64 }{
		{0, a, 0}, {a - 1, a, a - 1}, {a, a, b}, {a + 1, a + 1, b}, {b - 1, b - 1, b}, {b, c, b}, {c - 1, c, c - 1}, {c, c, d},
		{d - 1, d - 1, d}, {d, -1, d}, {d + 4, -1, d + 4}, {d + 5, -1, -1}, {d + 6, -1, -1}, {-1, -1, -1},
	} {
		for name, seek := range map[string]func(context.Context, view.Node, int64) (int64, error){"data": w.tree.SeekData, "hole": w.tree.SeekHole} {
			want := map[string]int64{"data": c.data, "hole": c.hole}[name]
			got, err := seek(t.Context(), n, c.off)
			if want < 0 && !errors.Is(err, io.EOF) || want >= 0 && (got != want || err != nil) {
				t.Errorf("%s from %d: got %d, %v; want %d", name, c.off, got, err, want)
			}
		}
	}
	if end, err := w.tree.SeekHole(t.Context(), w.node(t, "full"), 0); end != 4 || err != nil {
		t.Errorf("a file without holes has one at its end: got %d, %v", end, err)
	}
}

func TestManyReadersOfOneFileFetchItOnce(t *testing.T) {
	e := fstest.Regular("/file", fstest.Noise(1, 100_000))
	w := newWorld(t, ChunkOptions{}, e)
	n := w.node(t, "file")
	var readers sync.WaitGroup
	for range 64 {
		readers.Go(func() {
			if got, err := w.read(context.Background(), n); err != nil || !bytes.Equal(got, e.Bytes()) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	readers.Wait()
	// The header, the last piece and the frame, of which some may be one.
	if calls := w.counting.Count(storetest.OpGet).Calls; calls < 1 || calls > 3 {
		t.Errorf("64 readers made %d requests", calls)
	}
}

func TestAReaderThatLeavesDoesNotDisturbOthers(t *testing.T) {
	e := fstest.Regular("/file", fstest.Noise(1, 100_000))
	w := newWorld(t, ChunkOptions{}, e)
	n := w.node(t, "file")
	gate := storetest.NewGate(t)
	w.faulty.OnCall = func(_ int, op, _ string) {
		if op == storetest.OpGet {
			gate.Pass()
		}
	}
	ctx, leave := context.WithCancelCause(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	read := func(ctx context.Context, done chan error) {
		_, err := w.read(ctx, n)
		done <- err
	}
	go read(ctx, left)
	gate.Await(t)
	go read(t.Context(), stayed)
	why := errors.New("no time")
	leave(why)
	if err := storetest.Within(t, left); !errors.Is(err, why) {
		t.Errorf("who left got %v", err)
	}
	gate.Open()
	if err := storetest.Within(t, stayed); err != nil {
		t.Errorf("who stayed got %v", err)
	}
}

func TestAStoreThatHangsFailsAtTheDeadlineAndHeals(t *testing.T) {
	e := fstest.Regular("/file", fstest.Noise(1, 100_000))
	w := newWorld(t, ChunkOptions{Timeout: 20 * time.Millisecond}, e)
	n := w.node(t, "file")
	w.faulty.Script(storetest.Fault{Op: storetest.OpGet, Every: true, Kind: storetest.Stall})
	if _, err := w.read(t.Context(), n); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a store that hangs: %v", err)
	}
	w.faulty.Script()
	before := w.counting.Count(storetest.OpGet).Calls
	if _, err := w.read(t.Context(), n); !errors.Is(err, context.DeadlineExceeded) || w.counting.Count(storetest.OpGet).Calls != before {
		t.Errorf("the repetition within a second: %v, %d requests", err, w.counting.Count(storetest.OpGet).Calls-before)
	}
	w.clock.add(failFast)
	w.tree.chunks.o.Timeout = time.Minute // so that a slow machine does not fail what follows
	if got, err := w.read(t.Context(), n); err != nil || !bytes.Equal(got, e.Bytes()) {
		t.Errorf("after a second: %d bytes, %v", len(got), err)
	}
}

var errOutage = errors.New("the store is away")

// A read that fails at once because of one frame's recent failure must leave
// the others that it wanted as they were.
func TestAFrameThatFailedDoesNotWedgeItsNeighbours(t *testing.T) {
	tree := []fstest.Entry{
		fstest.Regular("/a", fstest.Noise(1, 400_000)), fstest.Regular("/b", fstest.Noise(2, 400_000)),
		{Path: "/both", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}, Pieces: []fstest.Piece{
			{Data: fstest.Noise(1, 400_000)}, {Data: fstest.Noise(2, 400_000)},
		}},
	}
	w := newWorld(t, ChunkOptions{}, tree...)
	w.faulty.Script(storetest.Fault{Op: storetest.OpGet, Every: true, Kind: storetest.Fail, Err: errOutage})
	for _, path := range []string{"b", "both"} {
		if _, err := w.read(t.Context(), w.node(t, path)); !errors.Is(err, errOutage) {
			t.Errorf("%s while the store fails: %v", path, err)
		}
		w.faulty.Script() // the second one fails of memory
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := w.read(ctx, w.node(t, "a")); err != nil || !bytes.Equal(got, tree[0].Bytes()) {
		t.Errorf("the other file: %d bytes, %v", len(got), err)
	}
}

func TestDamageInABlobFailsOnlyWhatItHit(t *testing.T) {
	tree := []fstest.Entry{
		fstest.Regular("/a", fstest.Noise(1, 200_000)), fstest.Regular("/b", fstest.Noise(2, 200_000)), fstest.Regular("/c", fstest.Noise(3, 200_000)),
		// The chunks of one file lie in several frames of the blob.
		{Path: "/all", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}, Pieces: []fstest.Piece{
			{Data: fstest.Noise(1, 200_000)}, {Data: fstest.Noise(2, 200_000)}, {Data: fstest.Noise(3, 200_000)},
		}},
	}
	w := newWorld(t, ChunkOptions{}, tree...)
	b := w.node(t, "b")
	x, err := w.tree.view.Extents(t.Context(), b, 0, b.Size)
	if err != nil || len(x) != 1 {
		t.Fatal(x, err)
	}
	key := w.tree.frameOf(x[0]).ref.Key
	damaged := damage{w.Store, key, x[0].Blob.Header + 16 + x[0].FrameOffset + 100_000}
	chunks := NewChunks(damaged, []age.Identity{w.Identity}, ChunkOptions{Now: w.clock.Now})
	defer chunks.Close()
	v := NewTree(w.tree.view, chunks)
	for _, path := range []string{"all", "a", "b", "c"} {
		n := w.node(t, path)
		p := make([]byte, n.Size)
		_, err := v.ReadAt(t.Context(), n, p, 0)
		if bad := path == "all" || path == "b"; bad != errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// damage is a store with one inverted bit.
type damage struct {
	remote.Store
	key string
	at  int64
}

func (d damage) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := d.Store.Get(ctx, key, off, n)
	if err != nil || key != d.key {
		return r, err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if i := d.at - off; i >= 0 && i < int64(len(body)) {
		body[i] ^= 1
	}
	return io.NopCloser(bytes.NewReader(body)), err
}

func TestHashesAreCheckedOnEveryReadAlsoFromMemory(t *testing.T) {
	e := fstest.Regular("/file", fstest.Noise(1, 100_000))
	w := newWorld(t, ChunkOptions{}, e, fstest.Regular("/neighbour", fstest.Noise(2, 1000)))
	n := w.node(t, "file")
	if _, err := w.read(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for _, el := range w.tree.chunks.cache.frames {
		el.Value.(*cachedFrame).data[50_000] ^= 1 // memory fails
	}
	before := w.gets()
	if got, err := w.read(t.Context(), n); err != nil || !bytes.Equal(got, e.Bytes()) {
		t.Errorf("what memory damaged is not fetched again: %v", err)
	}
	if w.gets() == before {
		t.Error("nothing was fetched")
	}
	if got, err := w.read(t.Context(), w.node(t, "neighbour")); err != nil || len(got) != 1000 {
		t.Errorf("another chunk of that frame: %v", err)
	}
}

// A copy on this side of the store that is damaged, and passes for sound there,
// is dropped, and the store is asked once more.
func TestADamagedCopyOfABlobIsDropped(t *testing.T) {
	e := fstest.Regular("/file", fstest.Noise(1, 100_000))
	w := newWorld(t, ChunkOptions{}, e)
	copies := &copies{Store: w.Store, damaged: true}
	chunks := NewChunks(copies, []age.Identity{w.Identity}, ChunkOptions{})
	defer chunks.Close()
	tree := &Tree{view: w.tree.view, chunks: chunks, writer: "ann"}
	tree.ahead = newAhead(tree)
	defer tree.ahead.close()
	p := make([]byte, 100_000)
	if _, err := tree.ReadAt(t.Context(), w.node(t, "file"), p, 0); err != nil || !bytes.Equal(p, e.Bytes()) {
		t.Error(err)
	}
	if copies.damaged {
		t.Error("the damaged copy is still there")
	}
}

// copies is a store in front of which damaged copies of its blobs are kept.
type copies struct {
	remote.Store
	damaged bool
}

func (c *copies) Forget(string) { c.damaged = false }

func (c *copies) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := c.Store.Get(ctx, key, off, n)
	if err != nil || !c.damaged {
		return r, err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	for i := range body {
		body[i] ^= 0x55
	}
	return io.NopCloser(bytes.NewReader(body)), err
}

func TestMemoryIsBoundedInBytes(t *testing.T) {
	const limit = 1 << 20
	var tree []fstest.Entry
	for i := range 40 {
		tree = append(tree, fstest.Regular(fmt.Sprintf("/%02d", i), fstest.Noise(uint64(i), 200_000)))
	}
	w := newWorld(t, ChunkOptions{Memory: limit}, tree...)
	var readers sync.WaitGroup
	for _, e := range tree {
		n := w.node(t, e.Path[1:])
		readers.Go(func() {
			if got, err := w.read(context.Background(), n); err != nil || !bytes.Equal(got, e.Bytes()) {
				t.Errorf("%s: %v", e.Path, err)
			}
		})
	}
	readers.Wait()
	c := w.tree.chunks
	if err := c.fetches.Wait(); err != nil {
		t.Error(err)
	}
	held := int64(0)
	for _, el := range c.cache.frames {
		held += int64(len(el.Value.(*cachedFrame).data))
	}
	if c.cache.used != held || held > limit || held == 0 || len(c.flights) != 0 {
		t.Errorf("the cache counts %d bytes, holds %d, may hold %d; %d flights are left", c.cache.used, held, limit, len(c.flights))
	}
}

func TestClosedChunksSaySo(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, fstest.Regular("/file", []byte("x")))
	n := w.node(t, "file")
	if err := w.tree.chunks.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.read(t.Context(), n); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// BenchmarkReadCached shows what checking hashes on every read costs: reads of
// the size that the kernel asks for, all from memory. Chunks have 1 MiB, so a
// read of 128 KiB hashes eight times as much as it returns.
func BenchmarkReadCached(b *testing.B) {
	for _, size := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			w := newWorld(b, ChunkOptions{}, fstest.Regular("/file", fstest.Noise(1, 16<<20)))
			n := w.node(b, "file")
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if _, err := w.tree.ReadAt(b.Context(), n, p, int64(i*size)%n.Size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
