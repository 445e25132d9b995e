package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func mib(seed uint64, n int) []byte { return fstest.Noise(seed, n<<20) }

// spread is a tree over several blobs and two runs, in which files that lie far
// apart share chunks.
func spread() []fstest.Entry {
	var tree []fstest.Entry
	for i := range 40 {
		tree = append(tree, fstest.Regular(fmt.Sprintf("/d%02d/small", i), fstest.Noise(uint64(1000+i), 3000)))
	}
	return append(tree,
		fstest.Regular("/d00/big", mib(1, 9)),
		fstest.Regular("/d17/copy", mib(1, 9)),
		fstest.Regular("/d39/mixed", append(append(mib(2, 2), mib(1, 3)...), fstest.Noise(1000, 3000)...)),
		fstest.Regular("/d39/small too", fstest.Noise(1039, 3000)))
}

func TestEachBlobIsFetchedOnce(t *testing.T) {
	for _, limit := range []int{0, 3} { // in memory, and in files
		w := newWorld(t, spread()...)
		changed := append(spread(), fstest.Regular("/d05/new", append(mib(3, 1), mib(1, 1)...)))
		w.take(changed...)
		r := w.restore(func(o *Options) { o.spoolLimit = limit })
		for _, e := range changed {
			if got, err := os.ReadFile(filepath.Join(w.dir, e.Path)); err != nil || !bytes.Equal(got, e.Bytes()) {
				t.Errorf("%s: %v, the same: %t", e.Path, err, bytes.Equal(got, e.Bytes()))
			}
		}
		times := make(map[string]int)
		for _, key := range w.counting.KeysRead() {
			times[key]++
		}
		if len(times) < 4 {
			t.Errorf("only %d blobs", len(times))
		}
		for key, n := range times {
			if n != 1 {
				t.Errorf("%s is fetched %d times", key, n)
			}
		}
		if n := w.counting.Count(storetest.OpGet); r.Requests != int64(n.Calls) || r.Fetched != n.Bytes || r.Fetched != r.BlobBytes || r.Blobs != r.Requests {
			t.Errorf("told %d requests and %d bytes of %d, were %d and %d", r.Requests, r.Fetched, r.BlobBytes, n.Calls, n.Bytes)
		}
	}
}

// Of a blob of which little is needed, little is fetched.
func TestPartsOfABlobAreEnough(t *testing.T) {
	w := newWorld(t, append(spread(), root(fstest.Dir("/")))...)
	r := w.restore(func(o *Options) { o.Include = []string{"small"} })
	stored := int64(0)
	for info, err := range w.Store.List(t.Context(), remote.BlobsPrefix("ann")) {
		if err != nil {
			t.Fatal(err)
		}
		stored += info.Size
	}
	if r.Fetched > stored/4 || r.Done.Files != 40 {
		t.Errorf("%d files of %d of %d bytes", r.Done.Files, r.Fetched, stored)
	}
	if got, _ := os.ReadFile(filepath.Join(w.dir, "d21/small")); !bytes.Equal(got, fstest.Noise(1021, 3000)) {
		t.Error("other content")
	}
}

// A blob that is gone, or damaged in one place, costs the files that have
// something in it, and there is nothing half-written of them.
func TestLossesAreConfined(t *testing.T) {
	tree := spread()
	for name, c := range map[string]struct {
		fault storetest.Fault
		want  error
	}{
		"lost":   {storetest.Fault{Op: storetest.OpGet, Kind: storetest.Fail, Err: os.ErrNotExist}, fs.ErrLost},
		"broken": {storetest.Fault{Op: storetest.OpGet, Kind: storetest.Break, At: 1 << 20}, storetest.ErrInjected},
		"short":  {storetest.Fault{Op: storetest.OpGet, Kind: storetest.Truncate, At: 1 << 20}, io.ErrUnexpectedEOF},
		"flip":   {storetest.Fault{Op: storetest.OpGet, Kind: storetest.Flip, At: 2 << 20}, remote.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tree...)
			w.faulty.Script(c.fault)
			r, err := w.run(t.Context())
			if err != nil || w.faulty.Injected() != 1 {
				t.Fatalf("error %v, %d faults", err, w.faulty.Injected())
			}
			if r.Problems == 0 || r.Problems != int64(len(w.problems)) || r.Done.Files != int64(len(tree))-r.Problems {
				t.Errorf("%d problems, %d files of %d", r.Problems, r.Done.Files, len(tree))
			}
			for path, err := range w.problems {
				if !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", path, err, c.want)
				}
			}
			got := w.files()
			for _, e := range tree {
				content, there := got[e.Path[1:]]
				if lost := w.problems[e.Path] != nil; lost == there || there && content != string(e.Bytes()) {
					t.Errorf("%s: lost %t, there %t, the same %t", e.Path, lost, there, content == string(e.Bytes()))
				}
				delete(got, e.Path[1:])
			}
			for path, content := range got {
				if content != "/" {
					t.Errorf("%s is left over", path)
				}
			}
			if c.want == remote.ErrCorrupt && r.Problems > 5 {
				t.Errorf("one flipped bit costs %d files", r.Problems)
			}
			w.faulty.Script()
			if again := w.restore(); again.Done.Files != r.Problems {
				t.Errorf("the second run writes %d files, %d were missing", again.Done.Files, r.Problems)
			}
			got = w.files()
			for _, e := range tree {
				if content := got[e.Path[1:]]; content != string(e.Bytes()) {
					t.Errorf("%s is not healed", e.Path)
				}
			}
		})
	}
}

