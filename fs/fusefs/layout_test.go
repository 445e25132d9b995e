package fusefs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func mountStore(t testing.TB, w *fstest.World, o Options) (*Mount, *storetest.Counting) {
	t.Helper()
	counting := storetest.NewCounting(w.Store)
	return mountStoreOver(t, w, counting, o), counting
}

func mountStoreOver(t testing.TB, w *fstest.World, s remote.Store, o Options) *Mount {
	t.Helper()
	needFuse(t)
	c, err := fs.NewCatalog(fs.CatalogOptions{Store: s, Root: w.Root.Public(), Identities: []age.Identity{w.Identity}, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.Refresh = -1 // tests say when
	m, err := MountCatalog(t.TempDir(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmount(t, m)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func hello(text string) []fstest.Entry {
	return []fstest.Entry{fstest.Dir("/").With(func(e *fstest.Entry) { e.Mode = 0o711 }), fstest.Regular("/hello", []byte(text))}
}

// shape lists what lies above the snapshots, with the targets of links.
func shape(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		switch {
		case e.Type() == os.ModeSymlink:
			target, err := os.Readlink(path)
			out = append(out, name+" -> "+target)
			return err
		case filepath.Base(filepath.Dir(path)) == "snapshots":
			out = append(out, name+"/")
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func content(t testing.TB, path string) string {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(got)
}

func TestAStoreOfOneWriterShowsSnapshotsSetsAndLatest(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	w.Snapshot("ann", "etc", hello("2")...)
	w.Snapshot("ann", "home", hello("3")...)
	m, _ := mountStore(t, w, Options{})
	want := []string{
		"/latest -> snapshots/ann-20261124-051022Z",
		"/sets/etc/2026-11-24T04-10-22Z -> ../../snapshots/ann-20261124-041022Z",
		"/sets/etc/latest -> 2026-11-24T04-10-22Z",
		"/sets/home/2026-11-24T03-10-22Z -> ../../snapshots/ann-20261124-031022Z",
		"/sets/home/2026-11-24T05-10-22Z -> ../../snapshots/ann-20261124-051022Z",
		"/sets/home/latest -> 2026-11-24T05-10-22Z",
		"/snapshots/ann-20261124-031022Z/", "/snapshots/ann-20261124-041022Z/", "/snapshots/ann-20261124-051022Z/",
	}
	if diff := cmp.Diff(want, shape(t, m.Dir())); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string]string{
		"latest": "3", "sets/etc/latest": "2", "sets/home/2026-11-24T03-10-22Z": "1", "snapshots/ann-20261124-041022Z": "2",
	} {
		if got := content(t, filepath.Join(m.Dir(), path, "hello")); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	inodes := make(map[uint64]bool)
	for _, id := range names(t, filepath.Join(m.Dir(), "snapshots")) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(m.Dir(), "snapshots", id, "hello"), &st); err != nil || inodes[st.Ino] {
			t.Errorf("files of several snapshots have one inode, or %v", err)
		}
		inodes[st.Ino] = true
	}
}

func TestSeveralWritersAreApart(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("ann")...)
	w.Snapshot("bob", "home", hello("bob")...)
	m, _ := mountStore(t, w, Options{})
	want := []string{
		"/writers/ann/latest -> snapshots/ann-20261124-031022Z",
		"/writers/ann/sets/home/2026-11-24T03-10-22Z -> ../../snapshots/ann-20261124-031022Z",
		"/writers/ann/sets/home/latest -> 2026-11-24T03-10-22Z",
		"/writers/ann/snapshots/ann-20261124-031022Z/",
		"/writers/bob/latest -> snapshots/bob-20261124-041022Z",
		"/writers/bob/sets/home/2026-11-24T04-10-22Z -> ../../snapshots/bob-20261124-041022Z",
		"/writers/bob/sets/home/latest -> 2026-11-24T04-10-22Z",
		"/writers/bob/snapshots/bob-20261124-041022Z/",
	}
	if diff := cmp.Diff(want, shape(t, m.Dir())); diff != "" {
		t.Error(diff)
	}
	if got := content(t, filepath.Join(m.Dir(), "writers/bob/latest/hello")); got != "bob" {
		t.Errorf("got %q", got)
	}
}

func TestSnapshotsAppearAndDisappear(t *testing.T) {
	w := fstest.New(t)
	m, _ := mountStore(t, w, Options{})
	in := func(parts ...string) string { return filepath.Join(append([]string{m.Dir()}, parts...)...) }
	refresh := func() {
		t.Helper()
		if err := m.Refresh(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, m.Dir()); len(got) != 0 {
		t.Error("an empty store shows", got)
	}
	first := w.Snapshot("ann", "home", hello("1")...)
	const one, two = "ann-20261124-031022Z", "ann-20261124-041022Z"
	if _, err := os.Stat(in("latest")); !errors.Is(err, os.ErrNotExist) {
		t.Error("before the refresh:", err)
	}
	refresh()
	if diff := cmp.Diff([]string{"latest", "sets", "snapshots"}, names(t, m.Dir())); diff != "" {
		t.Error(diff)
	}
	if got := content(t, in("latest", "hello")); got != "1" {
		t.Errorf("latest: %q", got)
	}
	if _, err := os.Stat(in("snapshots", two)); !errors.Is(err, os.ErrNotExist) { // the absence is cached
		t.Error(err)
	}
	inside, err := os.Open(in("snapshots", one))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()

	w.Snapshot("ann", "home", hello("2")...)
	refresh()
	if diff := cmp.Diff([]string{one, two}, names(t, in("snapshots"))); diff != "" {
		t.Error(diff)
	}
	if got := content(t, in("latest", "hello")); got != "2" {
		t.Errorf("latest: %q", got)
	}

	w.Forget(first)
	refresh()
	if diff := cmp.Diff([]string{two}, names(t, in("snapshots"))); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(in("snapshots", one)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a forgotten snapshot:", err)
	}
	if got, err := inside.Readdirnames(-1); err != nil || len(got) != 1 {
		t.Error("for who is inside:", got, err)
	}

	// Nobody asked for this name before, and the listing is cached.
	w.Snapshot("ann", "home", hello("3")...)
	refresh()
	if diff := cmp.Diff([]string{two, "ann-20261124-051022Z"}, names(t, in("snapshots"))); diff != "" {
		t.Error(diff)
	}

	// A writer that comes later moves nothing.
	w.Snapshot("bob", "home", hello("bob")...)
	refresh()
	if got := content(t, in("latest", "hello")); got != "3" {
		t.Errorf("latest: %q", got)
	}
	if got := content(t, in("writers", "bob", "latest", "hello")); got != "bob" {
		t.Errorf("the new writer: %q", got)
	}
}

func TestASnapshotIsLoadedWhenSomebodyLooksInside(t *testing.T) {
	w := fstest.New(t)
	first := hello("1")
	first[0] = first[0].Xattr("user.of", "the root")
	w.Snapshot("ann", "home", first...)
	w.Snapshot("ann", "home", hello("2")...)
	m, counting := mountStore(t, w, Options{})
	dumps := func() (n int) {
		for _, key := range counting.KeysRead() {
			if k, err := remote.ParseKey(key); err == nil && k.Kind == remote.KindDump {
				n++
			}
		}
		return n
	}
	describeTop := func() {
		for _, id := range names(t, filepath.Join(m.Dir(), "snapshots")) {
			dir := filepath.Join(m.Dir(), "snapshots", id)
			if i, err := os.Stat(dir); err != nil || !i.IsDir() {
				t.Error(id, err)
			}
			if _, err := xattrsOf(dir); err != nil {
				t.Error(id, err)
			}
			if _, err := unix.Lgetxattr(dir, "system.posix_acl_access", nil); !errors.Is(err, unix.ENODATA) {
				t.Error(id, err)
			}
			var st unix.Statx_t
			if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st); err != nil {
				t.Error(id, err)
			}
		}
	}
	describeTop()
	if n := dumps(); n != 0 {
		t.Errorf("ls -l of the folder of snapshots loaded %d of them", n)
	}
	one := filepath.Join(m.Dir(), "snapshots", "ann-20261124-031022Z")
	if got := content(t, filepath.Join(one, "hello")); got != "1" {
		t.Errorf("got %q", got)
	}
	describeTop()
	if n := dumps(); n != 1 {
		t.Errorf("%d are loaded after looking into one", n)
	}
	if i, err := os.Stat(one); err != nil || i.Mode().Perm() != 0o711 || !i.ModTime().Equal(fstest.When.Time()) {
		t.Errorf(`the "/" of the snapshot: %v %v %v`, i.Mode(), i.ModTime(), err)
	}
	if x, err := xattrsOf(one); err != nil || x != ` user.of="the root"` {
		t.Errorf("its extended attributes: %s %v", x, err)
	}
}

func TestASnapshotThatCannotBeLoadedFailsAlone(t *testing.T) {
	w := fstest.New(t)
	bad := w.Snapshot("ann", "home", hello("1")...)
	w.Snapshot("ann", "home", hello("2")...)
	if err := w.Store.Delete(t.Context(), remote.DumpKey("ann", bad.Seq, bad.Dumps[0].SHA256)); err != nil {
		t.Fatal(err)
	}
	var told error
	m, _ := mountStore(t, w, Options{Warn: func(err error) { told = errors.Join(told, err) }})
	if _, err := os.ReadDir(filepath.Join(m.Dir(), "snapshots", "ann-20261124-031022Z")); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if got := content(t, filepath.Join(m.Dir(), "latest", "hello")); got != "2" {
		t.Errorf("got %q", got)
	}
	unmount(t, m)
	if told == nil || !strings.Contains(told.Error(), "ann-20261124-031022Z") {
		t.Error("the reason given:", told)
	}
}

func TestWhoWaitsForASnapshotToLoadCanGiveUp(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	faulty := storetest.NewFaulty(w.Store)
	gate := storetest.NewGate(t)
	faulty.OnCall = func(_ int, op, key string) {
		if op == storetest.OpGet && strings.HasSuffix(key, ".age") {
			gate.Pass()
		}
	}
	m := mountStoreOver(t, w, faulty, Options{})
	t.Cleanup(gate.Open) // before the mount goes
	one := filepath.Join(m.Dir(), "latest", "hello")
	c := exec.Command("cat", one)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	gate.Await(t)
	if err := c.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil { // the store is still held back
		t.Error("it was killed, and ended well")
	}
	gate.Open()
	if got := content(t, one); got != "1" {
		t.Errorf("got %q", got)
	}
}
