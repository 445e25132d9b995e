package backup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
)

// rebuild makes the index anew from what the store has. Without the metadata of
// the runs in lost.
func (w *world) rebuild(lost ...remote.Seq) index.Rebuilt {
	w.t.Helper()
	check(w.t, w.index.Close())
	check(w.t, os.Remove(w.indexAt))
	b, err := index.Rebuild(w.t.Context(), w.indexAt, "host", index.Options{})
	check(w.t, err)
	defer func() { check(w.t, b.Close()) }()
	var m *remote.Manifest
	for _, seq := range seqs(w) {
		m = w.manifest(seq)
		object, err := get(w.t.Context(), w.store.Store, remote.ManifestKey("host", seq), 1<<20)
		check(w.t, err)
		var v *view.View
		if !slices.Contains(lost, seq) {
			v = w.view(seq)
		}
		check(w.t, b.Add(w.t.Context(), index.Past{
			Seq: int64(seq), Set: m.Set, SnapshotID: m.Snapshot, Hash: remote.Sum(object),
		}, v))
	}
	lists, err := KeptLists(m)
	check(w.t, err)
	var live []metastore.BlobRef
	for name, size := range w.counted(m) {
		live = append(live, metastore.BlobRef{Seq: int64(name.Seq), Hash: name.SHA256, Size: size})
	}
	made, err := b.Finish(w.t.Context(), live, lists)
	check(w.t, err)
	w.index, err = index.Open(w.t.Context(), w.indexAt, index.Options{})
	check(w.t, err)
	return made
}

// counted are the blobs that a manifest refers to or pins, and their sizes.
func (w *world) counted(m *remote.Manifest) map[remote.Name]int64 {
	w.t.Helper()
	all := map[remote.Name]int64{}
	for _, l := range []remote.ObjectList{m.Blobs, m.Pins} {
		objects, err := l.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
			return remote.FetchList(context.Background(), w.store.Store, "host", ref)
		})
		check(w.t, err)
		for _, o := range objects {
			all[o.Name()] = o.Size
		}
	}
	return all
}

// follows makes sure that a run refers to nothing but what the run before it
// counted on and what it uploaded itself: whatever else there is may be deleted
// by a prune at any time.
func (w *world) follows(seq remote.Seq) {
	w.t.Helper()
	before := w.counted(w.manifest(seq - 1))
	for name := range w.counted(w.manifest(seq)) {
		if _, ok := before[name]; !ok && name.Seq != seq {
			w.t.Errorf("run %s counts on blob %s of run %s, which the run before it let go", seq, name.SHA256, name.Seq)
		}
	}
}

func TestARebuiltIndexGoesOnWhereItWas(t *testing.T) {
	tree := home()
	data := "data" + strings.Repeat("\x00", 99_992) + "tail"
	tree["/home/ann/sparse"] = node{Content: data, Time: 1000, Data: [][2]int64{{0, 4}, {99_996, 100_000}}}
	for _, name := range []string{"one", "two"} {
		tree["/home/ann/"+name] = node{Content: "one inode", Time: 1000, Inode: 9, Nlink: 2, Xattrs: map[string]string{"user.k": "v"}}
	}
	w := newWorld(t, tree)
	w.backup()
	before := w.shows(1)
	same(t, "what it was made from", index.Rebuilt{Runs: 1, Entries: int64(len(before)) + 1, Blobs: 1, Bytes: w.manifest(1).Totals.StoredBytes}, w.rebuild())

	w.source.opened()
	r := w.backup()
	same(t, "files read", nil, w.source.opened())
	same(t, "entries recorded", 0, r.Changed)
	same(t, "blobs stored", 0, r.Blobs)
	same(t, "the snapshot", before, w.shows(2))
	if older, _ := w.dumps(2); len(older) > 0 {
		t.Errorf("the first dump after a rebuild is a difference to %v", older)
	}
	w.follows(2)

	// What was stored before is known by its content, wherever it turns up.
	w.source.set("/home/bob/copy", node{Content: tree["/home/ann/photo"].Content, Time: 2000})
	r = w.backup()
	same(t, "blobs stored for a copy", 0, r.Blobs)
	same(t, "the copy", tree["/home/ann/photo"].Content, w.shows(3)["/home/bob/copy"])
	w.follows(3)
}

