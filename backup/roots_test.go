package backup

import (
	"errors"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/scan"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
)

func TestAMissingRootStaysAsItWas(t *testing.T) {
	w := newWorld(t, home(), "/home/ann", "/home/bob")
	w.backup()
	bob := home()
	w.source.remove("/home/bob")
	r := w.backup()
	same(t, "problems", []string{"unreadable /home/bob"}, kinds(r))
	if got := w.shows(r.Seq)["/home/bob"]; got != "d (unreadable)" {
		t.Errorf("the missing root is shown as %q", got)
	}
	for p, n := range bob {
		if strings.HasPrefix(p, "/home/bob/") {
			w.source.set(p, n)
		}
	}
	w.source.remove("/home/ann")
	w.source.remove("/home/bob")
	if _, err := w.try(); !errors.Is(err, scan.ErrNoRoots) {
		t.Errorf("without any root: %v, want ErrNoRoots", err)
	}
	same(t, "runs in the store", []remote.Seq{1, 2}, seqs(w))
}

func TestARootBehindALinkIsFollowedAndTheLinkKept(t *testing.T) {
	tree := home()
	tree["/data"] = node{Type: metastore.Symlink, Target: "home/ann", Time: 1000}
	w := newWorld(t, tree, "/data")
	r := w.backup()
	want := map[string]string{"/data": "-> home/ann"}
	for p, text := range shown() {
		if p == "/home" || strings.HasPrefix(p, "/home/ann") {
			want[p] = text
		}
	}
	same(t, "the snapshot", want, w.shows(r.Seq))
}

func TestRulesLeaveOut(t *testing.T) {
	tree := home()
	tree["/home/ann/cache/CACHEDIR.TAG"] = node{Content: "Signature: 8a477f597d28d172789f06886806bc55" + "\n", Time: 1000}
	tree["/home/ann/cache/junk"] = node{Content: "junk", Time: 1000}
	tree["/home/ann/src/a.o"] = node{Content: "object", Time: 1000}
	tree["/home/ann/src/a.c"] = node{Content: "source", Time: 1000}
	tree["/home/ann/skip/.nobackup"] = node{Type: metastore.Regular, Time: 1000}
	tree["/home/ann/skip/secret"] = node{Content: "secret", Time: 1000}
	tree["/home/ann/big"] = node{Content: strings.Repeat("x", 200_000), Time: 1000}
	tree["/home/mnt/disk"] = node{Dev: 2, Time: 1000}
	tree["/home/mnt/disk/file"] = node{Content: "elsewhere", Dev: 2, Time: 1000}
	w := newWorld(t, tree)
	all := w.backup()
	w.set.Rules = exclude.Rules{
		Patterns: []string{"*.o"}, CacheDirs: true, IfPresent: []string{".nobackup"}, LargerThan: 100_000, OneFileSystem: true,
		Always: []string{"/home/bob"},
	}
	r := w.backup()
	want := with(shown(), map[string]string{
		"/home/ann/cache": "d (cachedir)", "/home/ann/cache/CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55" + "\n",
		"/home/ann/src": "d", "/home/ann/src/a.c": "source",
		"/home/ann/skip": "d (excluded)", "/home/ann/skip/.nobackup": "",
		"/home/mnt": "d", "/home/mnt/disk": "d (other-fs)", "/home/bob": "d (excluded)",
	})
	delete(want, "/home/bob/empty")
	delete(want, "/home/bob/pipe")
	same(t, "with rules", want, w.shows(r.Seq))
	if got := w.shows(all.Seq)["/home/ann/src/a.o"]; got != "object" {
		t.Errorf("the snapshot before the rules lost a.o: %q", got)
	}
	w.set.Rules = exclude.Rules{}
	same(t, "without rules again", w.shows(all.Seq), w.shows(w.backup().Seq))
}

// A root that the rules would leave out is a root all the same: the set names
// it.
func TestANamedPathIsStrongerThanTheRules(t *testing.T) {
	tree := home()
	tree["/home/ann/src/keep/file"] = node{Content: "kept", Time: 1000}
	tree["/home/ann/src/drop"] = node{Content: "dropped", Time: 1000}
	w := newWorld(t, tree, "/home", "/home/ann/src/keep")
	w.set.Rules.Patterns = []string{"src/"}
	r := w.backup()
	same(t, "the snapshot", with(shown(), map[string]string{
		"/home/ann/src": "d", "/home/ann/src/keep": "d", "/home/ann/src/keep/file": "kept",
	}), w.shows(r.Seq))
}

