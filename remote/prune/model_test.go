package prune_test

import (
	"fmt"
	"math/bits"
	"os"
	"strings"
	"testing"
)

// The protocol by which backups and prunes share a store without locks and
// clocks, as a model small enough to look at every state that it can be in: one
// writer, for writers share nothing, and two who purge and prune, who may all
// stop anywhere. The network may repeat a PUT any time later, a listing may
// hide any manifests and tombstones there are, and the writer may crash between
// any two steps.
//
// What is to hold in every state: whatever a retained manifest refers to is
// there, and so is whatever the writer's next run may refer to.

// The bounds within which everything is tried.
const (
	modelRuns  = 3 // runs that commit
	modelBlobs = 3 // blobs that are ever uploaded, those of crashed runs included
)

// size is how much of that is tried.
type size struct{ runs, pruners int }

// The sizes: with one pruner all runs, with two only two of them, since the
// product takes a gigabyte and, on two cores, half a minute.
var (
	onePruner  = size{modelRuns, 1}
	twoPruners = size{2, 2}
	everything = size{modelRuns, 2}
)

// action is what leads from one state to the next: what is done, by which of the
// pruners or by the writer, and to which run or blob, or to the set of which.
type action struct {
	what   string
	pruner int
	of     int
}

const writer = -1

func (a action) String() string {
	who := ""
	if a.pruner != writer {
		who = fmt.Sprintf("pruner %d ", a.pruner+1)
	}
	if !strings.Contains(a.what, "%") {
		return who + a.what
	}
	return fmt.Sprintf(who+a.what, a.of)
}

type yielder = func(state, action)

// rules are the protocol; without any of the flags they are what vaultik
// keeps to, and each flag breaks them in one place.
type rules struct {
	size
	dedupAgainstAll    bool // W2: a run refers to any blob that the index ever knew
	noIntent           bool // W3: after a crash other bytes may be put under the same seq
	overwrites         bool // W4: a PUT replaces what is there
	commitBeforeUpload bool // the manifest is put first, its blobs after it
	gapsAreForgotten   bool // P1: a manifest that is not shown counts as forgotten
	tombstoneIsNewest  bool // P1: a tombstone may say which run is the newest
	forgetsNewest      bool // P2
	noTombstones       bool // P3: manifests are only deleted
	collectsInFlight   bool // P4: without k ≤ seq(N)
	ignoresPins        bool // P4: without the pins of N
	keepsNewestOnly    bool // P4: what only older snapshots refer to goes
}

// A set is a bit for each run, or for each blob.
type bitSet uint8

func (s bitSet) has(i int) bool       { return s&(1<<i) != 0 }
func (s bitSet) with(i int) bitSet    { return s | 1<<i }
func (s bitSet) without(i int) bitSet { return s &^ (1 << i) }
func (s bitSet) max() int             { return bits.Len8(uint8(s)) - 1 }

// content is what a manifest names.
type content struct{ refs, pins bitSet }

// The writer's steps.
type step uint8

const (
	idle step = iota
	running
	uploaded // its blob, if it had one
	intended // the intent is on file
	put      // the manifest is in the store, and the index does not know it
)

// state is one moment of it: the store, the writer with its index, two pruners, and a
// PUT that the network holds back.
type state struct {
	blobs, manifests, tombstones bitSet
	seq                          [modelBlobs]uint8 // under which a blob was uploaded
	says                         [modelRuns + 1]content
	made                         uint8 // blobs uploaded so far

	writer    step
	committed uint8   // runs, by the index
	base      content // what the newest of them names
	known     bitSet  // blobs that the index knows
	draft     content // of the run under way
	intent    bool
	crashed   bool // the writer may do so once

	late   uint8 // what is held back: 0 nothing, 1 a manifest, 2 a blob, 3 it was delivered
	lateOf uint8
	lateIs content

	pruners [2]pruner
}

// pruner is somebody who purges and prunes. That tombstones are read after the
// manifests needs no step of its own: as any of either may be hidden, what is
// seen of one before and of the other after a change can be seen at once.
type pruner struct {
	newest uint8  // N, of a prune at work; else 0
	keep   bitSet // blobs
	goner  uint8  // the run whose manifest is deleted next, its tombstone being there
}

