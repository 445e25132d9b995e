package fusefs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// counter counts requests on their way to the file system.
type counter struct {
	fuse.RawFileSystem
	mu    sync.Mutex
	count map[string]int
}

func newCounter() *counter { return &counter{count: make(map[string]int)} }

func (c *counter) wrap(f fuse.RawFileSystem) fuse.RawFileSystem { c.RawFileSystem = f; return c }

func (c *counter) add(op string) { c.mu.Lock(); c.count[op]++; c.mu.Unlock() }

func (c *counter) of(op string) int { c.mu.Lock(); defer c.mu.Unlock(); return c.count[op] }

func (c *counter) reset() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.count
	c.count = make(map[string]int)
	return old
}

func (c *counter) Lookup(x <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c.add("LOOKUP")
	return c.RawFileSystem.Lookup(x, in, name, out)
}

func (c *counter) GetAttr(x <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	c.add("GETATTR")
	return c.RawFileSystem.GetAttr(x, in, out)
}

func (c *counter) Open(x <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.add("OPEN")
	return c.RawFileSystem.Open(x, in, out)
}

func (c *counter) OpenDir(x <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.add("OPENDIR")
	return c.RawFileSystem.OpenDir(x, in, out)
}

func (c *counter) Release(x <-chan struct{}, in *fuse.ReleaseIn) {
	c.add("RELEASE")
	c.RawFileSystem.Release(x, in)
}

func (c *counter) ReleaseDir(in *fuse.ReleaseIn) {
	c.add("RELEASEDIR")
	c.RawFileSystem.ReleaseDir(in)
}

func (c *counter) Flush(x <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	c.add("FLUSH")
	return c.RawFileSystem.Flush(x, in)
}

func (c *counter) Read(x <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	c.add("READ")
	return c.RawFileSystem.Read(x, in, buf)
}

func (c *counter) Lseek(x <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	c.add("LSEEK")
	return c.RawFileSystem.Lseek(x, in, out)
}

func (c *counter) Readlink(x <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	c.add("READLINK")
	return c.RawFileSystem.Readlink(x, in)
}

func (c *counter) ReadDir(x <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.add("READDIR")
	return c.RawFileSystem.ReadDir(x, in, out)
}

func (c *counter) ReadDirPlus(x <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.add("READDIRPLUS")
	return c.RawFileSystem.ReadDirPlus(x, in, out)
}

func (c *counter) GetXAttr(x <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	c.add("GETXATTR")
	return c.RawFileSystem.GetXAttr(x, in, name, dest)
}

func (c *counter) ListXAttr(x <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	c.add("LISTXATTR")
	return c.RawFileSystem.ListXAttr(x, in, dest)
}

// dirent is one entry of getdents64(2).
type dirent struct {
	name string
	next int64 // what lseek(2) goes on from behind it
	kind byte
}

// getdents reads a directory from where it stands, size bytes at a time, until
// it ends or there are max entries.
func getdents(t testing.TB, fd, size, max int) []dirent {
	t.Helper()
	var out []dirent
	for len(out) < max {
		buf := make([]byte, size)
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[16:])
			name, _, _ := bytes.Cut(b[19:size], []byte{0})
			out = append(out, dirent{string(name), int64(binary.NativeEndian.Uint64(b[8:])), b[18]})
			b = b[size:]
		}
	}
	return out
}

