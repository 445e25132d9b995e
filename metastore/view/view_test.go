package view_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

var asData = cmp.Options{cmpopts.IgnoreUnexported(view.Node{}), cmpopts.EquateEmpty()}

func TestAViewShowsTheWholeMetadata(t *testing.T) {
	full := metastore.File{
		Stat: metastore.Stat{
			Type: metastore.CharDev, Mode: 0o7777, UID: math.MaxUint32, GID: 7, Size: 3,
			MTime: metastore.Time{Sec: -1, Nsec: 999_999_999}, CTime: metastore.Time{Sec: math.MaxInt64, Nsec: 1},
			BTime: metastore.Time{Sec: math.MinInt64}, Inode: math.MaxUint64, Nlink: math.MaxUint32,
			RdevMajor: math.MaxUint32, RdevMinor: 9,
		},
		Role: metastore.RoleInside, State: metastore.StateChanged, Errno: 5, User: "ann\xff", Group: "'", Volume: 1, Flags: math.MaxUint32,
	}
	tree := metatest.Tree{Entries: []metatest.Entry{{Path: "/dev\xff'\n", File: full}}}
	tree.Entries[0].Xattrs = []metastore.Xattr{{Name: "security.b", Value: []byte{}}, {Name: "user.a\xff", Value: bytes.Repeat([]byte{0}, 65536)}}
	v := metatest.View(t, tree)
	n, err := v.Lookup(t.Context(), 1, "dev\xff'\n")
	if err != nil {
		t.Fatal(err)
	}
	want := view.Node{Ino: 2, Parent: 1, Name: "dev\xff'\n", Cookie: 2, File: full, HasXattrs: true}
	if diff := cmp.Diff(want, n, asData); diff != "" {
		t.Error(diff)
	}
	xattrs, err := v.Xattrs(t.Context(), n.Ino)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree.Entries[0].Xattrs, xattrs, asData); diff != "" || !v.HasXattrs() {
		t.Error(diff)
	}
	if none, err := v.Xattrs(t.Context(), 1); err != nil || len(none) != 0 {
		t.Errorf("the root's attributes: %v, %v", none, err)
	}
}

func TestAViewDescribesItsSnapshot(t *testing.T) {
	want := metastore.Snapshot{
		Seq: 12, ID: "w-20260102-030405Z-2", Writer: "w", Set: "s", Hostname: "h\xff",
		Started: metastore.Time{Sec: 5, Nsec: 6}, Finished: metastore.Time{Sec: 7, Nsec: 8}, Version: "1.2", Revision: "abc",
		Roots: []string{"/a\n", "/b"}, Excludes: []string{"*.o"},
		Chunking: metastore.Chunking{Algorithm: "jc", Min: 1, Avg: 2, Max: 3, Secret: bytes.Repeat([]byte{9}, 32)},
		NewFiles: 1, NewBytes: 2, StoredBytes: 3,
	}
	v := metatest.View(t, metatest.Tree{Snapshot: want, Entries: []metatest.Entry{metatest.Dir("/")}})
	if diff := cmp.Diff(want, v.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestListingsAreFilesThenDirectoriesInByteOrder(t *testing.T) {
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{
		metatest.Dir("/b"), metatest.File("/b/x"), metatest.Dir("/b/in"), metatest.File("/b/in/y"), metatest.Symlink("/b/\x01", "x"),
		metatest.Dir("/A"), metatest.File("/A/1"), metatest.File("/z"), metatest.File("/\xff"), metatest.File("/B"),
	}})
	shown, order := metatest.Walk(t, v)
	want := []string{"/", "/B", "/z", "/\xff", "/A", "/b", "/A/1", "/b/\x01", "/b/x", "/b/in", "/b/in/y"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
	// Inode numbers are in the same order, depth first.
	for i, path := range order {
		if n := shown[path]; n.Ino != uint64(i+1) || n.Cookie != n.Ino {
			t.Errorf("%q has inode %d and cookie %d, not %d", path, n.Ino, n.Cookie, i+1)
		}
	}
}

func TestHardLinksShareAnInode(t *testing.T) {
	entry := func(path string, volume int64, inode uint64, nlink uint32, size int64) metatest.Entry {
		e := metatest.File(path, view.Extent{Hole: true, Length: size})
		e.Volume, e.Inode, e.Nlink = volume, inode, nlink
		return e
	}
	root := entry("/d/c", 1, 5, 3, 10)
	root.Role = metastore.RoleRoot
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{
		entry("/a", 1, 5, 3, 10), entry("/b", 1, 5, 3, 10), root,
		entry("/other-volume", 2, 5, 3, 10), entry("/single", 1, 6, 1, 10), entry("/single-again", 1, 6, 1, 10),
	}})
	shown, _ := metatest.Walk(t, v)
	inos := map[string]uint64{}
	for path, n := range shown {
		inos[path] = n.Ino
		if n.Cookie == 0 {
			t.Errorf("%q has no cookie of its own", path)
		}
	}
	want := map[string]uint64{"/": 1, "/a": 2, "/b": 2, "/other-volume": 4, "/single": 5, "/single-again": 6, "/d": 7, "/d/c": 2}
	if diff := cmp.Diff(want, inos); diff != "" {
		t.Error(diff)
	}
	if _, err := v.Node(t.Context(), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second link has a number of its own: %v", err)
	}
}