// next gives all states that can follow w.
func (r rules) next(w state, yield yielder) {
	r.write(w, yield)
	r.deliver(w, yield)
	for i := range r.pruners {
		r.prune(w, i, yield)
	}
}

func (r rules) write(w state, yield yielder) {
	seq := int(w.committed) + 1
	if w.writer != idle && !w.crashed {
		n := w
		n.crashed, n.writer, n.draft = true, idle, content{}
		if n.intent = n.intent && !r.noIntent; n.intent {
			n.draft = w.draft
		}
		yield(n, action{"the writer crashes", writer, 0})
	}
	switch w.writer {
	case idle:
		if seq > r.runs {
			return
		}
		if n := w; n.intent {
			n.writer = intended
			yield(n, action{"the writer finds its intent", writer, 0})
			return
		}
		n := w
		n.writer = running
		yield(n, action{"a run begins", writer, 0})
	case running:
		n := w
		n.writer = uploaded
		if w.made == modelBlobs {
			yield(n, action{"the run has nothing new", writer, 0})
			return
		}
		n.made++
		blob := int(w.made)
		n.seq[blob] = uint8(seq)
		n.known = n.known.with(blob)
		if r.commitBeforeUpload {
			yield(n, action{"the run leaves its blob for later", writer, 0})
			return
		}
		n.blobs = n.blobs.with(blob)
		yield(n, action{"the run uploads a blob", writer, 0})
		if n.late == 0 {
			n.late, n.lateOf = 2, uint8(blob)
			yield(n, action{"the run uploads a blob, and the network keeps a copy of the request", writer, 0})
		}
		if !w.crashed {
			n := w
			n.made, n.seq[blob], n.blobs = n.made+1, uint8(seq), n.blobs.with(blob)
			n.crashed, n.writer = true, idle
			yield(n, action{"the writer crashes behind the upload of a blob", writer, 0})
		}
	case uploaded:
		r.intend(w, seq, yield)
	case intended:
		n := w
		n.writer = put
		yield(r.putManifest(n, seq, w.draft), action{"the run puts its manifest", writer, 0})
		if n.late == 0 {
			n.late, n.lateOf, n.lateIs = 1, uint8(seq), w.draft
			yield(r.putManifest(n, seq, w.draft), action{"the run puts its manifest, and the network keeps a copy of the request", writer, 0})
		}
	case put:
		n := w
		n.writer, n.committed, n.intent, n.base, n.draft = idle, uint8(seq), false, w.draft, content{}
		if r.commitBeforeUpload {
			n.blobs |= n.base.refs
		}
		yield(n, action{"the index learns that the run is committed", writer, 0})
	}
}

// intend decides what the manifest names: anything that W2 allows.
func (r rules) intend(w state, seq int, yield yielder) {
	may := w.base.refs | w.base.pins
	for blob := range modelBlobs {
		if w.known.has(blob) && (int(w.seq[blob]) == seq || r.dedupAgainstAll) {
			may = may.with(blob)
		}
	}
	for refs := may; ; refs = (refs - 1) & may { // every subset
		for pins := may &^ refs; ; pins = 0 { // the rest, or nothing
			n := w
			n.writer, n.draft, n.intent = intended, content{refs, pins}, true
			yield(n, action{"the run means to name %04b", writer, int(refs)})
			if pins == 0 {
				break
			}
		}
		if refs == 0 {
			break
		}
	}
}

// putManifest is a PUT with If-None-Match. What it finds there can only be
// what an earlier try has put; the model's other invariants would show if not.
func (r rules) putManifest(w state, seq int, c content) state {
	if w.manifests.has(seq) && !r.overwrites {
		return w
	}
	w.manifests, w.says[seq] = w.manifests.with(seq), c
	return w
}