func openDir(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestAListingCanBeContinuedFromAnywhere(t *testing.T) {
	var tree []fstest.Entry
	var want []string
	entries := 50_000
	if testing.Short() {
		entries = 10_000
	}
	for i := range entries {
		name := fmt.Sprintf("%05d-%s", i, "a name of some length, as they are"[:i%35])
		tree = append(tree, fstest.Special("/"+name, metastore.FIFO, 0, 0))
		want = append(want, name)
	}
	tree = append(tree, fstest.Dir("/00000-dir"), fstest.Dir("/00000-dir/sub"))
	want = append(want, "00000-dir") // directories come last
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)

	for _, size := range []int{400, 32 << 10, 1 << 20} {
		fd := openDir(t, m.Dir())
		all := getdents(t, fd, size, 1<<30)
		var got []string
		for _, e := range all {
			got = append(got, e.name)
			if e.next <= 0 {
				t.Fatalf("%q ends at offset %d", e.name, e.next)
			}
		}
		if diff := cmp.Diff(append([]string{".", ".."}, want...), got); diff != "" {
			t.Fatalf("with %d bytes at a time: %s", size, diff)
		}
		if more := getdents(t, fd, size, 1); len(more) != 0 {
			t.Errorf("behind the end: %v", more)
		}
		for range 300 {
			i := rand.IntN(len(all) - 1)
			if _, err := unix.Seek(fd, all[i].next, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if next := getdents(t, fd, 400, 1); len(next) == 0 || next[0] != all[i+1] {
				t.Fatalf("behind %q: %v, want %v", all[i].name, next[:min(1, len(next))], all[i+1])
			}
		}
		if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if again := getdents(t, fd, size, 1<<30); !slices.Equal(again, all) {
			t.Error("rewound, it lists something else")
		}
	}
	if kind := getdents(t, openDir(t, m.path("00000-dir")), 400, 1<<30); len(kind) != 3 || kind[2].name != "sub" || kind[2].kind != unix.DT_DIR {
		t.Errorf("the directory inside: %v", kind)
	}
}

func TestDirectoriesThatWereNotReadFailInsteadOfBeingEmpty(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Dir("/closed").With(func(e *fstest.Entry) {
		e.State, e.Errno = metastore.StateUnreadable, 13
	}), fstest.Dir("/empty"), fstest.Regular("/broken", nil).With(func(e *fstest.Entry) {
		e.State, e.Errno, e.Size = metastore.StateUnreadable, 5, 10
	}), fstest.Regular("/unknown", nil).With(func(e *fstest.Entry) {
		e.State, e.Errno = metastore.StateUnreadable, 5
	}))
	if got := names(t, m.path("")); !slices.Contains(got, "unknown") {
		t.Error("what could not be examined is not even listed:", got)
	}
	// Nobody reads an empty file's content, so only this can tell them.
	if _, err := os.Lstat(m.path("unknown")); !errors.Is(err, unix.EIO) {
		t.Error("what could not be examined passes for an empty file:", err)
	}
	if _, err := os.ReadDir(m.path("closed")); !errors.Is(err, unix.EIO) {
		t.Error("listing:", err)
	}
	if _, err := os.Lstat(m.path("closed", "x")); !errors.Is(err, unix.EIO) {
		t.Error("a name in it:", err)
	}
	if i, err := os.Lstat(m.path("closed")); err != nil || !i.IsDir() {
		t.Error("itself:", err)
	}
	if got := names(t, m.path("empty")); len(got) != 0 {
		t.Error("empty:", got)
	}
	if _, err := os.ReadFile(m.path("broken")); !errors.Is(err, unix.EIO) {
		t.Error("a file that could not be read:", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(m.path("broken"), &st); err != nil || st.Size != 10 || st.Blocks*512 < st.Size {
		t.Errorf("it must not look like a sparse file: %+v %v", st, err)
	}
}

func TestReadingManySmallFilesTakesFewRequests(t *testing.T) {
	var tree []fstest.Entry
	for i := range 500 {
		tree = append(tree, fstest.Regular(fmt.Sprintf("/dir/%03d", i), fmt.Appendf(nil, "content of %d", i)), fstest.Symlink(fmt.Sprintf("/dir/%03d.link", i), "x"))
	}
	var count *counter
	var m *mounted
	pass := func() map[string]int {
		for _, name := range names(t, m.path("dir")) {
			if len(name) > 3 {
				if _, err := os.Readlink(m.path("dir", name)); err != nil {
					t.Error(err)
				}
				continue
			}
			if _, err := os.ReadFile(m.path("dir", name)); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(m.path("dir", name+".absent")); !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
		return count.reset()
	}
	limits := map[string][2]int{ // at least, at most
		"READ":     {1, 500}, // the fewer the faster pushing is
		"READLINK": {500, 500}, "LOOKUP": {501, 501}, "READDIRPLUS": {2, 40}, "OPEN": {1, 1}, "OPENDIR": {1, 1}, "FLUSH": {0, 1},
		"GETATTR": {0, 1}, // of the mount's root, which nothing described before
	}
	undisturbed(t, func() (wrong []string) {
		count = newCounter()
		m = mountSnapshot(t, Options{wrap: count.wrap}, fs.ChunkOptions{}, tree...)
		got := pass()
		for op := range got {
			if _, known := limits[op]; !known {
				wrong = append(wrong, fmt.Sprintf("%d %s requests", got[op], op))
			}
		}
		for op, l := range limits {
			if n := got[op]; n < l[0] || n > l[1] {
				wrong = append(wrong, fmt.Sprintf("%d %s requests, expected %d to %d", n, op, l[0], l[1]))
			}
		}
		return wrong
	})
	undisturbed(t, func() (wrong []string) { // all of it again
		for op, n := range pass() {
			wrong = append(wrong, fmt.Sprintf("%d %s requests", n, op))
		}
		return wrong
	})
}

// undisturbed counts requests up to five times, until one is as it should be: the
// kernel may drop what it keeps at any time, as for a test beside this one that
// asks it to.
func undisturbed(t *testing.T, count func() (wrong []string)) {
	t.Helper()
	for left := 4; ; left-- {
		wrong := count()
		if len(wrong) == 0 {
			return
		}
		if left == 0 || t.Failed() {
			t.Fatalf("%q", wrong)
		}
	}
}
