package backup

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Within two seconds of a reading, time stamps prove nothing: the file is read
// again once, even if nothing about it looks different.
func TestAnEditWithinTheClocksTickIsFound(t *testing.T) {
	w := newWorld(t, home())
	justNow := start.Add(time.Hour).Unix() - 1
	w.source.set("/home/ann/letter", node{Content: "dear bob", Time: justNow})
	w.backup()
	w.source.opened()
	w.source.set("/home/ann/letter", node{Content: "DEAR BOB", Time: justNow})
	r := w.backup()
	same(t, "files opened", []string{"/home/ann/letter"}, w.source.opened())
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/letter": "DEAR BOB"}), w.shows(r.Seq))
	w.backup()
	same(t, "files opened when it has settled", nil, w.source.opened())
}

func TestAFileThatKeepsChangingIsStoredAndFlagged(t *testing.T) {
	w := newWorld(t, home())
	reads := 0
	w.source.set("/home/ann/log", node{Content: "line\n", Time: 1000, OnRead: func(n *node) {
		reads++
		w.source.mu.Lock()
		defer w.source.mu.Unlock()
		n.Content += "line\n"
		n.Time++
	}})
	r := w.backup()
	if reads < attempts {
		t.Errorf("it was read %d times, want %d attempts at least", reads, attempts)
	}
	same(t, "problems", []string{"changed /home/ann/log"}, kinds(r))
	got := w.shows(r.Seq)["/home/ann/log"]
	if !strings.HasPrefix(got, "line\n") || !strings.HasSuffix(got, "(changed-while-read)") {
		t.Errorf("the log is shown as %q", got)
	}
	if r.Incomplete() {
		t.Error("a changing file makes the snapshot incomplete")
	}
	w.source.opened()
	w.source.nodes["/home/ann/log"].OnRead = nil
	r = w.backup()
	same(t, "files opened by the next run", []string{"/home/ann/log"}, w.source.opened())
	if got := w.shows(r.Seq)["/home/ann/log"]; strings.Contains(got, "changed") {
		t.Errorf("it holds still now, but is shown as %q", got)
	}
}

func TestAFileThatShrinksIsStoredAsItIs(t *testing.T) {
	w := newWorld(t, home())
	w.source.set("/home/ann/photo", node{Content: strings.Repeat("pixels ", 10_000), Time: 1000, OnOpen: func(n *node) {
		w.source.mu.Lock()
		defer w.source.mu.Unlock()
		n.Content, n.Time = "cut", n.Time+1
	}})
	r := w.backup()
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/photo": "cut"}), w.shows(r.Seq))
}

func TestWhatCannotBeReadIsFlaggedAndKept(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.opened()
	deny := func(p string, change func(n *node)) {
		w.source.mu.Lock()
		defer w.source.mu.Unlock()
		change(w.source.nodes[p])
	}
	deny("/home/ann/letter", func(n *node) { n.DenyOpen, n.Time = syscall.EACCES, 2000 })
	deny("/home/ann/photo", func(n *node) { n.DenyRead, n.Time = syscall.EIO, 2000 })
	deny("/home/bob", func(n *node) { n.DenyOpen = syscall.EACCES })
	r := w.backup()
	same(t, "problems", []string{"unreadable /home/ann/letter", "unreadable /home/ann/photo", "unreadable /home/bob"}, kinds(r))
	if !r.Incomplete() {
		t.Error("the snapshot passes for complete")
	}
	same(t, "the snapshot", map[string]string{
		"/home": "d", "/home/ann": "d", "/home/ann/link": "-> letter",
		"/home/ann/letter": "(unreadable)", "/home/ann/photo": "(unreadable)", "/home/bob": "d (unreadable)",
	}, w.shows(r.Seq))

	deny("/home/ann/letter", func(n *node) { n.DenyOpen, n.Time = nil, 1000 })
	deny("/home/ann/photo", func(n *node) { n.DenyRead, n.Time = nil, 1000 })
	deny("/home/bob", func(n *node) { n.DenyOpen = nil })
	w.source.opened()
	r = w.backup()
	same(t, "files opened when all is readable again and as before", nil, w.source.opened())
	same(t, "the snapshot after", shown(), w.shows(r.Seq))
	same(t, "the snapshot before", shown(), w.shows(1))
}

func TestAnEntryThatCannotBeExaminedIsFlagged(t *testing.T) {
	tree := home()
	tree["/home/ann/broken"] = node{Content: "x", DenyStat: syscall.EIO}
	w := newWorld(t, tree)
	r := w.backup()
	same(t, "problems", []string{"unreadable /home/ann/broken"}, kinds(r))
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/broken": "(unreadable)"}), w.shows(r.Seq))
}

func TestAFileThatVanishesIsAWarning(t *testing.T) {
	w := newWorld(t, home())
	w.source.set("/home/ann/brief", node{Content: "here and gone", Time: 1000, OnOpen: func(*node) {}})
	w.backup()
	w.source.set("/home/ann/aaa", node{Content: "opened first", Time: 2000, OnOpen: func(*node) {
		w.source.remove("/home/ann/brief")
	}})
	w.source.set("/home/ann/brief", node{Content: "here and gone", Time: 2000, Inode: 77, Swapped: true})
	r := w.backup()
	same(t, "problems", []string{"vanished /home/ann/brief"}, kinds(r))
	if r.Incomplete() {
		t.Error("a vanished file makes the snapshot incomplete")
	}
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/aaa": "opened first"}), w.shows(r.Seq))
}

