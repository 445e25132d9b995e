package backup

import (
	"fmt"
	"maps"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// many is a tree whose metadata are worth a difference.
func many() map[string]node {
	tree := home()
	for i := range 1000 {
		p := fmt.Sprintf("/home/many/%02d/%04d", i%20, i)
		tree[p] = node{Content: fmt.Sprint("file ", i), Time: 1000, Inode: uint64(10_000 + i)}
	}
	return tree
}

// bases is which of a snapshot's dump parts are of earlier runs.
func (w *world) dumps(seq remote.Seq) (older, own []remote.DumpPart) {
	w.t.Helper()
	for _, d := range w.manifest(seq).Dumps {
		if d.Seq < seq {
			older = append(older, d)
		} else {
			own = append(own, d)
		}
	}
	return older, own
}

// A change costs a difference of a few kilobytes to the first dump, as do all
// later ones: never a difference to a difference.
func TestASmallChangeStoresADifferenceToTheFullDump(t *testing.T) {
	if testing.Short() {
		t.Skip("much data in one goroutine after the other")
	}
	w := newWorld(t, many())
	first := w.backup()
	_, full := w.dumps(1)
	before := w.shows(1)
	want := maps.Clone(before)
	for i := range 5 {
		p := fmt.Sprintf("/home/many/03/added %d", i)
		w.source.set(p, node{Content: "new", Time: 2000})
		w.source.remove(fmt.Sprintf("/home/many/04/%04d", 4+20*i))
		w.source.edit(func(n *node) { n.Content, n.Time = "edited", int64(3000+i) }, "/home/many/05/0005")
		want[p], want["/home/many/05/0005"] = "new", "edited"
		delete(want, fmt.Sprintf("/home/many/04/%04d", 4+20*i))
		r := w.backup()
		same(t, "the snapshot", want, w.shows(r.Seq))
		older, own := w.dumps(r.Seq)
		same(t, "the dump that it is a difference to", full, older)
		if len(own) != 1 || own[0].Size > 4<<10 {
			t.Errorf("the difference is %v; the full dump took %d bytes", own, first.Metadata)
		}
	}
	same(t, "the first snapshot", before, w.shows(1))
}

func TestADifferenceThatOutgrowsItsBaseIsAFullDump(t *testing.T) {
	w := newWorld(t, many())
	w.backup()
	w.source.remove("/home/many")
	r := w.backup()
	if older, own := w.dumps(r.Seq); len(older) != 0 || len(own) == 0 {
		t.Errorf("half of everything went, and still there is a difference to %v", older)
	}
	same(t, "the snapshot", shown(), w.shows(r.Seq))
}

// However small each is, in sum the differences to one base never take more
// than twice a full dump's space.
func TestManyDifferencesMakeAFullDumpInTheEnd(t *testing.T) {
	w := newWorld(t, many())
	first := w.backup()
	sum := int64(0)
	for i := range 100 {
		w.source.set(fmt.Sprintf("/home/many/03/added %d", i), node{Content: "new", Time: 2000})
		r := w.backup()
		older, _ := w.dumps(r.Seq)
		if len(older) == 0 {
			if sum < first.Metadata {
				t.Errorf("a new full dump after %d bytes of differences to one of %d", sum, first.Metadata)
			}
			return
		}
		if sum += r.Metadata; sum > 2*first.Metadata {
			t.Fatalf("%d bytes of differences to a full dump of %d", sum, first.Metadata)
		}
	}
	t.Error("no full dump in 100 runs")
}

func TestALostBaseDumpMakesAFullOne(t *testing.T) {
	w := newWorld(t, many())
	w.backup()
	_, full := w.dumps(1)
	check(t, w.store.Delete(t.Context(), remote.DumpKey("host", 1, full[0].SHA256)))
	w.source.set("/home/many/03/added", node{Content: "new", Time: 2000})
	r := w.backup()
	same(t, "problems", []string{"notice"}, kinds(r))
	if older, _ := w.dumps(r.Seq); len(older) != 0 {
		t.Errorf("it is a difference to %v, which is lost", older)
	}
	same(t, "a file of the snapshot", "new", w.shows(r.Seq)["/home/many/03/added"])
}

// What a set's next dump refers to is pinned by the runs of other sets.
func TestRunsOfOtherSetsPinABase(t *testing.T) {
	w := newWorld(t, many())
	w.backup()
	_, full := w.dumps(1)
	one := w.set
	w.set = Set{Name: "other", Roots: []string{"/home/ann"}}
	w.backup()
	var want []remote.Object
	for _, d := range full {
		want = append(want, d.Object)
	}
	same(t, "pinned dumps", want, w.manifest(2).PinnedDumps)
	w.set = one
	w.backup()
	older, _ := w.dumps(3)
	same(t, "the base of the set's next run", full, older)
}

func TestNewRecipientsGetAFullDump(t *testing.T) {
	w := newWorld(t, many())
	w.backup()
	w.config.Recipients = append(w.config.Recipients, newWorld(t, home()).config.Recipients...)
	r := w.backup()
	if older, _ := w.dumps(r.Seq); len(older) != 0 {
		t.Errorf("it is a difference to %v, which the new recipient cannot read", older)
	}
}

// After a crash the index is where it was, and so is its base.
func TestAnInterruptedRunLeavesTheBase(t *testing.T) {
	w := newWorld(t, many())
	w.backup()
	_, full := w.dumps(1)
	r, err := w.index.Begin(t.Context(), index.RunInfo{Set: "default", SnapshotID: "host-x", Recipients: [32]byte{1}})
	check(t, err)
	check(t, r.DropBase(t.Context(), "default"))
	w.reopen()
	w.backup()
	older, _ := w.dumps(2)
	same(t, "the base", full, older)
}
