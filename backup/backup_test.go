package backup

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// home is a small tree that has been there for long.
func home() map[string]node {
	return map[string]node{
		"/home/ann/letter":   {Content: "dear bob", Time: 1000},
		"/home/ann/photo":    {Content: strings.Repeat("pixels ", 10_000), Time: 1000},
		"/home/ann/link":     {Type: metastore.Symlink, Target: "letter", Time: 1000},
		"/home/bob/empty":    {Type: metastore.Regular, Time: 1000},
		"/home/bob/pipe":     {Type: metastore.FIFO, Time: 1000},
		"/outside/not/asked": {Content: "nobody asked for this", Time: 1000},
	}
}

// shown is what a snapshot of home shows.
func shown() map[string]string {
	return map[string]string{
		"/home": "d", "/home/ann": "d", "/home/bob": "d",
		"/home/ann/letter": "dear bob", "/home/ann/photo": strings.Repeat("pixels ", 10_000),
		"/home/ann/link": "-> letter", "/home/bob/empty": "", "/home/bob/pipe": "p",
	}
}

func same[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestASnapshotShowsWhatWasThere(t *testing.T) {
	w := newWorld(t, home())
	r := w.backup()
	same(t, "the snapshot", shown(), w.shows(r.Seq))
	same(t, "problems", nil, kinds(r))
	same(t, "its id", "host-20261124-130000Z", r.Snapshot)
}

func TestAnUnchangedTreeIsNotRead(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.opened()
	blobs := w.objects(remote.BlobsPrefix("host"))
	r := w.backup()
	same(t, "files opened", nil, w.source.opened())
	same(t, "blobs", blobs, w.objects(remote.BlobsPrefix("host")))
	same(t, "entries recorded", 0, r.Changed)
	same(t, "the snapshot", shown(), w.shows(r.Seq))
}

func TestOnlyWhatChangedIsRead(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.opened()
	w.source.set("/home/ann/letter", node{Content: "dear carl", Time: 2000})
	w.source.set("/home/bob/new", node{Content: "hello", Time: 2000})
	w.source.remove("/home/ann/link")
	r := w.backup()
	same(t, "files opened", []string{"/home/ann/letter", "/home/bob/new"}, w.source.opened())
	want := with(shown(), map[string]string{"/home/ann/letter": "dear carl", "/home/bob/new": "hello"})
	delete(want, "/home/ann/link")
	same(t, "the new snapshot", want, w.shows(r.Seq))
	same(t, "the old snapshot", shown(), w.shows(1))
}

func TestAFileBecomesAFolderAndBack(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.remove("/home/ann/letter")
	w.source.set("/home/ann/letter/inside", node{Content: "a page", Time: 2000})
	second := w.backup()
	w.source.remove("/home/ann/letter")
	w.source.set("/home/ann/letter", node{Content: "dear bob", Time: 3000})
	third := w.backup()
	want := with(shown(), map[string]string{"/home/ann/letter": "d", "/home/ann/letter/inside": "a page"})
	same(t, "as a folder", want, w.shows(second.Seq))
	same(t, "as a file again", shown(), w.shows(third.Seq))
}

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

func TestHolesAreRows(t *testing.T) {
	tree := home()
	data := "data" + strings.Repeat("\x00", 99_992) + "tail"
	tree["/home/ann/sparse"] = node{Content: data, Time: 1000, Data: [][2]int64{{0, 4}, {99_996, 100_000}}}
	tree["/home/ann/void"] = node{Content: strings.Repeat("\x00", 50_000), Time: 1000, Data: [][2]int64{}}
	w := newWorld(t, tree)
	r := w.backup()
	same(t, "the snapshot", with(shown(), map[string]string{
		"/home/ann/sparse": data, "/home/ann/void": strings.Repeat("\x00", 50_000),
	}), w.shows(r.Seq))
	if r.Read > 80_100 {
		t.Errorf("%d bytes read: the holes were read too", r.Read)
	}
}

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
	if _, err := w.try(); !errors.Is(err, ErrNoRoots) {
		t.Errorf("without any root: %v, want ErrNoRoots", err)
	}
	same(t, "runs in the store", []remote.Seq{1, 2}, seqs(w))
}