func TestDroppingARootClosesIt(t *testing.T) {
	w := newWorld(t, home(), "/home/ann", "/home/bob")
	w.backup()
	w.set.Roots = []string{"/home/bob"}
	r := w.backup()
	same(t, "the snapshot", map[string]string{
		"/home": "d", "/home/bob": "d", "/home/bob/empty": "", "/home/bob/pipe": "p",
	}, w.shows(r.Seq))
}

// A disk that is away leaves its mount point, empty and on the parent's volume.
func TestAnUnmountedVolumeIsNotADeletion(t *testing.T) {
	for _, roots := range [][]string{{"/home/ann", "/home/disk"}, {"/home"}} {
		tree := home()
		tree["/home/disk"] = node{Dev: 2, Inode: 2, Time: 1000}
		tree["/home/disk/photos/one"] = node{Content: "ten years", Dev: 2, Inode: 4, Time: 1000}
		tree["/home/disk/photos"] = node{Dev: 2, Inode: 3, Time: 1000}
		w := newWorld(t, tree, roots...)
		w.backup()
		full := w.shows(1)
		w.source.remove("/home/disk")
		w.source.set("/home/disk", node{Inode: 500, Time: 500})
		r := w.backup()
		same(t, "problems", []string{"unreadable /home/disk"}, kinds(r))
		if got := w.shows(r.Seq)["/home/disk"]; got != "d (unreadable)" {
			t.Errorf("the bare mount point is shown as %q", got)
		}
		for p, n := range tree {
			if n.Dev == 2 {
				w.source.set(p, n)
			}
		}
		w.source.opened()
		r = w.backup()
		same(t, "what the disk shows when it is back", full, w.shows(r.Seq))
		same(t, "files read", []string(nil), w.source.opened())
	}
}

// What was emptied in earnest is empty, also if it had been a mount point once
// and is another volume's now.
func TestAnEmptiedVolumeIsEmpty(t *testing.T) {
	tree := home()
	tree["/home/disk"] = node{Dev: 2, Inode: 2, Time: 1000}
	tree["/home/disk/one"] = node{Content: "short-lived", Dev: 2, Time: 1000}
	w := newWorld(t, tree)
	w.backup()
	w.source.remove("/home/disk/one")
	w.source.edit(func(n *node) { n.Time = 2000 }, "/home/disk")
	r := w.backup()
	same(t, "problems", []string(nil), kinds(r))
	if _, there := w.shows(r.Seq)["/home/disk/one"]; there {
		t.Error("the deleted file is still shown")
	}
}

// What lies behind a link to a root does not go with the link.
func TestAMissingLinkToARootClosesNothing(t *testing.T) {
	tree := home()
	tree["/data"] = node{Type: metastore.Symlink, Target: "/home/ann", Time: 1000}
	w := newWorld(t, tree, "/data", "/home/bob")
	w.backup()
	want := with(w.shows(1), map[string]string{"/data": "-> /home/ann (unreadable)"})
	w.source.remove("/data")
	w.source.opened()
	r := w.backup()
	same(t, "problems", []string{"unreadable /data"}, kinds(r))
	same(t, "the snapshot", want, w.shows(r.Seq))
	w.source.set("/data", tree["/data"])
	w.backup()
	same(t, "files read", []string(nil), w.source.opened())
}

func TestAFileBehindABoundaryIsAnEmptyPlace(t *testing.T) {
	tree := home()
	tree["/home/ann/bind"] = node{Content: "must not be read", Dev: 2, Time: 1000}
	w := newWorld(t, tree)
	w.backup()
	w.source.opened()
	w.set.Rules = exclude.Rules{Always: []string{"/home/ann/bind"}}
	r := w.backup()
	same(t, "what is shown", "(excluded)", w.shows(r.Seq)["/home/ann/bind"])
	same(t, "files read", []string(nil), w.source.opened())
	w.set.Rules = exclude.Rules{}
	r = w.backup()
	same(t, "without the rule", "must not be read", w.shows(r.Seq)["/home/ann/bind"])
}
