package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

func TestPatternsPickWhatIsRestored(t *testing.T) {
	tree := []fstest.Entry{
		root(fstest.Dir("/home/ann")), text("/home/ann/a.o", ""), text("/home/ann/keep.o", ""), text("/home/ann/doc/a.txt", ""),
		text("/home/ann/x/doc/b.txt", ""), fstest.Dir("/home/ann/empty"), root(fstest.Dir("/etc")), text("/etc/ssh/config", ""),
	}
	// Of all that is restored, what is no folder above something else.
	for _, c := range []struct{ path, include, exclude, want string }{
		{"", "", "", "etc/ssh/config home/ann/a.o home/ann/doc/a.txt home/ann/empty home/ann/keep.o home/ann/x/doc/b.txt"},
		{"", "", "*.o", "etc/ssh/config home/ann/doc/a.txt home/ann/empty home/ann/x/doc/b.txt"},
		{"", "", "*.o !keep.o", "etc/ssh/config home/ann/doc/a.txt home/ann/empty home/ann/keep.o home/ann/x/doc/b.txt"},
		{"", "", "/home", "etc/ssh/config"},
		{"", "", "/etc", "home/ann/a.o home/ann/doc/a.txt home/ann/empty home/ann/keep.o home/ann/x/doc/b.txt"},
		{"", "*.txt", "", "home/ann/doc/a.txt home/ann/x/doc/b.txt"},
		{"", "/etc", "", "etc/ssh/config"},
		{"", "doc/", "", "home/ann/doc/a.txt home/ann/x/doc/b.txt"},
		{"", "doc/ !b.txt", "", "home/ann/doc/a.txt home/ann/x/doc"},
		{"", "doc/*.txt", "", "home/ann/doc/a.txt"},
		{"", "*.o", "keep.o", "home/ann/a.o"},
		{"", "/home/ann/x", "", "home/ann/x/doc/b.txt"},
		{"", "nothing", "", ""},
		{"/home/ann", "", "/doc", "a.o empty keep.o x/doc/b.txt"},
		{"/home/ann", "/home/ann/doc", "", "doc/a.txt"},
		{"/home", "ann", "", "ann/a.o ann/doc/a.txt ann/empty ann/keep.o ann/x/doc/b.txt"},
	} {
		w := newWorld(t, tree...)
		w.restore(func(o *Options) {
			o.Path, o.Include, o.Exclude = c.path, strings.Fields(c.include), strings.Fields(c.exclude)
		})
		var got []string
		files := w.files()
		for p := range files {
			above := false
			for q := range files {
				above = above || strings.HasPrefix(q, p+"/")
			}
			if !above {
				got = append(got, p)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s, include %q, exclude %q:\n%s, want\n%s", c.path, c.include, c.exclude, strings.Join(got, " "), c.want)
		}
	}
	w := newWorld(t, tree...)
	if _, err := w.run(t.Context(), func(o *Options) { o.Include = []string{"["} }); err == nil {
		t.Error("a pattern that is none passes")
	}
}

// Deleting stays within what the backup saw.
func TestDeletingStaysWithinTheBackup(t *testing.T) {
	w := newWorld(t,
		root(fstest.Dir("/home/ann")), text("/home/ann/kept", "kept"), fstest.Dir("/home/ann/doc"), text("/home/ann/doc/a", "a"),
		state(fstest.Dir("/home/ann/mounted"), metastore.StateOtherFS, 0),
		state(fstest.Dir("/home/ann/cache"), metastore.StateCacheDir, 0),
		state(fstest.Dir("/home/ann/unreadable"), metastore.StateUnreadable, 13))
	extra := []string{
		"other", "home/bob/x", // beside the set's path
		"home/ann/mounted/x", "home/ann/cache/x", "home/ann/unreadable/x", // where the backup did not look
		"home/ann/left.out", "home/ann/doc/left.out", // as the restore is told
		"home/ann/large",                           // as the backup was told
		"home/ann/own/x/y",                         // vaultik's
		"home/ann/gone", "home/ann/doc/gone/x/y/z", // gone since
		"home/ann/half/gone", "home/ann/half/a.out", // a folder of both
	}
	for _, p := range extra {
		w.put(p, "extra")
	}
	w.put("home/ann/large", strings.Repeat("x", 1000))
	asked := Deletion{}
	option := func(o *Options) {
		o.Delete, o.Exclude, o.LargerThan = true, []string{"left.out", "a.out"}, 999
		o.Keep = []string{filepath.Join(w.dir, "home/ann/own")}
		o.Confirm = func(_ context.Context, d Deletion) (bool, error) { asked = d; return false, nil }
	}
	before := w.files()
	if _, err := w.run(t.Context(), option); !errors.Is(err, ErrDeclined) {
		t.Fatalf("error %v, want %v", err, ErrDeclined)
	}
	w.want(before)
	if asked.Entries != 6 || asked.Bytes != 15 || len(asked.Paths) != 6 {
		t.Errorf("asked about %+v", asked)
	}
	r := w.fails(map[string]error{"/home/ann/unreadable": fs.ErrNotCaptured}, option, func(o *Options) { o.Confirm = nil })
	if r.Deleted != 6 {
		t.Errorf("%d deleted", r.Deleted)
	}
	got := w.files()
	for _, p := range extra {
		_, there := got[p]
		if gone := strings.Contains(p, "gone"); gone == there {
			t.Errorf("%s: there %t", p, there)
		}
	}
	if got["home/ann/doc/gone"] != "" {
		t.Error("a folder that is gone is still there")
	}
}

// More names than are held in memory are looked up one by one.
func TestALargeFolderIsCompared(t *testing.T) {
	w := newWorld(t, root(fstest.Dir("/")), text("/a", "a"))
	for i := range namesMax + 10 {
		if i == 0 {
			w.put("x", "")
		}
		if err := os.Link(filepath.Join(w.dir, "x"), filepath.Join(w.dir, fmt.Sprint("x", i))); err != nil {
			t.Fatal(err)
		}
	}
	w.put(".vaultik-restore-01234567-8", "half")
	r := w.restore(func(o *Options) { o.Exclude, o.Delete = []string{"x5*"}, true })
	if r.Deleted == 0 {
		t.Error("nothing was deleted")
	}
	for p := range w.files() {
		if p != "a" && !strings.HasPrefix(p, "x5") {
			t.Errorf("%s is still there", p)
		}
	}
	if len(w.files()) < 100 {
		t.Error("what was left out was deleted")
	}
}
