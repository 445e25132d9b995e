package backup

import (
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Two names of an inode stay one file when one of them is recorded anew
// because the folder around it got another name.
func TestHardLinksOutlastARenamedFolder(t *testing.T) {
	tree := home()
	tree["/home/ann/one"] = node{Content: "one inode", Time: 1000, Inode: 9, Nlink: 2}
	tree["/home/old/two"] = node{Content: "one inode", Time: 1000, Inode: 9, Nlink: 2}
	w := newWorld(t, tree)
	w.backup()
	w.source.remove("/home/old")
	w.source.set("/home/new/two", node{Content: "one inode", Time: 1000, Inode: 9, Nlink: 2})
	w.source.opened()
	r := w.backup()
	same(t, "files opened", nil, w.source.opened())
	same(t, "the snapshot", with(shown(), map[string]string{
		"/home/ann/one": "one inode", "/home/new": "d", "/home/new/two": "one inode",
	}), w.shows(r.Seq))
	v := w.view(r.Seq)
	find := func(names ...string) view.Node {
		t.Helper()
		n, err := v.Node(t.Context(), v.Root())
		for _, name := range names {
			check(t, err)
			n, err = v.Lookup(t.Context(), n.Ino, name)
		}
		check(t, err)
		return n
	}
	if one, two := find("home", "ann", "one"), find("home", "new", "two"); one.Ino != two.Ino {
		t.Errorf("the two names have the inodes %d and %d", one.Ino, two.Ino)
	}
}

// A renamed folder is not read again, wherever it went and however much lies
// below it; what changed in it meanwhile is.
func TestARenamedFolderIsNotRead(t *testing.T) {
	for _, to := range []string{"/home/ann/aaa", "/home/ann/zzz", "/home/bob/deep/er"} {
		tree := home()
		for p, n := range map[string]node{
			"/home/ann/photos":            {Inode: 71, Time: 1000},
			"/home/ann/photos/2024":       {Inode: 72, Time: 1000},
			"/home/ann/photos/one":        {Content: "first picture", Inode: 73, Time: 1000},
			"/home/ann/photos/2024/two":   {Content: "second picture", Inode: 74, Time: 1000},
			"/home/ann/photos/2024/three": {Content: "third picture", Inode: 75, Time: 1000},
			"/home/ann/photos/2024/link":  {Type: metastore.Symlink, Target: "two", Inode: 76, Time: 1000},
		} {
			tree[p] = n
		}
		w := newWorld(t, tree)
		w.backup()
		want := w.shows(1)
		for p, n := range tree {
			rest, below := strings.CutPrefix(p, "/home/ann/photos")
			if !below {
				continue
			}
			if p == "/home/ann/photos/2024/three" {
				n.Content, n.Time = "edited", 2000
			}
			w.source.set(to+rest, n)
			want[to+rest] = want[p]
			delete(want, p)
		}
		want[to+"/2024/three"] = "edited"
		if to == "/home/bob/deep/er" {
			want["/home/bob/deep"] = "d"
		}
		w.source.remove("/home/ann/photos")
		w.source.opened()
		r := w.backup()
		same(t, "files read", []string{to + "/2024/three"}, w.source.opened())
		same(t, "the snapshot", want, w.shows(r.Seq))
		w.backup()
		same(t, "files read by the run after it", []string{to + "/2024/three"}[:0], append([]string{}, w.source.opened()...))
	}
}

// The same inode in two places at once is no move: what lies in the second has
// to be read.
func TestAFolderInTwoPlacesWasNotMoved(t *testing.T) {
	tree := home()
	tree["/home/ann/photos"] = node{Inode: 71, Time: 1000}
	tree["/home/ann/photos/one"] = node{Content: "picture", Inode: 73, Time: 1000}
	w := newWorld(t, tree)
	w.backup()
	w.source.set("/home/bob/bound", tree["/home/ann/photos"])
	w.source.set("/home/bob/bound/one", tree["/home/ann/photos/one"])
	w.source.opened()
	w.backup()
	same(t, "files read", []string{"/home/bob/bound/one"}, w.source.opened())
}
