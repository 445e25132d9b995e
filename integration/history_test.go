package integration

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Two snapshots with all kinds of changes between them show their own state.
func TestEachSnapshotShowsItsOwnState(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	everyCase(t, src)
	write(t, filepath.Join(src, "edited"), "before")
	write(t, filepath.Join(src, "deleted"), "gone soon")
	write(t, filepath.Join(src, "becomes a folder"), "a file")
	write(t, filepath.Join(src, "becomes a file/inside"), "in a folder")
	write(t, filepath.Join(src, "old name/a/b"), "moves along")
	m.init(src)
	first, before := m.backup(), scan(t, src, Look{Holes: true, Root: true})

	write(t, filepath.Join(src, "edited"), "after, and longer")
	write(t, filepath.Join(src, "added/deep/down"), "new")
	must(t, os.Remove(filepath.Join(src, "deleted")))
	must(t, os.Remove(filepath.Join(src, "becomes a folder")))
	write(t, filepath.Join(src, "becomes a folder/inside"), "now in a folder")
	must(t, os.RemoveAll(filepath.Join(src, "becomes a file")))
	write(t, filepath.Join(src, "becomes a file"), "now a file")
	must(t, os.Rename(filepath.Join(src, "old name"), filepath.Join(src, "new name")))
	must(t, os.Remove(filepath.Join(src, "links/second")))
	must(t, os.Chmod(filepath.Join(src, "sizes/4096"), 0o600))
	second, after := m.backup(), scan(t, src, Look{Holes: true, Root: true})

	same(t, "the first snapshot", before, scan(t, filepath.Join(m.mount(first), src), Look{Holes: true, Root: true}))
	same(t, "the second snapshot", after, scan(t, filepath.Join(m.mount(second), src), Look{Holes: true, Root: true}))
	store := m.mount("")
	same(t, "the first in the store's mount", before, scan(t, filepath.Join(store, "snapshots", first, src), Look{Holes: true, Root: true}))
	same(t, "the second in the store's mount", after, scan(t, filepath.Join(store, "snapshots", second, src), Look{Holes: true, Root: true}))
}

// summary is what backup --json says last.
type summary struct {
	Type     string `json:"message_type"`
	Changed  int64  `json:"changed"`
	Read     int64  `json:"bytes_read"`
	Stored   int64  `json:"bytes_stored"`
	Metadata int64  `json:"bytes_metadata"`
	Blobs    int64  `json:"blobs"`
	Snapshot string `json:"snapshot"`
}

// summarise runs a backup that may be incomplete and returns what it says.
func (m *machine) summarise(wantExit int) summary {
	m.t.Helper()
	stdout, stderr, code := m.try("backup", "--json")
	if code != wantExit {
		m.t.Fatalf("backup: exit %d, want %d\n%s%s", code, wantExit, stdout, stderr)
	}
	return m.summary(stdout)
}

// summary finds the summary in what backup --json printed.
func (m *machine) summary(stdout string) (s summary) {
	m.t.Helper()
	for line := range strings.Lines(stdout) {
		var one summary
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			m.t.Fatalf("not JSON: %q: %v", line, err)
		}
		if one.Type == "summary" {
			s = one
		}
	}
	if s.Snapshot == "" {
		m.t.Fatalf("no summary in\n%s", stdout)
	}
	return s
}

// Backing up an unchanged tree again records, reads and uploads nothing.
func TestUnchangedCostsNothing(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	everyCase(t, src)
	m.init(src)
	settle()
	if first := m.summarise(0); first.Changed == 0 || first.Read == 0 || first.Blobs == 0 {
		t.Fatalf("the first backup did nothing: %+v", first)
	}
	again := m.summarise(0)
	if again.Read != 0 || again.Stored != 0 || again.Blobs != 0 {
		t.Errorf("an unchanged backup did something: %+v", again)
	}
	// The folders above the root are another matter: others write into /tmp.
	rows := tool(t, "sqlite3", m.state("index.db"), "SELECT count(*) FROM files WHERE first_run = 2 AND role <> 'implicit-parent'")
	if strings.TrimSpace(rows) != "0" {
		t.Errorf("an unchanged backup recorded %s entries anew", strings.TrimSpace(rows))
	}
}

