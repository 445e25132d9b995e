package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a snapshot in a store that counts and can be made to fail, and a
// folder to restore it into.
type world struct {
	*fstest.World
	t        testing.TB
	counting *storetest.Counting
	faulty   *storetest.Faulty
	tree     *fs.Tree
	dir      string

	mu       sync.Mutex
	problems map[string]error // by path
}

func newWorld(t testing.TB, entries ...fstest.Entry) *world {
	t.Helper()
	w := &world{World: fstest.New(t), t: t, dir: filepath.Join(t.TempDir(), "to")}
	w.take(entries...)
	return w
}

// take makes another snapshot, which is the one to restore from then on.
func (w *world) take(entries ...fstest.Entry) {
	w.t.Helper()
	m := w.Snapshot("ann", "home", entries...)
	w.counting = storetest.NewCounting(w.Store)
	w.faulty = storetest.NewFaulty(w.counting)
	chunks := fs.NewChunks(w.faulty, []age.Identity{w.Identity}, fs.ChunkOptions{})
	tree := fs.NewTree(w.View(m), chunks)
	w.tree = tree
	w.t.Cleanup(func() {
		if err := errors.Join(tree.Close(), chunks.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.counting.Reset()
}

// run restores; options change what is usual.
func (w *world) run(ctx context.Context, options ...func(*Options)) (*Result, error) {
	w.problems = make(map[string]error)
	o := Options{
		Tree: w.tree, Target: w.dir, Temp: w.t.TempDir(), Root: os.Geteuid() == 0,
		Report: func(e Event) {
			if e.Problem == nil {
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.problems[e.Problem.Path] != nil {
				w.t.Errorf("%s is told twice: %v and %v", e.Problem.Path, w.problems[e.Problem.Path], e.Problem.Err)
			}
			w.problems[e.Problem.Path] = e.Problem.Err
		},
	}
	for _, f := range options {
		f(&o)
	}
	return Run(ctx, o)
}

// restore must go well.
func (w *world) restore(options ...func(*Options)) *Result {
	w.t.Helper()
	r, err := w.run(context.Background(), options...)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(w.problems) > 0 || r.Incomplete() {
		w.t.Fatalf("problems: %v, %+v", w.problems, r)
	}
	return r
}

// fails must restore all but what is named, each for its reason.
func (w *world) fails(want map[string]error, options ...func(*Options)) *Result {
	w.t.Helper()
	r, err := w.run(context.Background(), options...)
	if err != nil {
		w.t.Fatal(err)
	}
	for path, target := range want {
		if !errors.Is(w.problems[path], target) {
			w.t.Errorf("%s: %v, want %v", path, w.problems[path], target)
		}
		delete(w.problems, path)
	}
	if len(w.problems) > 0 {
		w.t.Errorf("more problems: %v", w.problems)
	}
	if !r.Incomplete() || r.Problems != int64(len(want)) {
		w.t.Errorf("%d problems, want %d", r.Problems, len(want))
	}
	return r
}

// files are what is below the folder: contents of files, targets of links, "/"
// for folders, and the type of all else.
func (w *world) files() map[string]string {
	w.t.Helper()
	return contentsOf(w.t, w.dir)
}

func contentsOf(t testing.TB, root string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		name, what := p[len(root)+1:], d.Type().String()
		switch {
		case d.IsDir():
			what = "/"
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what = string(data)
		case d.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			what = "-> " + target
		}
		found[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (w *world) want(want map[string]string) {
	w.t.Helper()
	if d := cmp.Diff(want, w.files()); d != "" {
		w.t.Errorf("(-want +got):\n%.4000s", d)
	}
}

func (w *world) put(path, content string) {
	w.t.Helper()
	path = filepath.Join(w.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stat(path string) unix.Stat_t {
	w.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(w.dir, path), &st); err != nil {
		w.t.Fatal(err)
	}
	return st
}

// root makes an entry one of the set's paths.
func root(e fstest.Entry) fstest.Entry {
	return e.With(func(e *fstest.Entry) { e.Role = metastore.RoleRoot })
}

// state makes an entry one of which not all was captured.
func state(e fstest.Entry, s metastore.State, errno int) fstest.Entry {
	return e.With(func(e *fstest.Entry) { e.State, e.Errno = s, errno })
}

func text(p, content string) fstest.Entry { return fstest.Regular(p, []byte(content)) }

func TestWhatWasNotCapturedIsToldAndNotMade(t *testing.T) {
	w := newWorld(t,
		text("/a/good", "good"),
		state(text("/a/unreadable", ""), metastore.StateUnreadable, int(unix.EIO)),
		state(text("/a/known size", "").With(func(e *fstest.Entry) { e.Size = 100 }), metastore.StateUnreadable, int(unix.EACCES)),
		state(fstest.Dir("/a/closed"), metastore.StateUnreadable, int(unix.EACCES)),
		state(fstest.Dir("/a/mounted"), metastore.StateOtherFS, 0),
		state(text("/a/changed", "half and half"), metastore.StateChanged, 0),
		fstest.Regular("/a/lost", nil).With(func(e *fstest.Entry) {
			e.Pieces = []fstest.Piece{{Data: []byte("there")}, {Data: []byte("gone"), Lost: true}}
		}))
	w.fails(map[string]error{
		"/a/unreadable": fs.ErrNotCaptured, "/a/known size": unix.EACCES, "/a/closed": fs.ErrNotCaptured, "/a/lost": fs.ErrLost,
	})
	w.want(map[string]string{"a": "/", "a/good": "good", "a/mounted": "/", "a/changed": "half and half"})
}

func TestAPathOfASnapshot(t *testing.T) {
	w := newWorld(t, text("/home/ann/doc/letter", "dear"), fstest.Symlink("/home/ann/link", "doc"), root(fstest.Dir("/home/ann")))
	for _, c := range []struct {
		path string
		want map[string]string
	}{
		{"", map[string]string{"home": "/", "home/ann": "/", "home/ann/doc": "/", "home/ann/doc/letter": "dear", "home/ann/link": "-> doc"}},
		{"/home/ann", map[string]string{"doc": "/", "doc/letter": "dear", "link": "-> doc"}},
		{"home//ann/doc/", map[string]string{"letter": "dear"}},
		{"/home/ann/doc/letter", map[string]string{"letter": "dear"}},
		{"/home/ann/link", map[string]string{"link": "-> doc"}},
	} {
		w.dir = filepath.Join(t.TempDir(), "new", "folder")
		w.restore(func(o *Options) { o.Path = c.path })
		w.want(c.want)
	}
	for path, words := range map[string]string{
		"/home/bob":        `has no "/home/bob"`,
		"/home/ann/link/x": `"/home/ann/link" is no folder`,
		"/home/ann/..":     `has no "/home/ann/.."`,
	} {
		_, err := w.run(t.Context(), func(o *Options) { o.Path = path })
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %s", path, err, words)
		}
	}
}

// Another restore would take this one's temporary files for litter.
func TestTwoRestoresDoNotShareAFolder(t *testing.T) {
	w := newWorld(t, text("/a", "a"))
	w.restore()
	other, err := os.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if _, err := w.run(t.Context()); !errors.Is(err, disk.ErrBusy) {
		t.Errorf("error %v, want %v", err, disk.ErrBusy)
	}
	if _, err := w.run(t.Context(), func(o *Options) { o.DryRun = true }); err != nil {
		t.Errorf("to look costs nothing: %v", err)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	w := newWorld(t, root(fstest.Dir("/")), text("/a/new", "new"), text("/b", "other"), fstest.Symlink("/l", "b"))
	w.put("b", "mine")
	w.put("extra/x", "12345")
	before := w.files()
	var actions []string
	r := w.restore(func(o *Options) {
		o.DryRun, o.Delete = true, true
		o.Report = func(e Event) {
			if e.Action != nil {
				actions = append(actions, e.Action.Kind+" "+e.Action.Path)
			}
		}
	})
	w.want(before)
	want := []string{"replace b", "make l", "delete extra/x", "delete extra", "make a", "make a/new"}
	if d := cmp.Diff(want, actions); d != "" {
		t.Errorf("actions (-want +got):\n%s", d)
	}
	counts := Counts{Directories: 1, Files: 2, Symlinks: 1, Bytes: 8}
	if d := cmp.Diff(counts, r.Planned); d != "" || r.Doomed != 2 || r.Done != (Counts{}) || r.Blobs != 1 || r.BlobBytes == 0 {
		t.Errorf("result %+v\n%s", r, d)
	}
	if n := w.counting.Count(storetest.OpGet).Calls; n != 0 {
		t.Errorf("%d requests", n)
	}
}

// What the store cannot give concerns the files that need it.
func TestAStoreThatIsAwayEndsIt(t *testing.T) {
	w := newWorld(t, text("/a", "a"))
	w.faulty.Script(storetest.Fault{Op: storetest.OpGet, Every: true, Kind: storetest.Fail, Err: fmt.Errorf("down: %w", remote.ErrNoStore)})
	if _, err := w.run(t.Context()); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("error %v, want %v", err, remote.ErrNoStore)
	}
	w.want(map[string]string{})
	w.faulty.Script()
	w.restore()
	w.want(map[string]string{"a": "a"})
}
