package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// handleOf is what an NFS server gives to its clients.
func handleOf(t *testing.T, path string) unix.FileHandle {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		t.Fatalf("handle of %s: %v", path, err)
	}
	return h
}

// byHandle opens what a handle stands for in a mount.
func byHandle(t *testing.T, mnt string, h unix.FileHandle) (*os.File, error) {
	t.Helper()
	d, err := os.Open(mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fd, err := unix.OpenByHandleAt(int(d.Fd()), h, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "by handle")
	t.Cleanup(func() { f.Close() })
	return f, nil
}

// again mounts the same snapshot once more, where the kernel knows nothing.
func (m *mounted) again(t *testing.T) *Mount {
	t.Helper()
	o, err := MountTree(t.TempDir(), m.tree, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, o) })
	return o
}

func TestAHandleFindsTheSameFileInALaterMount(t *testing.T) {
	needRoot(t, "open files by handle")
	tree := []fstest.Entry{fstest.Regular("/a/b/file", []byte("content")), fstest.Dir("/a/b/dir"), fstest.Symlink("/a/link", "b")}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)
	later := m.again(t)
	f, err := byHandle(t, later.Dir(), handleOf(t, m.path("a/b/file")))
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 100)
	if n, err := f.Read(content); string(content[:max(n, 0)]) != "content" || err != nil {
		t.Errorf("%q, %v", content[:max(n, 0)], err)
	}
	d, err := byHandle(t, later.Dir(), handleOf(t, m.path("a/b/dir")))
	if err != nil {
		t.Fatal(err)
	}
	// A folder's way up was looked for.
	if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.Fd())); at != filepath.Join(later.Dir(), "a/b/dir") || err != nil {
		t.Errorf("the folder is %q, %v", at, err)
	}
	if root, err := byHandle(t, later.Dir(), handleOf(t, m.Dir())); err != nil {
		t.Error(err)
	} else if list, err := root.Readdirnames(-1); len(list) != 1 || err != nil {
		t.Errorf("the top: %q, %v", list, err)
	}
	if list := names(t, later.Dir()); len(list) != 1 { // nothing was taken for something else
		t.Errorf("the later mount shows %q", list)
	}
}

// Another snapshot has the same inode numbers for other files.
func TestAHandleOfAnotherSnapshotIsStale(t *testing.T) {
	needRoot(t, "open files by handle")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/file", []byte("one")))
	other := m.Snapshot("ann", "home", fstest.Regular("/file", []byte("two")))
	chunks := fs.NewChunks(m.Store, nil, fs.ChunkOptions{})
	defer chunks.Close()
	tree := fs.NewTree(m.View(other), chunks)
	defer tree.Close()
	o, err := MountTree(t.TempDir(), tree, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer unmount(t, o)
	if inode(t, m.path("file")) != inode(t, filepath.Join(o.Dir(), "file")) {
		t.Fatal("the two have different inode numbers")
	}
	for _, looked := range []string{"known", "unknown"} {
		if _, err := byHandle(t, o.Dir(), handleOf(t, m.path("file"))); !errors.Is(err, unix.ESTALE) {
			t.Errorf("an inode that is %s to the kernel: %v", looked, err)
		}
		unmount(t, o)
		if o, err = MountTree(t.TempDir(), tree, Options{}); err != nil {
			t.Fatal(err)
		}
		defer unmount(t, o)
	}
}

func TestHandlesInAStoreAreGoodForItsSnapshotsOnly(t *testing.T) {
	needRoot(t, "open files by handle")
	w := fstest.New(t)
	w.Snapshot("ann", "home", append(hello("1"), fstest.Dir("/sub"))...)
	w.Snapshot("ann", "etc", hello("2")...)
	m, _ := mountStore(t, w, Options{})
	later, _ := mountStore(t, w, Options{})
	const one = "snapshots/ann-20261124-031022Z"
	for _, p := range []string{one + "/hello", one + "/sub", one} {
		f, err := byHandle(t, later.Dir(), handleOf(t, filepath.Join(m.Dir(), p)))
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); p != one+"/hello" && at != filepath.Join(later.Dir(), p) || err != nil {
			t.Errorf("%s: opened as %q, %v", p, at, err)
		}
	}
	for _, p := range []string{"sets/home", "snapshots"} { // numbered anew by every mount
		if _, err := byHandle(t, later.Dir(), handleOf(t, filepath.Join(m.Dir(), p))); !errors.Is(err, unix.ESTALE) {
			t.Errorf("%s: %v", p, err)
		}
		if _, err := byHandle(t, m.Dir(), handleOf(t, filepath.Join(m.Dir(), p))); err != nil {
			t.Errorf("%s in its own mount: %v", p, err)
		}
	}
}
