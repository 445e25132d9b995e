package fs

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// settle waits until nothing is on its way any more.
func (w *world) settle(t testing.TB) {
	t.Helper()
	w.tree.ahead.work.Wait()
	if err := w.tree.chunks.fetches.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) gets() int { return w.counting.Count(storetest.OpGet).Calls }

// folder is a folder of files of some size that does not compress.
func folderOf(files, size int) []fstest.Entry {
	var tree []fstest.Entry
	for i := range files {
		tree = append(tree, fstest.Regular(fmt.Sprintf("/dir/%05d", i), fstest.Noise(uint64(i+1), size)))
	}
	return tree
}

// walk returns the regular files in listing order.
func (w *world) walk(t testing.TB) []view.Node {
	t.Helper()
	var files []view.Node
	for slot := uint64(0); ; {
		nodes, err := w.tree.After(t.Context(), slot, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes) == 0 {
			return files
		}
		for _, n := range nodes {
			if slot = n.Cookie; n.Type == metastore.Regular {
				files = append(files, n)
			}
		}
	}
}

func (w *world) mustRead(t testing.TB, n view.Node, off, length int64) {
	t.Helper()
	p := make([]byte, length)
	if got, err := w.tree.ReadAt(t.Context(), n, p, off); int64(got) != length {
		t.Fatalf("%q at %d: %d bytes, %v", n.Name, off, got, err)
	}
}

func TestWhoeverReadsFileAfterFileFindsTheNextOnesThere(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, folderOf(200, 50_000)...)
	files := w.walk(t)
	w.mustRead(t, files[0], 0, files[0].Size)
	w.settle(t)
	if fetched := w.tree.chunks.Stats().Ahead; fetched != 0 {
		t.Errorf("one file was read, and %d bytes were fetched ahead", fetched)
	}
	waited := 0
	for _, n := range files[1:] {
		asked := w.tree.chunks.Stats().Demanded
		w.mustRead(t, n, 0, n.Size)
		if w.tree.chunks.Stats().Demanded != asked {
			waited++
		}
		w.settle(t)
	}
	if waited > 2 {
		t.Errorf("%d of 200 files had to be waited for", waited)
	}
	if n := w.gets(); n > 30 {
		t.Errorf("%d requests for 10 MB in 200 files", n)
	}
}

func TestWhoeverReadsALargeFileFindsTheNextPartsThere(t *testing.T) {
	const size, step = 24 << 20, 128 << 10
	w := newWorld(t, ChunkOptions{}, fstest.Entry{Path: "/large", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}, Pieces: pieces(size, 1<<20)})
	n := w.node(t, "large")
	waited := 0
	for off := int64(0); off < size; off += step {
		asked := w.tree.chunks.Stats().Demanded
		w.mustRead(t, n, off, step)
		if w.tree.chunks.Stats().Demanded != asked {
			waited++
		}
		w.settle(t)
	}
	if waited > 2 {
		t.Errorf("%d of %d reads had to wait", waited, size/step)
	}
}

func pieces(size, each int) []fstest.Piece {
	var all []fstest.Piece
	for i := range size / each {
		all = append(all, fstest.Piece{Data: fstest.Noise(uint64(i+1), each)})
	}
	return all
}

func TestRandomReadsFetchNextToNothingAhead(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, fstest.Entry{Path: "/large", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}, Pieces: pieces(64<<20, 1<<20)})
	n := w.node(t, "large")
	random := rand.New(rand.NewPCG(1, 2))
	at := int64(0)
	for range 100 {
		at = (at + 5<<20 + random.Int64N(50<<20)) % (n.Size - 4096)
		w.mustRead(t, n, at, 4096)
	}
	w.settle(t)
	// Now and then one of them begins behind another by chance.
	if s := w.tree.chunks.Stats(); s.Ahead > s.Demanded/8 {
		t.Errorf("%d bytes were fetched ahead of 100 random reads that took %d", s.Ahead, s.Demanded)
	}
}

func TestNoMoreIsFetchedInVainThanWasReadOnceARunEnds(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, folderOf(600, 50_000)...)
	files := w.walk(t)
	read := int64(0)
	for _, n := range files[:100] {
		w.mustRead(t, n, 0, n.Size)
		w.settle(t)
		read += n.Size
	}
	if fetched := w.tree.chunks.Stats().Ahead; fetched > 2*read+firstWindow+groupPacked {
		t.Errorf("%d bytes were fetched ahead for %d that were read", fetched, read)
	}
}

// Many entries without content lie between two files: the search for more ends
// there, and goes on with the next read.
func TestWhatHasNoContentIsNotSearchedWithoutEnd(t *testing.T) {
	tree := folderOf(3, 50_000)
	for i := range 6 * maxEmpty {
		tree = append(tree, fstest.Symlink(fmt.Sprintf("/dir/link%05d", i), "x"))
	}
	tree = append(tree, fstest.Regular("/dir/z", fstest.Noise(99, 2<<20)))
	w := newWorld(t, ChunkOptions{}, tree...)
	files := w.walk(t)
	for _, n := range files[:3] {
		w.mustRead(t, n, 0, n.Size)
		w.settle(t)
	}
	if next := w.tree.ahead.runs[0].next; next.slot >= files[3].Cookie {
		t.Errorf("three reads looked %d entries ahead", next.slot-files[2].Cookie)
	}
	w.mustRead(t, files[3], 0, files[3].Size)
}

func TestListingATreeFetchesNothing(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, folderOf(100, 50_000)...)
	w.walk(t)
	w.settle(t)
	if n := w.gets(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestWhatFailedAheadIsAskedForAgainByItsReader(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, folderOf(100, 50_000)...)
	files := w.walk(t)
	w.mustRead(t, files[0], 0, files[0].Size)
	w.settle(t)
	w.faulty.Script(storetest.Fault{Op: storetest.OpGet, Kind: storetest.Fail})
	w.tree.ahead.saw(&files[1], 0, files[1].Size)
	w.settle(t)
	if w.faulty.Injected() != 1 {
		t.Error("nothing failed")
	}
	for _, n := range files {
		w.mustRead(t, n, 0, n.Size)
	}
}

func TestATreeIsClosedWhileItReadsAhead(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, folderOf(100, 50_000)...)
	for _, n := range w.walk(t)[:3] {
		if _, err := w.read(t.Context(), n); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	// The cleanup fails if the view is closed under a query, goleak if it goes on.
}
