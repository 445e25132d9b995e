package fusefs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
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
	needFuse(t)
	m := &mounted{World: fstest.New(t)}
	m.counting = storetest.NewCounting(m.Store)
	m.faulty = storetest.NewFaulty(m.counting)
	m.manifest = m.Snapshot("ann", "home", entries...)
	chunks := fs.NewChunks(m.faulty, []age.Identity{m.Identity}, c)
	m.tree = fs.NewTree(m.View(m.manifest), chunks)
	o.Warn = m.warn
	var err error
	if m.Mount, err = MountTree(t.TempDir(), m.tree, o); err != nil {
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
	if kind, err := mountedAt(m.Dir()); kind != fsType && err == nil {
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

func TestTheMountSaysWhatItIs(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var options []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); fields[1] == m.Dir() {
			if fields[0] != "vaultik" || fields[2] != "fuse.vaultik" {
				t.Errorf("source %q, type %q", fields[0], fields[2])
			}
			options = strings.Split(fields[3], ",")
		}
	}
	for _, want := range []string{"ro", "nosuid", "nodev"} {
		if !slices.Contains(options, want) {
			t.Errorf("the mount is not %s: %v", want, options)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Dir(), &st); err != nil || st.Files != 2 || st.Bfree != 0 || st.Namelen != 255 {
		t.Errorf("statfs: %+v %v", st, err)
	}
	if os.Geteuid() == 0 {
		var st unix.Stat_t
		if err := unix.Stat(m.Dir(), &st); err != nil {
			t.Fatal(err)
		}
		ahead, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev)))
		if err == nil && strings.TrimSpace(string(ahead)) != "1024" {
			t.Errorf("read-ahead of %s KiB", ahead)
		}
	}
}

func TestPlacesThatCannotBeMountedOnAreRefused(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(m.Dir(), link); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]error{
		file: syscall.ENOTDIR, filepath.Join(file, "x"): syscall.ENOTDIR, filepath.Join(t.TempDir(), "missing"): os.ErrNotExist,
		m.Dir(): ErrMounted, link: ErrMounted,
	} {
		other, err := MountTree(dir, m.tree, Options{})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dir, err, want)
		}
		if err == nil {
			unmount(t, other)
		}
	}
}

// TestMountUntilKilled is no test: it is the process that
// TestADeadMountIsRecognised kills.
func TestMountUntilKilled(t *testing.T) {
	if os.Getenv("VAULTIK_TEST_MOUNT_HERE") == "" {
		t.Skip("run by TestADeadMountIsRecognised")
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	fmt.Println("mounted on", m.Dir())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Error(err)
	}
}

func TestADeadMountIsRecognised(t *testing.T) {
	needFuse(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "-test.run=^TestMountUntilKilled$", "-test.v")
	c.Env = append(os.Environ(), "VAULTIK_TEST_MOUNT_HERE=1")
	if _, err := c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		_, dir, _ = strings.Cut(lines.Text(), "mounted on ")
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait() // it was killed
	if dir == "" {
		t.Fatal("nothing was mounted")
	}
	defer func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			t.Error(err)
		}
	}()
	w := fstest.New(t)
	chunks := fs.NewChunks(w.Store, nil, fs.ChunkOptions{})
	defer chunks.Close()
	tree := fs.NewTree(w.View(w.Snapshot("ann", "home")), chunks)
	defer tree.Close()
	if _, err := MountTree(dir, tree, Options{}); !errors.Is(err, ErrDead) {
		t.Errorf("a mount whose process was killed: %v", err)
	}
}

func TestABusyMountStaysUntilItIsLeft(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("content")))
	f, err := os.Open(m.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); !errors.Is(err, ErrBusy) {
		t.Errorf("with an open file: %v", err)
	}
	if got, err := io.ReadAll(f); string(got) != "content" || err != nil {
		t.Errorf("after that: %q %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(m.Unmount(), m.Unmount(), m.Wait()); err != nil {
		t.Error(err)
	}
	if kind, err := mountedAt(m.Dir()); kind == fsType || err != nil {
		t.Error("it is still mounted:", kind, err)
	}
}

func TestSomebodyElseMayUnmount(t *testing.T) {
	needRoot(t, "unmount without a helper")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("content")))
	if err := unix.Unmount(m.Dir(), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAPathWithSpecialCharactersIsFoundInTheMountTable(t *testing.T) {
	for in, want := range map[string]string{`/mnt`: "/mnt", `/a\040b\011c\012d\134e`: "/a b\tc\nd\\e", `\134040`: `\040`} {
		if got := unescape(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
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

func TestDamageAndLossAreErrorsAndStayWhereTheyAre(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{},
		fstest.Regular("/a", fstest.Noise(1, 300_000)), fstest.Regular("/b", fstest.Noise(2, 300_000)),
		fstest.Regular("/lost", nil).With(func(e *fstest.Entry) { e.Pieces = []fstest.Piece{{Data: []byte("gone"), Lost: true}} }),
	)
	first := m.manifest.Blobs.Add[0]
	key := remote.BlobKey("ann", first.Seq, first.SHA256)
	// The second data request is for what lies behind the first file.
	if got, err := os.ReadFile(m.path("a")); err != nil || !bytes.Equal(got, fstest.Noise(1, 300_000)) {
		t.Error(err)
	}
	m.faulty.Script(storetest.Fault{Op: storetest.OpGet, Key: key, Every: true, Kind: storetest.Flip, At: 70_000})
	for _, name := range []string{"b", "lost"} {
		if got, err := os.ReadFile(m.path(name)); !errors.Is(err, unix.EIO) || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := m.warned(); !errors.Is(err, remote.ErrCorrupt) || !errors.Is(err, fs.ErrLost) {
		t.Errorf("the reasons given: %v", err)
	}
	if got, err := os.ReadFile(m.path("a")); err != nil || !bytes.Equal(got, fstest.Noise(1, 300_000)) {
		t.Error("its neighbour:", err)
	}
	if diff := cmp.Diff([]string{"a", "b", "lost"}, names(t, m.Dir())); diff != "" {
		t.Error(diff)
	}
}

func TestRefreshOfOneSnapshotDoesNothing(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	if err := m.Refresh(context.Background()); err != nil {
		t.Error(err)
	}
}
