package backup

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
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

// seqs lists the runs that have a manifest.
func seqs(w *world) (list []remote.Seq) {
	for _, key := range w.objects(remote.MetadataPrefix("host")) {
		if k, err := remote.ParseKey(key); err == nil && k.Kind == remote.KindManifest && !k.Signature {
			list = append(list, k.Seq)
		}
	}
	return list
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
	if testing.Short() {
		t.Skip("a blob each for hundreds of files")
	}
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

// Bytes put in near a file's beginning move all that is behind them, which is
// stored already: cut by content, it is found again after a few chunks.
func TestAnInsertionStoresLittleMoreThanItself(t *testing.T) {
	if testing.Short() {
		t.Skip("much data in one goroutine after the other")
	}
	noise := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	content := string(noise)
	w := newWorld(t, map[string]node{"/home/large": {Content: content, Time: 1000}})
	w.config.Chunking.Min, w.config.Chunking.Avg, w.config.Chunking.Max = 256<<10, 1<<20, 4<<20
	w.backup()
	rng := rand.New(rand.NewPCG(1, 2))
	sum := int64(0)
	for i := range 10 {
		at, n := 1<<20+rng.IntN(1<<20), 1+rng.IntN(100<<10)
		content := content[:at] + content[len(content)-n:] + content[at:]
		w.source.set("/home/large", node{Content: content, Time: int64(2000 + i)})
		sum += w.backup().NewBytes
	}
	// The chunk with the insertion, and one or two until the cuts agree.
	if mean := sum / 10; mean > 5<<20 {
		t.Errorf("an insertion of 50 KiB stored %d bytes on average, want about two chunks", mean)
	}
}
