package fusefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"filippo.io/age"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mounted is a snapshot on a folder, over a store that can be made to fail.
type mounted struct {
	*fstest.World
	*Mount
	manifest *remote.Manifest
	faulty   *storetest.Faulty
	counting *storetest.Counting
	tree     *fs.Tree
	gate     atomic.Pointer[storetest.Gate] // that reads of the store have to pass, if any

	mu       sync.Mutex
	warnings []error
}

func needFuse(t testing.TB) {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip("no permission to use FUSE:", err)
	} else {
		f.Close()
	}
}

func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can", why)
	}
}

func needPrograms(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

func mountSnapshot(t testing.TB, o Options, c fs.ChunkOptions, entries ...fstest.Entry) *mounted {
	t.Helper()
	return mountOnto(t, t.TempDir(), o, c, entries...)
}

func mountOnto(t testing.TB, dir string, o Options, c fs.ChunkOptions, entries ...fstest.Entry) *mounted {
	t.Helper()
	needFuse(t)
	m := &mounted{World: fstest.New(t)}
	m.counting = storetest.NewCounting(m.Store)
	m.faulty = storetest.NewFaulty(m.counting)
	m.faulty.OnCall = func(_ int, op, _ string) {
		if g := m.gate.Load(); g != nil && op == storetest.OpGet {
			g.Pass()
		}
	}
	m.manifest = m.Snapshot("ann", "home", entries...)
	chunks := fs.NewChunks(m.faulty, []age.Identity{m.Identity}, c)
	m.tree = fs.NewTree(m.View(m.manifest), chunks)
	o.Warn = m.warn
	var err error
	if m.Mount, err = MountTree(dir, m.tree, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmount(t, m.Mount)
		if err := errors.Join(m.tree.Close(), chunks.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// unmount unmounts, if need be by force, so that a failing test leaves nothing
// behind.
func unmount(t testing.TB, m *Mount) {
	t.Helper()
	if mounted, err := mountpoint.Mounted(m.Dir()); !mounted && err == nil {
		return // the test did it itself
	}
	err := m.Unmount()
	if err == nil {
		return
	}
	t.Error(err)
	if err := unix.Unmount(m.Dir(), unix.MNT_DETACH|unix.MNT_FORCE); err != nil {
		t.Error(err)
	}
}

func (m *mounted) warn(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warnings = append(m.warnings, err)
}

func (m *mounted) warned() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.warnings...)
}

func (m *mounted) path(parts ...string) string {
	return filepath.Join(append([]string{m.Dir()}, parts...)...)
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// describe tells everything about a tree that a copy has to keep, by path.
// Inode numbers become groups of names.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	out, links := make(map[string]string), make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		name := "." + strings.TrimPrefix(path, root)
		var d strings.Builder
		fmt.Fprintf(&d, "%o %d:%d mtime %d.%09d rdev %d:%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&d, " %d bytes %x", st.Size, sha256.Sum256(content))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&d, " -> %q", target)
		}
		if first, ok := links[st.Ino]; ok {
			fmt.Fprintf(&d, " same as %s", first)
		} else if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			links[st.Ino] = name
		}
		xattrs, err := xattrsOf(path)
		out[name] = d.String() + xattrs
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func xattrsOf(path string) (string, error) {
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	found := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(found)
	var out strings.Builder
	for _, name := range found {
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("%s of %s: %w", name, path, err)
		}
		fmt.Fprintf(&out, " %s=%q", name, value[:n])
	}
	return out.String(), nil
}