func TestARebuiltIndexKnowsAllSets(t *testing.T) {
	if testing.Short() {
		t.Skip("much data in one goroutine after the other")
	}
	w := newWorld(t, many())
	all := []Set{{Name: "ann", Roots: []string{"/home/ann", "/home/bob"}}, {Name: "many", Roots: []string{"/home/many"}}}
	want := map[remote.Seq]map[string]string{}
	for i := range 4 {
		w.source.set("/home/many/03/added", node{Content: fmt.Sprint("version ", i), Time: int64(2000 + i)})
		w.source.set("/home/ann/added", node{Content: fmt.Sprint("ann's version ", i), Time: int64(2000 + i)})
		for _, w.set = range all {
			r := w.backup()
			want[r.Seq] = w.shows(r.Seq)
		}
	}
	if older, _ := w.dumps(8); len(older) == 0 {
		t.Error("none of the dumps is a difference")
	}
	// Runs 2 and 5 were purged.
	for _, seq := range []remote.Seq{2, 5} {
		check(t, w.store.Store.Delete(t.Context(), remote.ManifestKey("host", seq)))
		delete(want, seq)
	}
	if made := w.rebuild(); made.Runs != 6 {
		t.Errorf("%d runs, want 6", made.Runs)
	}
	w.source.opened()
	for _, w.set = range all {
		r := w.backup()
		same(t, "files read for set "+w.set.Name, nil, w.source.opened())
		same(t, "blobs stored for it", 0, r.Blobs)
		same(t, "its snapshot", want[r.Seq-2], w.shows(r.Seq))
		w.follows(r.Seq)
	}
	for seq, tree := range want {
		same(t, fmt.Sprint("snapshot of run ", seq), tree, w.shows(seq))
	}
}

// What could not be looked at in the newest snapshot is known from an earlier
// one.
func TestARebuiltIndexSeesBehindAGap(t *testing.T) {
	tree := home()
	tree["/home/disk"] = node{Dev: 2, Inode: 2, Time: 1000}
	tree["/home/disk/photos"] = node{Dev: 2, Inode: 3, Time: 1000}
	tree["/home/disk/photos/one"] = node{Content: "ten years", Dev: 2, Inode: 4, Time: 1000}
	w := newWorld(t, tree, "/home/ann", "/home/disk")
	w.backup()
	full := w.shows(1)
	w.source.remove("/home/disk")
	w.source.set("/home/disk", node{Inode: 500, Time: 500})
	same(t, "problems", []string{"unreadable /home/disk"}, kinds(w.backup()))
	gap := w.shows(2)
	w.rebuild()
	same(t, "problems", []string{"unreadable /home/disk"}, kinds(w.backup()))
	same(t, "the snapshot while the disk is away", gap, w.shows(3))
	w.follows(3)
	for p, n := range tree {
		if n.Dev == 2 {
			w.source.set(p, n)
		}
	}
	w.source.opened()
	r := w.backup()
	same(t, "what the disk shows when it is back", full, w.shows(r.Seq))
	same(t, "files read", nil, w.source.opened())
	w.follows(r.Seq)
}

// A file whose time stamp is as young as its backup is read again.
func TestARebuiltIndexDoesNotTrustTheClocksTick(t *testing.T) {
	w := newWorld(t, home())
	w.source.set("/home/ann/fresh", node{Content: "written just now", Time: start.Unix() + 3600})
	w.backup()
	w.rebuild()
	w.source.opened()
	w.backup()
	same(t, "files read", []string{"/home/ann/fresh"}, w.source.opened())
	w.backup()
	same(t, "files read later", nil, w.source.opened())
}

// Without a dump its snapshot is lost, and nothing else.
func TestAnIndexIsRebuiltWithoutALostDump(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	w.source.set("/home/ann/letter", node{Content: "dear carl", Time: 2000})
	w.backup()
	want := w.shows(2)
	w.rebuild(2)
	w.source.opened()
	r := w.backup()
	same(t, "files read", []string{"/home/ann/letter"}, w.source.opened())
	same(t, "the snapshot", want, w.shows(r.Seq))
	w.follows(3)

	// Nor of the only one.
	w = newWorld(t, home())
	w.backup()
	w.rebuild(1)
	r = w.backup()
	same(t, "the snapshot of all that was read again", shown(), w.shows(r.Seq))
	w.follows(2)
}

