package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// A link in the target, for a folder or for a file, never leads elsewhere.
func TestLinksInTheTargetAreNotFollowed(t *testing.T) {
	for _, overwrite := range []Overwrite{IfChanged, Always, IfNewer, Never} {
		w := newWorld(t, root(fstest.Dir("/")), fstest.Dir("/etc"), fstest.Dir("/etc/deep"), text("/etc/passwd", "restored"), text("/etc/deep/x", "restored"), text("/file", "restored"))
		outside := t.TempDir()
		victim := filepath.Join(outside, "passwd")
		if err := os.WriteFile(victim, []byte("outside"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, target := range map[string]string{"etc": outside, "file": victim} {
			if err := os.Symlink(target, filepath.Join(w.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		r, err := w.run(t.Context(), func(o *Options) { o.Overwrite, o.Delete = overwrite, true })
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"passwd": "outside"}, contentsOf(t, outside)); d != "" {
			t.Errorf("%s: outside (-want +got):\n%s", overwrite, d)
		}
		want := map[string]string{"etc": "/", "etc/passwd": "restored", "etc/deep": "/", "etc/deep/x": "restored", "file": "restored"}
		if overwrite == Never || overwrite == IfNewer { // the links were made just now
			want = map[string]string{"etc": "-> " + outside, "file": "-> " + victim}
			if w.problems["/etc"] == nil || r.Kept != 1 {
				t.Errorf("%s: problems %v, %d kept", overwrite, w.problems, r.Kept)
			}
		}
		w.want(want)
	}
}

// What leads to the set's paths is not replaced either: it may be there for a
// reason.
func TestAWayThatIsALinkIsLeftAlone(t *testing.T) {
	w := newWorld(t, text("/home/ann/x", "x"), root(fstest.Dir("/home/ann")))
	outside := t.TempDir()
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(w.dir, "home")); err != nil {
		t.Fatal(err)
	}
	r, err := w.run(t.Context(), func(o *Options) { o.Overwrite = Always })
	if err != nil || w.problems["/home"] == nil || r.Done != (Counts{}) {
		t.Errorf("%v, %v, %+v", err, w.problems, r)
	}
	w.want(map[string]string{"home": "-> " + outside})
	if got := contentsOf(t, outside); len(got) != 0 {
		t.Errorf("outside: %v", got)
	}
}

// So is a link that the backup met on the way, whatever is in its place.
func TestALinkOnTheWayIsLeftAlone(t *testing.T) {
	w := newWorld(t, fstest.Symlink("/home", "data/home").With(func(e *fstest.Entry) { e.Role = metastore.RoleParent }),
		root(fstest.Dir("/data/home/ann")), text("/data/home/ann/x", "x"))
	w.put("home/mine", "mine")
	w.restore(func(o *Options) { o.Overwrite, o.Delete = Always, true })
	w.want(map[string]string{"home": "/", "home/mine": "mine", "data": "/", "data/home": "/", "data/home/ann": "/", "data/home/ann/x": "x"})
	w.dir += " new"
	w.restore()
	w.want(map[string]string{"home": "-> data/home", "data": "/", "data/home": "/", "data/home/ann": "/", "data/home/ann/x": "x"})
}

// An attacker in the target replaces folders by links all the time.
func TestNobodyIsLedOutsideByRaces(t *testing.T) {
	var tree []fstest.Entry
	for i := range 300 {
		tree = append(tree, text(fmt.Sprintf("/d/%03d/file", i), "restored"))
	}
	w := newWorld(t, append(tree, root(fstest.Dir("/")))...)
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(w.dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan int)
	go func() {
		swaps := 0
		defer func() { ended <- swaps }()
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			name := filepath.Join(w.dir, "d", fmt.Sprintf("%03d", i%300))
			if os.Rename(name, name+".away") == nil || os.Remove(name) == nil {
				swaps++
			}
			_ = os.Symlink(outside, name) // often it is there already
		}
	}()
	for range 5 {
		if _, err := w.run(t.Context(), func(o *Options) { o.Overwrite = Always }); err != nil {
			t.Error(err)
		}
	}
	close(done)
	if swaps := <-ended; swaps == 0 {
		t.Error("the attacker did nothing")
	}
	if got := contentsOf(t, outside); len(got) != 0 {
		t.Errorf("outside: %v", got)
	}
}

func TestOverwrite(t *testing.T) {
	// Every file is there with other content; its name says how it differs.
	differs := map[string]func(*metastore.Time){
		"same":  func(*metastore.Time) {},
		"older": func(m *metastore.Time) { m.Sec-- }, // in the target
		"newer": func(m *metastore.Time) { m.Nsec++ },
	}
	for overwrite, replaced := range map[Overwrite][]string{
		Always:    {"newer", "older", "same", "size"},
		IfChanged: {"newer", "older", "size"},
		IfNewer:   {"older"},
		Never:     nil,
	} {
		w := newWorld(t, text("/same", "theirs"), text("/older", "theirs"), text("/newer", "theirs"), text("/size", "theirs"), text("/missing", "theirs"))
		for name, change := range differs {
			w.put(name, "mine!!")
			when := fstest.When
			change(&when)
			setTime(t, filepath.Join(w.dir, name), when)
		}
		w.put("size", "mine")
		setTime(t, filepath.Join(w.dir, "size"), fstest.When)
		want := map[string]string{"same": "mine!!", "older": "mine!!", "newer": "mine!!", "size": "mine", "missing": "theirs"}
		for _, name := range replaced {
			want[name] = "theirs"
		}
		r := w.restore(func(o *Options) { o.Overwrite = overwrite })
		w.want(want)
		if r.Done.Files != int64(len(replaced))+1 || r.Done.Files+r.Kept+r.Same != 5+1 { // the folder is the same
			t.Errorf("%s: %+v", overwrite, r)
		}
	}
}

func setTime(t *testing.T, path string, when metastore.Time) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, when.Time()); err != nil {
		t.Fatal(err)
	}
}