// A folder that could not be read in one run is shown as unreadable, not as
// empty, and is not taken for deleted: the next run finds it unchanged.
func TestAnUnreadableFolderIsNeitherEmptyNorClosed(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	m.becomeNobody()
	src := filepath.Join(m.dir, "source")
	secret := filepath.Join(src, "secret")
	write(t, filepath.Join(secret, "sub/file"), "kept")
	write(t, filepath.Join(src, "open"), "always readable")
	m.own(src)
	m.init(src)
	settle()
	first := m.backup()

	must(t, os.Chmod(secret, 0))
	gap := m.summarise(3)
	must(t, os.Chmod(secret, 0o755))
	settle()
	third := m.summarise(0)
	if third.Read != 0 || third.Blobs != 0 {
		t.Errorf("what was hidden for one run was read again: %+v", third)
	}

	for _, id := range []string{first, third.Snapshot} {
		if out := m.look("cat", filepath.Join(m.mount(id), secret, "sub/file")); out != "kept" {
			t.Errorf("snapshot %s: %q", id, out)
		}
	}
	hidden := filepath.Join(m.mount(gap.Snapshot), secret)
	// What was recorded is a folder of mode 0, which nobody may enter; root is
	// not asked to, since the mount is nobody's. Through a second mount whose
	// user may, it is an error and not an empty folder.
	if out := m.look("ls", hidden); !strings.Contains(out, "Permission denied") && !strings.Contains(out, "Input/output error") {
		t.Errorf("listing the unreadable folder: %q, want an error", out)
	}
	if os.Geteuid() != 0 {
		return
	}
	m.as = nil
	hidden = filepath.Join(m.mount(gap.Snapshot), secret)
	if _, err := os.ReadDir(hidden); !errors.Is(err, syscall.EIO) {
		t.Errorf("listing the unreadable folder: %v, want EIO", err)
	}
	if _, err := os.Stat(filepath.Join(hidden, "sub")); !errors.Is(err, syscall.EIO) {
		t.Errorf("looking into the unreadable folder: %v, want EIO", err)
	}
}

// A set root that is not there, as when a disk is not mounted, is not a
// deletion; with no root at all there is no snapshot.
func TestAMissingRootIsNotADeletion(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	disk, home := filepath.Join(m.dir, "disk"), filepath.Join(m.dir, "home")
	write(t, filepath.Join(disk, "photos/1.jpg"), "a picture")
	write(t, filepath.Join(home, "letter"), "dear all")
	m.init(disk, home)
	settle()
	m.backup()

	away := filepath.Join(m.dir, "away")
	must(t, os.Rename(disk, away))
	gap := m.summarise(3)
	mnt := m.mount(gap.Snapshot)
	if _, err := os.ReadDir(filepath.Join(mnt, disk)); !errors.Is(err, syscall.EIO) {
		t.Errorf("listing the missing root: %v, want EIO", err)
	}
	if _, err := os.Stat(filepath.Join(mnt, home, "letter")); err != nil {
		t.Error(err)
	}

	must(t, os.Rename(away, disk))
	settle()
	back := m.summarise(0)
	if back.Read != 0 || back.Blobs != 0 {
		t.Errorf("the returned root was read again: %+v", back)
	}
	same(t, "the returned root", scan(t, disk, Look{Root: true}), scan(t, filepath.Join(m.mount(back.Snapshot), disk), Look{Root: true}))

	must(t, os.Rename(disk, away))
	must(t, os.RemoveAll(home))
	before := m.snapshots()
	m.fails(1, []string{"backup"}, "none of the set's paths")
	if d := cmp.Diff(before, m.snapshots()); d != "" {
		t.Errorf("a backup of nothing made a snapshot:\n%s", d)
	}
}

// An edit so soon after the backup read the file that its time stamps do not
// show it is found by the next run all the same.
func TestAnEditInTheSameTickIsFound(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	file := filepath.Join(src, "file")
	write(t, file, "first")
	write(t, filepath.Join(src, "old"), "untouched")
	m.init(src)
	info, err := os.Stat(file)
	must(t, err)
	m.backup()
	// Same size, same inode, and an mtime that was set back: only the ctime
	// could tell, and within its clock's tick it could not either.
	must(t, os.WriteFile(file, []byte("FIRST"), 0o644))
	must(t, os.Chtimes(file, info.ModTime(), info.ModTime()))
	id := m.backup()
	content, err := os.ReadFile(filepath.Join(m.mount(id), file))
	if err != nil || string(content) != "FIRST" {
		t.Errorf("the mount shows %q, %v", content, err)
	}
}
