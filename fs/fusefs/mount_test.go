package fusefs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

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

func TestAMountHasASourceAndRunsNoProgramsIfToldSo(t *testing.T) {
	m := mountSnapshot(t, Options{Source: "file:///srv/a, b", NoExec: true}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); fields[1] == m.Dir() {
			if fields[0] != `file:///srv/a,\040b` || !slices.Contains(strings.Split(fields[3], ","), "noexec") {
				t.Errorf("the mount table says %s", line)
			}
			return
		}
	}
	t.Error("it is not in the mount table")
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
		m.Dir(): mountpoint.ErrMounted, link: mountpoint.ErrMounted,
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
	if mounted, err := mountpoint.Mounted(m.Dir()); mounted || err != nil {
		t.Error("it is still mounted:", mounted, err)
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

// unmounting unmounts a mount as soon as the kernel and the server know each
// other.
type unmounting struct {
	fuse.RawFileSystem
	dir string
}

func (u *unmounting) Init(s *fuse.Server) {
	u.RawFileSystem.Init(s)
	_ = unix.Unmount(u.dir, unix.MNT_DETACH)
}

func TestAMountThatIsUnmountedAtOnceWasOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root unmounts without a helper")
	}
	for range 30 {
		dir := t.TempDir()
		m := mountOnto(t, dir, Options{wrap: func(f fuse.RawFileSystem) fuse.RawFileSystem { return &unmounting{f, dir} }},
			fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
		if err := m.Wait(); err != nil {
			t.Error(err)
		}
	}
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