// deliver lets the network repeat a request.
func (r rules) deliver(w state, yield yielder) {
	n := w
	n.late, n.lateIs, n.lateOf = 3, content{}, 0
	switch w.late {
	case 1:
		yield(r.putManifest(n, int(w.lateOf), w.lateIs), action{"the network repeats the PUT of a manifest", writer, 0})
	case 2:
		n.blobs = n.blobs.with(int(w.lateOf))
		yield(n, action{"the network repeats the PUT of a blob", writer, 0})
	}
}

func (r rules) prune(w state, i int, yield yielder) {
	p := w.pruners[i]
	as := func(n state, q pruner, what string, of int) {
		n.pruners[i] = q
		yield(n, action{what, i, of})
	}
	switch {
	case p.newest > 0:
		as(w, pruner{}, "is done, or dies", 0)
		for blob := range modelBlobs {
			if w.blobs.has(blob) && !p.keep.has(blob) && (w.seq[blob] <= p.newest || r.collectsInFlight) {
				n := w
				n.blobs = n.blobs.without(blob)
				as(n, p, "deletes blob %d", blob)
			}
		}
		return
	case p.goner > 0:
		as(w, pruner{}, "dies", 0)
		n := w
		n.manifests = n.manifests.without(int(p.goner))
		as(n, pruner{}, "deletes the manifest of run %d", int(p.goner))
		return
	}
	for listed := w.manifests; listed != 0; listed = (listed - 1) & w.manifests {
		for tombstones := w.tombstones; ; tombstones = (tombstones - 1) & w.tombstones {
			if newest, ok := r.whole(listed, tombstones); ok {
				as(w, r.plan(w, listed, tombstones, newest), "prunes, having seen the manifests %04b and tombstones for the rest", int(listed))
				r.purge(w, listed, tombstones, newest, as)
			}
			if tombstones == 0 {
				break
			}
		}
	}
}

// whole is P1: every run is accounted for, and the last of them is there.
func (r rules) whole(listed, tombstones bitSet) (newest int, ok bool) {
	newest, last := listed.max(), (listed | tombstones).max()
	if last != newest || tombstones.has(newest) && !r.forgetsNewest {
		return last, r.tombstoneIsNewest
	}
	gaps := listed|tombstones != bitSet(2<<last)-2
	return newest, !gaps || r.gapsAreForgotten || r.noTombstones
}

// plan is what a prune keeps: P4.
func (r rules) plan(w state, listed, tombstones bitSet, newest int) pruner {
	q := pruner{newest: uint8(newest)}
	for seq, c := range w.says {
		if listed.has(seq) && !tombstones.has(seq) && (!r.keepsNewestOnly || seq == newest) {
			q.keep |= c.refs
		}
	}
	if !r.ignoresPins {
		q.keep |= w.says[newest].pins
	}
	return q
}

// purge forgets one run, or goes on where another purge has stopped: P2, P3.
func (r rules) purge(w state, listed, tombstones bitSet, newest int, as func(state, pruner, string, int)) {
	for seq := 1; seq <= newest; seq++ {
		if !listed.has(seq) || seq == newest && !r.forgetsNewest {
			continue
		}
		n := w
		if !r.noTombstones {
			n.tombstones = n.tombstones.with(seq)
		}
		as(n, pruner{goner: uint8(seq)}, "forgets run %d", seq)
	}
}

// wrong says what is lost in a state, "" if nothing is.
func (r rules) wrong(w state) string {
	for seq := 1; seq <= modelRuns; seq++ {
		if !w.manifests.has(seq) || w.tombstones.has(seq) {
			continue
		}
		if lost := w.says[seq].refs &^ w.blobs; lost != 0 {
			return fmt.Sprintf("the snapshot of run %d misses blobs %04b", seq, lost)
		}
	}
	may := w.base
	if w.intent { // the manifest may be there
		may = w.draft
	}
	if lost := (may.refs | may.pins) &^ w.blobs; lost != 0 && !r.commitBeforeUpload {
		return fmt.Sprintf("the next run may refer to blobs %04b, which are gone", lost)
	}
	return ""
}