func TestLinksReadAroundAChangeAreTwoFiles(t *testing.T) {
	before := metatest.File("/before", view.Extent{Hole: true, Length: 1})
	before.Inode, before.Nlink = 5, 2
	after := before
	after.Path, after.MTime = "/after", metastore.Time{Sec: 1}
	shown, _ := metatest.Walk(t, metatest.View(t, metatest.Tree{Entries: []metatest.Entry{before, after}}))
	if a, b := shown["/before"], shown["/after"]; a.Ino == b.Ino || a.MTime == b.MTime {
		t.Errorf("both are inode %d", a.Ino)
	}
}

func TestBigDirectoriesHavePages(t *testing.T) {
	tree := metatest.Tree{}
	var files, folders []string
	for i := range 4000 {
		name := fmt.Sprintf("%04d%s", i, strings.Repeat("n", i%200))
		if i%3 == 0 {
			tree.Entries, folders = append(tree.Entries, metatest.Dir("/d/"+name)), append(folders, name)
		} else {
			tree.Entries, files = append(tree.Entries, metatest.File("/d/"+name)), append(files, name)
		}
	}
	tree.Entries = append(tree.Entries, metatest.File("/d/0000/below"))
	v := metatest.View(t, tree)
	d, err := v.Lookup(t.Context(), 1, "d")
	if err != nil {
		t.Fatal(err)
	}
	want := append(files, folders...)
	for _, size := range []int{1, 100, 5000} {
		var got []string
		for cookie := uint64(0); ; {
			nodes, err := v.ReadDir(t.Context(), d.Ino, cookie, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(nodes) == 0 {
				break
			}
			for _, n := range nodes {
				got = append(got, n.Name)
			}
			cookie = nodes[len(nodes)-1].Cookie
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("read by %d: %s", size, diff)
		}
	}
	for _, name := range want {
		n, err := v.Lookup(t.Context(), d.Ino, name)
		if err != nil || n.Name != name {
			t.Fatalf("%q: %+v, %v", name, n, err)
		}
		same, err := v.Node(t.Context(), n.Ino)
		if diff := cmp.Diff(n, same, asData); diff != "" || err != nil {
			t.Fatalf("by number: %s %v", diff, err)
		}
		for _, other := range []string{name + "\x00", name[:3], ""} {
			if _, err := v.Lookup(t.Context(), d.Ino, other); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%q: %v", other, err)
			}
		}
	}
}