// A folder may go between its opening and its listing, as a file may.
func TestAFolderThatVanishesIsAWarning(t *testing.T) {
	w := newWorld(t, home())
	w.source.edit(func(n *node) {
		n.OnNames = func() { w.source.remove("/home/bob") }
	}, "/home/bob")
	r := w.backup()
	same(t, "problems", []string{"vanished /home/bob"}, kinds(r))
	if _, there := w.shows(r.Seq)["/home/bob"]; there || r.Incomplete() {
		t.Errorf("a folder that is gone is shown, or counts as missing: %v", kinds(r))
	}
}

func TestAFolderSwappedMeanwhileIsNotFollowed(t *testing.T) {
	tree := home()
	tree["/home/evil/inside"] = node{Content: "bait", Time: 1000}
	tree["/home/evil"] = node{Swapped: true, Time: 1000}
	w := newWorld(t, tree)
	r := w.backup()
	same(t, "problems", []string{"unreadable /home/evil"}, kinds(r))
	same(t, "the snapshot", with(shown(), map[string]string{"/home/evil": "d (unreadable)"}), w.shows(r.Seq))
}

func TestAttributesThatCannotBeReadCostOnlyThemselves(t *testing.T) {
	tree := home()
	tree["/home/ann/labelled"] = node{Content: "content", Time: 1000, DenyMeta: syscall.EIO}
	tree["/home/ann/blind"] = node{Type: metastore.Symlink, Target: "somewhere", Time: 1000, DenyMeta: syscall.EIO}
	w := newWorld(t, tree)
	r := w.backup()
	same(t, "problems", []string{"unreadable /home/ann/blind", "unreadable /home/ann/labelled"}, kinds(r))
	got := w.shows(r.Seq)
	if got["/home/ann/labelled"] != "content" {
		t.Errorf("a file without its attributes is shown as %q", got["/home/ann/labelled"])
	}
	if !strings.Contains(got["/home/ann/blind"], "(unreadable)") {
		t.Errorf("a link without its target is shown as %q", got["/home/ann/blind"])
	}
}

// A first reading took long, and an edit made a second one necessary: its
// moment counts, not the first one's.
func TestAnEditWithinTheTickOfASecondReadingIsFound(t *testing.T) {
	w := newWorld(t, home())
	var clock atomic.Int64
	clock.Store(w.now.Add(time.Hour).Unix())
	w.config.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	reads := 0
	w.source.set("/home/ann/db", node{Content: "version 0", Time: 1000, OnRead: func(n *node) {
		if reads++; reads == 1 {
			n.Content, n.Time = "version 1", clock.Add(60)
		}
	}})
	same(t, "first", "version 1", w.shows(w.backup().Seq)["/home/ann/db"])
	w.source.edit(func(n *node) { n.Content, n.OnRead = "version 2", nil }, "/home/ann/db") // in the same second
	clock.Add(3600)
	same(t, "second", "version 2", w.shows(w.backup().Seq)["/home/ann/db"])
}

func TestAChangeOfAFoldersOwnMetadataWithinTheTickIsFound(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	at := w.now.Add(time.Hour).Unix() // the very second of the next run
	var got []string
	for _, value := range []string{"1", "2"} {
		w.source.edit(func(n *node) { n.Time, n.Xattrs = at, map[string]string{"user.v": value} }, "/home/ann")
		v := w.view(w.backup().Seq)
		n, err := v.Node(t.Context(), v.Root())
		for _, name := range []string{"home", "ann"} {
			check(t, err)
			n, err = v.Lookup(t.Context(), n.Ino, name)
		}
		check(t, err)
		x, err := v.Xattrs(t.Context(), n.Ino)
		check(t, err)
		got = append(got, string(x[0].Value))
	}
	same(t, "the attribute", []string{"1", "2"}, got)
}

func TestAnAttributeThatChangesMeanwhileIsReadAgain(t *testing.T) {
	w := newWorld(t, home())
	reads := 0
	w.source.set("/home/ann/db", node{Content: "rows", Time: 1000, Xattrs: map[string]string{"user.v": "1"}, OnRead: func(n *node) {
		if reads++; reads == 1 {
			n.Time, n.Xattrs = 2000, map[string]string{"user.v": "2"}
		}
	}})
	v := w.view(w.backup().Seq)
	n, err := v.Node(t.Context(), v.Root())
	for _, name := range []string{"home", "ann", "db"} {
		check(t, err)
		n, err = v.Lookup(t.Context(), n.Ino, name)
	}
	check(t, err)
	x, err := v.Xattrs(t.Context(), n.Ino)
	check(t, err)
	same(t, "the attribute", []metastore.Xattr{{Name: "user.v", Value: []byte("2")}}, x)
}