// Where a chunk was moved to and fro, both its places are known, and what stands
// there is compared and not only when it was written.
func TestARebuiltIndexKnowsEveryPlaceOfAChunk(t *testing.T) {
	w := newWorld(t, map[string]node{"/home/stays": {Content: "stays", Time: 1000}, "/home/moves": {Content: "moves", Time: 1000}})
	w.certify()
	second, err := age.GenerateX25519Identity()
	check(t, err)
	w.former = []age.Identity{second}
	first := w.config.Recipients
	w.config.ResealPerRun = 1 << 20
	w.backup()
	w.config.Recipients = []string{second.Recipient().String()}
	w.source.edit(func(n *node) { n.DenyRead = errInjected }, "/home/stays")
	if r := w.backup(); r.Moved != 5 {
		t.Fatalf("%d bytes were moved", r.Moved)
	}
	w.purge(1)
	w.config.Recipients = first
	want := w.shows(w.backup().Seq) // in the blob of run 1 again, as far as it matters
	w.rebuild()
	w.source.edit(func(n *node) { n.DenyRead = errInjected }, "/home/moves")
	r := w.backup()
	same(t, "problems", nil, kinds(r))
	same(t, "the snapshot", want, w.shows(r.Seq))
	w.follows(r.Seq)
}

func TestARebuiltIndexKnowsBlobLists(t *testing.T) {
	if testing.Short() {
		t.Skip("a blob each for hundreds of files")
	}
	tree := map[string]node{}
	rnd := newNoise(1)
	for i := range listAbove + 10 {
		tree[fmt.Sprintf("/home/%03d", i)] = node{Content: rnd.text(frameTarget), Time: 1000}
	}
	w := newWorld(t, tree)
	w.config.Chunking.Min, w.config.Chunking.Avg, w.config.Chunking.Max = 1<<19, 1<<20, 1<<21
	w.config.BlobSize = frameTarget
	w.backup()
	w.rebuild()
	w.source.set("/home/000", node{Content: "changed", Time: 2000})
	w.backup()
	same(t, "the list", w.manifest(1).Blobs.List, w.manifest(2).Blobs.List)
	w.follows(2)
}

// Trees change at random, in two sets; runs are purged, and the index is lost
// now and then. Every snapshot shows what was there, and no run counts on what
// the run before it let go.
func TestAnIndexThatIsLostNowAndThen(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			w := newWorld(t, home())
			w.source.set("/home/shared/f0/g0", node{Content: "ours", Time: 1000})
			sets := []Set{{Name: "ann", Roots: []string{"/home/ann", "/home/shared"}}, {Name: "bob", Roots: []string{"/home/bob", "/home/shared"}}}
			newest := map[string]remote.Seq{}
			backup := func(set Set) {
				w.set = set
				r := w.backup()
				newest[set.Name] = r.Seq
				same(t, "the snapshot of "+r.Snapshot, w.there(), w.shows(r.Seq))
				if r.Seq > 1 {
					w.follows(r.Seq)
				}
				if old := remote.Seq(1 + rng.IntN(int(r.Seq))); old != newest["ann"] && old != newest["bob"] {
					check(t, w.store.Store.Delete(t.Context(), remote.ManifestKey("host", old)))
				}
			}
			for step := range 12 {
				w.scribble(rng, int64(5000+step))
				backup(sets[rng.IntN(2)])
				if rng.IntN(4) == 0 {
					w.rebuild()
					w.scribble(rng, int64(6000+step))
					backup(sets[rng.IntN(2)])
				}
			}
		})
	}
}

// there is what a snapshot of the set must show.
func (w *world) there() map[string]string {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	all := map[string]string{"/home": "d"}
	for p, n := range w.source.nodes {
		if !slices.ContainsFunc(w.set.Roots, func(root string) bool { return p == root || strings.HasPrefix(p, root+"/") }) {
			continue
		}
		switch n.Type {
		case metastore.Regular:
			all[p] = n.Content
		case metastore.Symlink:
			all[p] = "-> " + n.Target
		default:
			all[p] = string(n.Type)
		}
	}
	return all
}

// scribble changes a few entries.
func (w *world) scribble(rng *rand.Rand, now int64) {
	for range 1 + rng.IntN(4) {
		p := fmt.Sprintf("/home/%s/f%d/g%d", []string{"ann", "bob", "shared"}[rng.IntN(3)], rng.IntN(3), rng.IntN(4))
		switch rng.IntN(7) {
		case 0:
			w.source.remove(p)
		case 1:
			w.source.remove(p[:strings.LastIndex(p, "/")])
		case 2:
			w.source.remove(p)
			w.source.set(p+"/below", node{Content: fmt.Sprint(rng.IntN(5)), Time: now})
		case 3:
			w.source.remove(p)
			w.source.set(p, node{Type: metastore.Symlink, Target: fmt.Sprint(rng.IntN(5)), Time: now})
		default:
			w.source.remove(p)
			w.source.set(p, node{Content: strings.Repeat(fmt.Sprint(rng.IntN(9), " "), 1+rng.IntN(20_000)), Time: now})
		}
	}
}