// Whoever can write to the store can encrypt to the recipient. Other bytes in a
// chunk's place are never written.
func TestAForgedChunkIsNeverWritten(t *testing.T) {
	w := newWorld(t, fstest.Regular("/forged", mib(1, 1)), text("/other", "text"))
	info, err := only(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Delete(t.Context(), info.Key); err != nil {
		t.Fatal(err)
	}
	fake, err := blob.NewWriter([]age.Recipient{w.Identity.Recipient()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{mib(2, 1), []byte("text")} {
		if err := fake.Add(blob.NewCompressor(seal.Fastest).Compress(nil, data), len(data), []blob.FrameChunk{{ID: remote.Sum(data), Length: int64(len(data))}}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := fake.Close()
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b.Object)) != info.Size {
		t.Fatalf("the forgery has %d bytes, the blob %d", len(b.Object), info.Size)
	}
	if err := w.Store.Put(t.Context(), info.Key, b.Object); err != nil {
		t.Fatal(err)
	}
	w.fails(map[string]error{"/forged": remote.ErrCorrupt})
	w.want(map[string]string{"other": "text"})
}

// only is the only blob of a world.
func only(w *world) (info remote.Info, err error) {
	n := 0
	for i, err := range w.Store.List(context.Background(), remote.BlobsPrefix("ann")) {
		if err != nil {
			return info, err
		}
		info = i
		n++
	}
	if n != 1 {
		err = fmt.Errorf("%d blobs", n)
	}
	return info, err
}

// An interrupted run leaves nothing half-written, the next one removes what a
// killed one leaves, and neither does anything twice.
func TestAnInterruptedRunGoesOn(t *testing.T) {
	w := newWorld(t, spread()...)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	calls := 0
	w.faulty.OnCall = func(_ int, op, _ string) {
		if op == storetest.OpGet {
			if calls++; calls == 3 {
				cancel(stop)
			}
		}
	}
	if _, err := w.run(ctx); !errors.Is(err, stop) {
		t.Fatalf("error %v, want %v", err, stop)
	}
	w.faulty.OnCall = nil
	for p := range w.files() {
		if strings.Contains(p, litterPrefix) {
			t.Errorf("%s is left", p)
		}
	}
	killed := filepath.Join(w.dir, "d00", litterPrefix+"0123abcd-1f")
	mine := filepath.Join(w.dir, "d00", litterPrefix+"of my own")
	for _, p := range []string{killed, mine} {
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := w.restore()
	if _, err := os.Lstat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed run left: %v", err)
	}
	if _, err := os.Lstat(mine); err != nil {
		t.Errorf("what it did not leave: %v", err)
	}
	if all := int64(len(spread())); r.Done.Files == 0 || r.Done.Files > all {
		t.Errorf("the second run wrote %d of %d files", r.Done.Files, all)
	}
	for _, e := range spread() {
		if got, _ := os.ReadFile(filepath.Join(w.dir, e.Path)); !bytes.Equal(got, e.Bytes()) {
			t.Errorf("%s is not the same", e.Path)
		}
	}
	w.counting.Reset()
	if r := w.restore(); r.Done != (Counts{}) || w.counting.Count(storetest.OpGet).Calls != 0 {
		t.Errorf("the third run: %+v", r)
	}
}

// Whatever a tree of shared chunks, holes and links is like, it comes back.
func TestAnyTreeComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var tree []fstest.Entry
		n := rapid.IntRange(1, 12).Draw(rt, "files")
		for i := range n {
			e := fstest.Regular(fmt.Sprintf("/%s/%d", rapid.SampledFrom([]string{"a", "a/b", "c"}).Draw(rt, "dir"), i), nil)
			hole := false
			for range rapid.IntRange(0, 4).Draw(rt, "pieces") {
				if hole = !hole && rapid.Bool().Draw(rt, "hole"); hole {
					e.Pieces = append(e.Pieces, fstest.Piece{Hole: 4096 * int64(rapid.IntRange(1, 100).Draw(rt, "size"))})
					continue
				}
				size := rapid.SampledFrom([]int{4096, 8192, 400 << 10, 1 << 20}).Draw(rt, "size")
				e.Pieces = append(e.Pieces, fstest.Piece{Data: fstest.Noise(uint64(rapid.IntRange(1, 8).Draw(rt, "seed")), size)})
			}
			tree = append(tree, e)
			if rapid.IntRange(0, 3).Draw(rt, "linked") == 0 {
				group := func(e *fstest.Entry) { e.Nlink, e.Inode = 2, uint64(100+i) }
				tree[len(tree)-1] = tree[len(tree)-1].With(group)
				other := tree[len(tree)-1]
				other.Path = fmt.Sprintf("/%s/link %d", rapid.SampledFrom([]string{"0", "a", "z"}).Draw(rt, "dir"), i)
				tree = append(tree, other)
			}
		}
		w := newWorld(t, tree...)
		w.restore(func(o *Options) {
			o.Verify = true
			if rapid.Bool().Draw(rt, "spilled") {
				o.spoolLimit = 2
			}
		})
		inodes := make(map[uint64]uint64)
		for _, e := range tree {
			st := w.stat(e.Path)
			got, err := os.ReadFile(filepath.Join(w.dir, e.Path))
			if err != nil || !bytes.Equal(got, e.Bytes()) {
				rt.Fatalf("%s: %v, %d bytes of %d", e.Path, err, len(got), len(e.Bytes()))
			}
			if d := cmp.Diff(dataOf(e), dataAt(t, filepath.Join(w.dir, e.Path))); d != "" {
				rt.Fatalf("%s: holes (-want +got):\n%s", e.Path, d)
			}
			if e.Nlink > 1 {
				if known := inodes[e.Inode]; known != 0 && known != st.Ino {
					rt.Fatalf("%s is another inode", e.Path)
				}
				inodes[e.Inode] = st.Ino
			}
		}
	})
}