// TestAnyTreeIsShownAsItWas compares a view with the tree it was made from.
func TestAnyTreeIsShownAsItWas(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tree, want := metatest.Tree{}, map[string]metastore.Type{"/": metastore.Directory}
		folders := []string{"/"}
		name := rapid.StringMatching(`[a-c\x00-\xff]{1,3}`)
		for range rapid.IntRange(0, 40).Draw(rt, "entries") {
			n := strings.Map(func(r rune) rune {
				if r == '/' || r == 0 || r == '.' {
					return 'x'
				}
				return r
			}, name.Draw(rt, "name"))
			path := rapid.SampledFrom(folders).Draw(rt, "in") + n
			if _, taken := want[path]; taken {
				continue
			}
			e := metatest.File(path, view.Extent{Hole: true, Length: 1 + int64(len(tree.Entries))})
			if rapid.Bool().Draw(rt, "directory") {
				e, folders = metatest.Dir(path), append(folders, path+"/")
			}
			e.UID = uint32(rapid.IntRange(0, 9).Draw(rt, "uid"))
			tree.Entries, want[path] = append(tree.Entries, e), e.Type
		}
		tree.Entries = append(tree.Entries, metatest.Dir("/"))
		v := metatest.View(t, tree)
		shown, _ := metatest.Walk(t, v)
		got := map[string]metastore.Type{}
		for path, n := range shown {
			got[path] = n.Type
			if path == "/" {
				continue
			}
			found, err := v.Lookup(t.Context(), n.Parent, n.Name)
			if diff := cmp.Diff(n, found, asData); diff != "" || err != nil {
				rt.Fatalf("%q: %s %v", path, diff, err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
		for _, e := range tree.Entries {
			if n := shown[e.Path]; n.UID != e.UID || len(e.Extents) > 0 && n.Size != e.Extents[0].Length {
				rt.Fatalf("%q is %+v", e.Path, n)
			}
		}
	})
}

func TestExtentsAreThoseThatARangeTouches(t *testing.T) {
	blob := view.BlobInfo{Hash: [32]byte{7}, Seq: 3, Size: 100_000, Header: 300}
	extents := []view.Extent{
		{Length: 100, Chunk: [32]byte{1}, Blob: blob, FrameOffset: 10, FrameLength: 50},
		{Length: 1000, Hole: true},
		{Length: 513, Chunk: [32]byte{2}, Blob: blob, FrameOffset: 60, FrameLength: 500, FrameStart: 11},
		{Length: 5, Chunk: [32]byte{3}, Lost: true},
	}
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{metatest.File("/f", extents...)}})
	n, err := v.Lookup(t.Context(), 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	if n.Blocks != 1+2+1 {
		t.Errorf("%d blocks", n.Blocks)
	}
	offset := int64(0)
	for i := range extents {
		extents[i].Offset = offset
		if !extents[i].Hole {
			extents[i].ChunkSize = extents[i].Length
		}
		offset += extents[i].Length
	}
	for _, c := range []struct {
		off, length int64
		from, to    int
	}{
		{0, math.MaxInt64, 0, 4}, {0, 1, 0, 1}, {99, 1, 0, 1}, {99, 2, 0, 2}, {100, 1000, 1, 2}, {1099, 2, 1, 3},
		{1617, 1, 3, 4}, {1613, 99, 3, 4}, {1618, 1, 0, 0}, {5, 0, 0, 0}, {-1, 9, 0, 0}, {math.MaxInt64, 1, 0, 0},
	} {
		got, err := v.Extents(t.Context(), n, c.off, c.length)
		if diff := cmp.Diff(extents[c.from:c.to], got, asData); diff != "" || err != nil {
			t.Errorf("%d bytes at %d: %s %v", c.length, c.off, diff, err)
		}
	}
	root, err := v.Node(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Extents(t.Context(), root, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("a directory's content: %v, %v", got, err)
	}
}

// Files asked for one after the other are answered from a series that was read
// at once, up to a bound that a file full of holes exceeds alone.
func TestExtentsAreTheSameInWhateverOrderTheyAreAskedFor(t *testing.T) {
	var tree metatest.Tree
	want := map[string][]view.Extent{}
	for i := range 300 {
		pieces := 1 + i%5
		if i == 100 {
			pieces = 2000
		}
		var extents []view.Extent
		for k := range pieces {
			extents = append(extents, view.Extent{Offset: int64(10 * k), Length: 10, Hole: true})
		}
		path := fmt.Sprintf("/%04d", i)
		want[path[1:]] = extents
		tree.Entries = append(tree.Entries, metatest.File(path, extents...))
	}
	v := metatest.View(t, tree)
	rapid.Check(t, func(r *rapid.T) {
		at := 0
		for range rapid.IntRange(1, 100).Draw(r, "reads") {
			at = (at + rapid.SampledFrom([]int{1, 1, 1, 1, 2, 8, 9, 250}).Draw(r, "step")) % 300
			name := fmt.Sprintf("%04d", at)
			n, err := v.Lookup(t.Context(), 1, name)
			if err != nil {
				r.Fatal(err)
			}
			from := rapid.IntRange(0, len(want[name])-1).Draw(r, "from")
			to := rapid.IntRange(from+1, len(want[name])).Draw(r, "to")
			got, err := v.Extents(t.Context(), n, int64(10*from), int64(10*(to-from)))
			if diff := cmp.Diff(want[name][from:to], got, asData); diff != "" || err != nil {
				r.Fatalf("%q: %s %v", name, diff, err)
			}
		}
	})
}

func TestWhatIsNotThereIsSaidSo(t *testing.T) {
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{metatest.File("/f"), metatest.Dir("/empty")}})
	empty, err := v.Lookup(t.Context(), 1, "empty")
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.Lookup(t.Context(), 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(dir uint64, name string) error { _, err := v.Lookup(t.Context(), dir, name); return err }
	list := func(dir, cookie uint64) error {
		nodes, err := v.ReadDir(t.Context(), dir, cookie, 10)
		if err == nil && len(nodes) > 0 {
			return fmt.Errorf("%d entries", len(nodes))
		}
		return err
	}
	node := func(ino uint64) error { _, err := v.Node(t.Context(), ino); return err }
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"a name in an empty directory", lookup(empty.Ino, "x"), fs.ErrNotExist},
		{"a name in a file", lookup(f.Ino, "x"), view.ErrNotDirectory},
		{"a name in nothing", lookup(99, "x"), fs.ErrNotExist},
		{"a name in inode 0", lookup(0, ""), fs.ErrNotExist},
		{"a name in the greatest inode", lookup(math.MaxUint64, "x"), fs.ErrNotExist},
		{"dot", lookup(1, "."), fs.ErrNotExist},
		{"an empty directory", list(empty.Ino, 0), nil},
		{"behind an empty directory's end", list(empty.Ino, 5), nil},
		{"behind the end", list(1, empty.Cookie), nil},
		{"another directory's cookie", list(empty.Ino, 1), nil},
		{"the greatest cookie", list(1, math.MaxUint64), nil},
		{"a file's entries", list(f.Ino, 0), view.ErrNotDirectory},
		{"nothing's entries", list(99, 0), fs.ErrNotExist},
		{"inode 0's entries", list(0, 0), fs.ErrNotExist},
		{"inode 0", node(0), fs.ErrNotExist},
		{"inode 99", node(99), fs.ErrNotExist},
		{"the greatest inode", node(math.MaxUint64), fs.ErrNotExist},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Lookup(ended, 1, "f"); !errors.Is(err, context.Canceled) {
		t.Errorf("a look-up after the end: %v", err)
	}
}