// Names of one inode are restored as such also if one of them is there, right
// or wrong, or is left out.
func TestFurtherNames(t *testing.T) {
	name := func(p string) fstest.Entry {
		return text(p, "content").With(func(e *fstest.Entry) { e.Nlink, e.Inode = 4, 7 })
	}
	tree := []fstest.Entry{root(fstest.Dir("/")), name("/a"), name("/b"), name("/c"), name("/d/e")}
	for what, c := range map[string]struct {
		before  func(*world)
		option  func(*Options)
		linked  []string
		another []string
	}{
		"all new":           {linked: []string{"a", "b", "c", "d/e"}},
		"first left out":    {option: func(o *Options) { o.Exclude = []string{"/a"} }, linked: []string{"b", "c", "d/e"}},
		"a part":            {option: func(o *Options) { o.Path = "/d" }, linked: []string{"e"}},
		"first edited":      {before: func(w *world) { w.put("a", "mine") }, linked: []string{"a", "b", "c", "d/e"}},
		"first edited kept": {before: func(w *world) { w.put("a", "mine") }, option: func(o *Options) { o.Overwrite = Never }, linked: []string{"b", "c", "d/e"}, another: []string{"a"}},
		"a copy": {before: func(w *world) {
			w.put("c", "content")
			setTime(w.t.(*testing.T), filepath.Join(w.dir, "c"), fstest.When)
		}, linked: []string{"a", "b", "c", "d/e"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, tree...)
			if c.before != nil {
				c.before(w)
			}
			for range 2 { // the second run finds all as it should be
				w.restore(func(o *Options) {
					if c.option != nil {
						c.option(o)
					}
				})
			}
			ino := w.stat(c.linked[0]).Ino
			for _, p := range c.linked {
				if st := w.stat(p); st.Ino != ino || int(st.Nlink) != len(c.linked) {
					t.Errorf("%s is inode %d of %d names, want %d of %d", p, st.Ino, st.Nlink, ino, len(c.linked))
				}
			}
			for _, p := range c.another {
				if w.stat(p).Ino == ino {
					t.Errorf("%s is linked", p)
				}
			}
		})
	}
}

// A folder for a file, with something in it, is told, and deleted only if that
// was asked for.
func TestAFolderInAFilesPlace(t *testing.T) {
	w := newWorld(t, root(fstest.Dir("/")), text("/a", "a"), text("/b", "b"))
	w.put("a/mine", "mine")
	if err := os.Mkdir(filepath.Join(w.dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.fails(map[string]error{"/a": unix.ENOTEMPTY})
	w.want(map[string]string{"a": "/", "a/mine": "mine", "b": "b"})
	w.restore(func(o *Options) { o.Delete = true })
	w.want(map[string]string{"a": "a", "b": "b"})
}

// What is made in a folder that was there does not take over its group or ACL.
func TestNothingIsInheritedFromTheTarget(t *testing.T) {
	w := newWorld(t, text("/new/file", "file"), text("/file", "file"), fstest.Dir("/new/deeper"))
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(w.dir, 0o2755); err != nil {
		t.Fatal(err)
	}
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 210, 4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255}
	if err := unix.Setxattr(w.dir, "system.posix_acl_default", acl, 0); err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("the file system has no ACLs")
		}
		t.Fatal(err)
	}
	w.restore()
	for path, mode := range map[string]uint32{"new": 0o755, "new/file": 0o644, "file": 0o644, "new/deeper": 0o755} {
		if st := w.stat(path); st.Mode&0o7777 != mode {
			t.Errorf("%s has mode %04o, want %04o", path, st.Mode&0o7777, mode)
		}
		if n, err := unix.Listxattr(filepath.Join(w.dir, path), make([]byte, 1000)); err != nil || n != 0 {
			t.Errorf("%s has attributes: %d bytes, %v", path, n, err)
		}
	}
}