// dataOf is where an entry has data, in ranges.
func dataOf(e fstest.Entry) (ranges [][2]int64) {
	at := int64(0)
	for _, p := range e.Pieces {
		n := max(int64(len(p.Data)), p.Hole)
		switch last := len(ranges) - 1; {
		case len(p.Data) == 0:
		case last >= 0 && ranges[last][1] == at:
			ranges[last][1] += n
		default:
			ranges = append(ranges, [2]int64{at, at + n})
		}
		at += n
	}
	return ranges
}

func dataAt(t *testing.T, path string) (ranges [][2]int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return ranges
		}
		if err != nil {
			t.Fatal(err)
		}
		if off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		ranges = append(ranges, [2]int64{start, off})
	}
}

// What was edited behind its size and time is found by reading it back.
func TestVerifyFindsWhatTimesDoNotShow(t *testing.T) {
	w := newWorld(t, text("/edited", "right"), text("/good", "good"), fstest.Regular("/sparse", nil).With(func(e *fstest.Entry) {
		e.Pieces = []fstest.Piece{{Data: []byte("data")}, {Hole: 100000}}
	}))
	w.restore(func(o *Options) { o.Verify = true })
	for name, off := range map[string]int64{"edited": 0, "sparse": 50000} {
		f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("wrong"), off)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := touch(unix.AT_FDCWD, f.Name(), &view.Node{File: metastore.File{Stat: metastore.Stat{MTime: fstest.When}}}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := w.run(t.Context(), func(o *Options) { o.Verify = true })
	if err != nil || r.Verified != 3 || r.Problems != 2 || w.problems["/edited"] == nil || w.problems["/sparse"] == nil {
		t.Errorf("%v, %+v, %v", err, r, w.problems)
	}
	w.restore(func(o *Options) { o.Verify, o.Overwrite = true, Always })
}