func TestManyReadAtOnceAfterTheFileIsGone(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	text, want := metatest.Dump(metatest.Tiny())
	path := filepath.Join(t.TempDir(), "v")
	if err := build.View(t.Context(), path, metatest.Parts(string(text)), want); err != nil {
		t.Fatal(err)
	}
	v, err := view.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	srv, err := v.Lookup(t.Context(), 1, "srv")
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for range 16 {
		g.Go(func() error {
			for range 100 {
				n, err := v.Lookup(t.Context(), srv.Ino, "a")
				if err != nil {
					return err
				}
				if x, err := v.Extents(t.Context(), n, 0, n.Size); err != nil || len(x) != 3 {
					return fmt.Errorf("%d extents, %w", len(x), err)
				}
				if _, err := v.ReadDir(t.Context(), srv.Ino, 0, 10); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAUselessViewIsToBeBuiltAgain(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	path := filepath.Join(t.TempDir(), "v")
	if err := build.View(t.Context(), path, metatest.Parts(string(text)), want); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("the view's mode: %v, %v", info.Mode(), err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	patch := func(off int, with ...byte) []byte {
		b := slices.Clone(good)
		copy(b[off:], with)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":               {},
		"text":                []byte(strings.Repeat("no database ", 1000)),
		"cut":                 good[:len(good)-8192],
		"cut within a page":   good[:len(good)-1],
		"longer":              append(slices.Clone(good), make([]byte, 8192)...),
		"another application": patch(68, 1, 2, 3, 4),
		"another version":     patch(60, binary.BigEndian.AppendUint32(nil, 1)...),
		"pages zeroed":        patch(8192, make([]byte, len(good)-8192)...),
		"incomplete":          bytes.Replace(good, []byte("complete"), []byte("complexe"), 1),
		"no entries":          bytes.Replace(good, []byte("pages_dir"), []byte("pages_xir"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(t.TempDir(), "v")
			if err := os.WriteFile(at, b, 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := view.Open(t.Context(), at)
			if name == "no entries" && err == nil {
				v.Close() // an index by another name is as good
				return
			}
			if !errors.Is(err, view.ErrBad) || !strings.Contains(err.Error(), strconv.Quote(at)) {
				t.Errorf("it says %v", err)
			}
		})
	}
	if _, err := view.Open(t.Context(), path+".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing view: %v", err)
	}
	// Built again, it replaces what is there.
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := build.View(t.Context(), path, metatest.Parts(string(text)), want); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, good) {
		t.Errorf("the second view differs from the first, %v", err)
	}
}

func TestADamagedPageIsAnErrorAndNoPanic(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	path := filepath.Join(t.TempDir(), "v")
	if err := build.View(t.Context(), path, metatest.Parts(string(text)), want); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "v")
	refused := 0
	for i := 100; i < len(good); i += 1 + i%29 {
		if good[i] == 0 {
			continue // most of it is unused
		}
		b := slices.Clone(good)
		b[i] ^= 0x55
		if err := os.WriteFile(at, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := view.Open(t.Context(), at)
		if err != nil {
			refused++
			continue
		}
		for ino := range uint64(12) {
			n, _ := v.Node(t.Context(), ino)
			nodes, _ := v.ReadDir(t.Context(), ino, 0, 100)
			for _, n := range nodes {
				_, _ = v.Lookup(t.Context(), ino, n.Name)
			}
			_, _ = v.Xattrs(t.Context(), ino)
			_, _ = v.Extents(t.Context(), n, 0, math.MaxInt64)
		}
		v.Close()
	}
	if refused == 0 {
		t.Error("no damage was found")
	}
}

func TestACancelledBuildLeavesNothing(t *testing.T) {
	text, want := metatest.Dump(metatest.Tiny())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	folder := t.TempDir()
	err := build.View(ctx, filepath.Join(folder, "v"), metatest.Parts(string(text)), want)
	left, _ := os.ReadDir(folder)
	if !errors.Is(err, context.Canceled) || len(left) != 0 {
		t.Errorf("%v, %d files", err, len(left))
	}
}

// A view that was built, or could not be, and one that was closed keep no file
// open: a mount and a rebuild go through thousands.
func TestAViewThatIsClosedKeepsNoFileOpen(t *testing.T) {
	open := func(folder string) (files []string) {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range all {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, folder) {
				files = append(files, to)
			}
		}
		return files
	}
	folder := t.TempDir()
	for name, more := range map[string]int64{"built": 0, "not built": 1} {
		text, want := metatest.Dump(metatest.Tiny())
		want.Totals.Files += more
		path := filepath.Join(folder, name)
		err := build.View(t.Context(), path, metatest.Parts(string(text)), want)
		if (err == nil) != (name == "built") {
			t.Fatalf("%s: %v", name, err)
		}
		if err == nil {
			v, err := view.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if len(open(folder)) == 0 {
				t.Error("no file is seen to be open")
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if left := open(folder); len(left) > 0 {
			t.Errorf("%s: %q are open", name, left)
		}
	}
}