// seqs lists the runs that have a manifest.
func seqs(w *world) (list []remote.Seq) {
	for _, key := range w.objects(remote.MetadataPrefix("host")) {
		if k, err := remote.ParseKey(key); err == nil && k.Kind == remote.KindManifest && !k.Signature {
			list = append(list, k.Seq)
		}
	}
	return list
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
	tree["/home/ann/cache/CACHEDIR.TAG"] = node{Content: cacheTag + "\n", Time: 1000}
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
	w.set.Rules = Rules{
		Patterns: []string{"*.o"}, CacheDirs: true, IfPresent: []string{".nobackup"}, LargerThan: 100_000, OneFileSystem: true,
		Always: []string{"/home/bob"},
	}
	r := w.backup()
	want := with(shown(), map[string]string{
		"/home/ann/cache": "d (cachedir)", "/home/ann/cache/CACHEDIR.TAG": cacheTag + "\n",
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
	w.set.Rules = Rules{}
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

func TestTwoSetsDoNotDisturbEachOther(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	first := w.set
	w.set = Set{Name: "other", Roots: []string{"/outside"}}
	second := w.backup()
	w.set = first
	w.source.opened()
	third := w.backup()
	same(t, "files opened", nil, w.source.opened())
	same(t, "the first set", shown(), w.shows(third.Seq))
	same(t, "the other set", map[string]string{
		"/outside": "d", "/outside/not": "d", "/outside/not/asked": "nobody asked for this",
	}, w.shows(second.Seq))
	if m := w.manifest(third.Seq); len(m.Pins.Add) != 1 {
		t.Errorf("the other set's blob is not pinned: %+v", m.Pins)
	}
}

// After a change of recipients everything is uploaded anew under the new set:
// a snapshot must never depend on a key that is no longer wanted.
func TestANewRecipientGetsEverything(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	second, err := age.GenerateX25519Identity()
	check(t, err)
	w.config.Recipients = append(w.config.Recipients, second.Recipient().String())
	r := w.backup()
	w.identity = second
	same(t, "what the new identity sees", shown(), w.shows(r.Seq))
}

func TestManyBlobsAreNamedByAList(t *testing.T) {
	tree := map[string]node{}
	want := map[string]string{"/home": "d"}
	rnd := newNoise(1)
	for i := range listAbove + 10 {
		p := "/home/file" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		content := rnd.text(frameTarget) // a frame of its own, and a blob
		tree[p], want[p] = node{Content: content, Time: 1000}, content
	}
	w := newWorld(t, tree)
	w.config.Chunking.Min, w.config.Chunking.Avg, w.config.Chunking.Max = 1<<19, 1<<20, 1<<21
	w.config.BlobSize = frameTarget
	first := w.backup()
	if first.Blobs <= listAbove {
		t.Fatalf("only %d blobs", first.Blobs)
	}
	same(t, "the snapshot", want, w.shows(first.Seq))
	m := w.manifest(first.Seq)
	if m.Blobs.List == nil || len(m.Blobs.Add) > 0 {
		t.Fatalf("%d blobs are named without a list", len(m.Blobs.Add))
	}
	w.source.set("/home/filea", node{Content: "changed", Time: 2000})
	second := w.backup()
	after := w.manifest(second.Seq)
	same(t, "the list", m.Blobs.List, after.Blobs.List)
	if len(after.Blobs.Add) != 1 {
		t.Errorf("%d blobs added to the list, want 1", len(after.Blobs.Add))
	}
	same(t, "the second snapshot", with(want, map[string]string{"/home/filea": "changed"}), w.shows(second.Seq))
}

// The walk's order is the blobs' order: a folder's entries by name, then what
// is below its subfolders.
func TestBlobsFollowTheTree(t *testing.T) {
	w := newWorld(t, map[string]node{
		"/home/b/1": {Content: "third", Time: 1}, "/home/a": {Content: "first", Time: 1},
		"/home/b/0/x": {Content: "fourth", Time: 1}, "/home/z": {Content: "second", Time: 1},
	})
	r := w.backup()
	v := w.view(r.Seq)
	var order []string
	for ino := v.Root(); len(order) < 4; ino++ {
		n, err := v.Node(t.Context(), ino)
		check(t, err)
		if n.Type == metastore.Regular {
			order = append(order, w.content(v, n))
		}
	}
	same(t, "contents by inode number", []string{"first", "second", "third", "fourth"}, order)
}

func TestAFullStoreFailsTheRunAndLosesNothing(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.set("/home/ann/letter", node{Content: "dear carl", Time: 2000})
	w.store.Script(storetest.Fault{Op: storetest.OpPut, Key: "/blobs/", Every: true, Kind: storetest.Fail, Err: errInjected})
	if _, err := w.try(); !errors.Is(err, errInjected) {
		t.Fatalf("a backup to a store that takes nothing: %v", err)
	}
	w.store.Script()
	r := w.backup()
	same(t, "the seq after a failed run", remote.Seq(2), r.Seq)
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/letter": "dear carl"}), w.shows(r.Seq))
}

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

// Two sets share blobs. When the recipients change and change back between
// them, neither may refer to a blob that its recipients cannot read.
func TestASetReliesOnNoBlobOfOtherRecipients(t *testing.T) {
	w, other := newWorld(t, home()), newWorld(t, home())
	ann, bob := w.config.Recipients, other.config.Recipients
	for _, run := range []struct {
		set        string
		recipients []string
	}{{"one", ann}, {"two", bob}, {"one", ann}} {
		w.set.Name, w.config.Recipients = run.set, run.recipients
		w.backup()
	}
	same(t, "the third snapshot, read with ann's identity", shown(), w.shows(3))
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

func TestAFileBehindABoundaryIsAnEmptyPlace(t *testing.T) {
	tree := home()
	tree["/home/ann/bind"] = node{Content: "must not be read", Dev: 2, Time: 1000}
	w := newWorld(t, tree)
	w.backup()
	w.source.opened()
	w.set.Rules = Rules{Always: []string{"/home/ann/bind"}}
	r := w.backup()
	same(t, "what is shown", "(excluded)", w.shows(r.Seq)["/home/ann/bind"])
	same(t, "files read", []string(nil), w.source.opened())
	w.set.Rules = Rules{}
	r = w.backup()
	same(t, "without the rule", "must not be read", w.shows(r.Seq)["/home/ann/bind"])
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
