package backup

import (
	"strings"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// linked is a tree with two names of one inode, in one folder or in two.
func linked(second string, more map[string]node) map[string]node {
	tree := home()
	for _, p := range []string{"/home/a/one", second} {
		tree[p] = node{Content: "version A", Time: 1000, Inode: 9, Nlink: 2}
	}
	for p, n := range more {
		tree[p] = n
	}
	return tree
}

// edit changes all of the names.
func (s *fakeSource) edit(f func(n *node), names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range names {
		f(s.nodes[p])
	}
}

func TestALinkedFileThatGrowsIsShownAsItWasReadByEachName(t *testing.T) {
	for _, second := range []string{"/home/a/two", "/home/c/two"} {
		w := newWorld(t, linked(second, nil))
		w.source.edit(func(n *node) {
			n.OnOpen = func(*node) {
				w.source.edit(func(n *node) { n.Content, n.Time = "version A and more", w.now.Unix() }, "/home/a/one", second)
			}
		}, "/home/a/one")
		w.backup()
		w.source.edit(func(n *node) { n.OnOpen = nil }, "/home/a/one")
		s := w.shows(w.backup().Seq)
		same(t, "both names", [2]string{"version A and more", "version A and more"}, [2]string{s["/home/a/one"], s[second]})
	}
}

// The second name is listed after an edit that the reading of the first has
// not seen: it must not take the first one's content for its own.
func TestALinkEditedBetweenItsTwoNamesIsNotMixedUp(t *testing.T) {
	w := newWorld(t, linked("/home/c/two", nil))
	edited := false
	w.config.Report = func(e Event) {
		if e.Progress.Path == "/home/c" && !edited {
			edited = true
			time.Sleep(100 * time.Millisecond) // let the first name be read; if it is not, the test is only weaker
			at := w.now.Add(time.Minute).Unix()
			w.source.edit(func(n *node) { n.Content, n.Time = "version B", at }, "/home/a/one", "/home/c/two")
		}
	}
	for range 3 {
		w.backup()
	}
	s := w.shows(3)
	same(t, "both names", [2]string{"version B", "version B"}, [2]string{s["/home/a/one"], s["/home/c/two"]})
}

// Another file is renamed over the first name after the listing: what is read
// there is not what the second name has.
func TestANameThatLeavesItsInodeTakesNoOtherNameAlong(t *testing.T) {
	w := newWorld(t, linked("/home/a/two", map[string]node{"/home/a/aaa": {Content: "is read first", Time: 1000}}))
	w.source.edit(func(n *node) {
		n.OnOpen = func(*node) {
			w.source.set("/home/a/one", node{Content: "version B", Time: w.now.Unix(), Inode: 10})
		}
	}, "/home/a/aaa")
	for range 3 {
		w.backup()
	}
	s := w.shows(3)
	same(t, "both names", [2]string{"version B", "version A"}, [2]string{s["/home/a/one"], s["/home/a/two"]})
}

func TestALostBlobOfALinkedFileIsReadAgain(t *testing.T) {
	w := newWorld(t, linked("/home/c/two", nil))
	w.backup()
	for _, key := range w.objects(remote.BlobsPrefix("host")) {
		check(t, w.store.Delete(t.Context(), key))
	}
	r := w.backup()
	s := w.shows(r.Seq)
	same(t, "both names", [2]string{"version A", "version A"}, [2]string{s["/home/a/one"], s["/home/c/two"]})
	if r.Incomplete() {
		t.Errorf("the snapshot is incomplete: %v", kinds(r))
	}
}

func TestHardLinksAreReadOnce(t *testing.T) {
	tree := home()
	for _, name := range []string{"one", "two", "three"} {
		tree["/home/ann/"+name] = node{Content: "one inode", Time: 1000, Inode: 9, Nlink: 3}
	}
	w := newWorld(t, tree)
	r := w.backup()
	opened := strings.Join(w.source.opened(), " ")
	if n := strings.Count(opened, "/home/ann/one") + strings.Count(opened, "/home/ann/two") + strings.Count(opened, "/home/ann/three"); n != 1 {
		t.Errorf("the inode was read %d times: %s", n, opened)
	}
	same(t, "the snapshot", with(shown(), map[string]string{
		"/home/ann/one": "one inode", "/home/ann/two": "one inode", "/home/ann/three": "one inode",
	}), w.shows(r.Seq))
}