// normal makes states one that differ in nothing that can ever matter: in which
// of the pruners is which, and in what nobody will ask for again.
func (r rules) normal(w state) state {
	if r.pruners == 2 && order(w.pruners[0]) > order(w.pruners[1]) {
		w.pruners[0], w.pruners[1] = w.pruners[1], w.pruners[0]
	}
	if !r.dedupAgainstAll {
		for blob := range modelBlobs {
			if int(w.seq[blob]) <= int(w.committed) {
				w.known = w.known.without(blob)
			}
		}
	}
	for seq := range w.says {
		if !w.manifests.has(seq) {
			w.says[seq] = content{}
		}
	}
	return w
}

func order(p pruner) int { return int(p.newest)<<16 | int(p.keep)<<8 | int(p.goner) }

// explore looks at every state that can be reached, the nearest first, and
// returns how many there are, up to the first in which something is lost, and
// how that came about.
func (r rules) explore() (states int, story []string) {
	all := []state{{}}
	from := []int32{0} // which state each was reached from
	index := map[state]int32{{}: 0}
	for at := int32(0); int(at) < len(all) && story == nil; at++ {
		r.next(all[at], func(w state, _ action) {
			w = r.normal(w)
			if _, met := index[w]; met || story != nil {
				return
			}
			index[w] = int32(len(all))
			all, from = append(all, w), append(from, at)
			if why := r.wrong(w); why != "" {
				story = []string{why}
			}
		})
	}
	if story == nil {
		return len(all), nil
	}
	for at := int32(len(all) - 1); at != 0; at = from[at] {
		told := false
		r.next(all[from[at]], func(w state, how action) {
			if !told && r.normal(w) == all[at] {
				story, told = append([]string{how.String()}, story...), true
			}
		})
	}
	return len(all), story
}

func TestNothingIsLostInAnyStateOfTheProtocol(t *testing.T) {
	sizes := []size{onePruner, twoPruners}
	switch {
	case os.Getenv("VAULTIK_SOAK") != "":
		sizes = []size{everything}
	case testing.Short(): // the race detector makes nothing of it but ten times the time
		sizes = []size{twoPruners}
	}
	states := 0
	for _, size := range sizes {
		n, story := rules{size: size}.explore()
		if story != nil {
			t.Fatalf("after\n\t%s", strings.Join(story, "\n\t"))
		}
		t.Logf("%d states with %d runs and %d pruners", n, size.runs, size.pruners)
		states += n
	}
	if states < 500_000 && !testing.Short() {
		t.Errorf("only %d states: the model is smaller than it was meant to be", states)
	}
}

// A store whose If-None-Match lets two creators win does no harm as long as
// the same bytes are put again.
func TestNothingIsLostWithoutConditionalPutsIfThereIsAnIntent(t *testing.T) {
	states, story := rules{size: twoPruners, overwrites: true}.explore()
	t.Logf("%d states", states)
	if story != nil {
		t.Fatalf("after\n\t%s", strings.Join(story, "\n\t"))
	}
}

// Every rule is there for a reason: without it, something is lost.
func TestEveryRuleOfTheProtocolIsNeeded(t *testing.T) {
	for _, broken := range []struct {
		name string
		rules
	}{
		{"W2: dedup against the whole index", rules{dedupAgainstAll: true}},
		{"W3 and W4: neither intent nor conditional PUT", rules{noIntent: true, overwrites: true}},
		{"commit before upload", rules{commitBeforeUpload: true}},
		{"P1: gaps count as forgotten", rules{gapsAreForgotten: true}},
		{"P1: a tombstone counts as the newest", rules{tombstoneIsNewest: true}},
		{"P2: the newest is forgotten", rules{forgetsNewest: true}},
		{"P3: no tombstones", rules{noTombstones: true}},
		{"P4: runs in flight are collected", rules{collectsInFlight: true}},
		{"P4: pins are ignored", rules{ignoresPins: true}},
		{"P4: only the newest is kept", rules{keepsNewestOnly: true}},
	} {
		t.Run(broken.name, func(t *testing.T) {
			broken.size = onePruner
			states, story := broken.rules.explore()
			if story == nil {
				t.Fatalf("nothing was lost in %d states", states)
			}
			t.Logf("caught after %d states:\n\t%s", states, strings.Join(story, "\n\t"))
		})
	}
}
