package prune_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/prune"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// life is a random history of one writer, of purges and of prunes.
type life struct {
	*world
	pick    *rapid.T
	pending *remote.Manifest // prepared, perhaps with its signature in the store, and not committed
	plans   []*prune.Plan    // looked at and not carried out yet
	fresh   int
	strays  int
}

// Whatever happens in whatever order, nothing is deleted that a retained
// manifest or the next run may refer to; and when all is quiet one prune
// leaves nothing else.
func TestNothingNeededGoesAndNothingElseStays(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x := &life{world: newWorld(r), pick: r}
		step := func(do func()) func(*rapid.T) {
			return func(r *rapid.T) {
				x.pick, x.t = r, r
				do()
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"":                       step(func() { x.whole() }),
			"backup":                 step(x.backup),
			"backup again":           step(x.backup), // twice as often as the rest
			"backup is killed":       step(x.killed),
			"intent is sent again":   step(x.resume),
			"purge":                  step(x.forget),
			"purge is killed":        step(x.half),
			"manifest comes late":    step(x.late),
			"stray":                  step(x.stray),
			"prune looks":            step(func() { x.plans = append(x.plans, x.look()) }),
			"prune deletes":          step(x.carryOut),
			"prune in one go":        step(func() { x.prune() }),
			"prune of a stale store": step(x.stale),
		})
		x.pick, x.t = r, r
		x.resume()
		x.prune()
		x.whole()
		if d := cmp.Diff(slices.Sorted(maps.Keys(x.model())), x.keys()); d != "" {
			r.Fatalf("not what it should be:\n%s", d)
		}
	})
}

// model is exactly what a prune leaves, told from what was committed.
func (x *life) model() map[string]bool {
	left := x.wanted()
	newest := remote.Seq(len(x.runs))
	for _, key := range x.keys() {
		k, err := remote.ParseKey(key)
		switch {
		case err != nil, k.Kind == remote.KindSigner, k.Kind == remote.KindTombstone, k.Signature:
			left[key] = true
		case k.Seq > newest:
			left[key] = true
		}
	}
	return left
}

// snap is what the next run refers to: any part of what the last one referred
// to or pinned, and what it uploads itself.
func (x *life) snap() snap {
	seq := x.next()
	var known, dumps []string
	if seq > 1 {
		last := x.runs[seq-2].Manifest
		for _, set := range []remote.ObjectList{last.Blobs, last.Pins} {
			all, err := set.Resolve(func(ref remote.ListRef) ([]remote.Object, error) { return x.lists[ref.SHA256], nil })
			if err != nil {
				x.t.Fatal(err)
			}
			known = append(known, x.names(all, remote.BlobKey)...)
		}
		var old []remote.Object
		for _, d := range last.Dumps {
			old = append(old, d.Object)
		}
		dumps = x.names(append(old, last.PinnedDumps...), remote.DumpKey)
	}
	some := func(names []string, label string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(string) bool { return !rapid.Bool().Draw(x.pick, label) })
	}
	for range rapid.IntRange(0, 3).Draw(x.pick, "new blobs") {
		x.fresh++
		known = append(known, fmt.Sprintf("%d/b%d", seq, x.fresh))
	}
	x.fresh++
	dump := fmt.Sprintf("%d/d%d", seq, x.fresh)
	s := snap{dumps: dump}
	pins := []string{}
	for _, name := range known {
		switch rapid.IntRange(0, 3).Draw(x.pick, "what "+name+" is for") {
		case 0:
			pins = append(pins, name)
		case 1, 2:
			s.blobs += " " + name
		}
	}
	s.pins = strings.Join(pins, " ")
	base := some(dumps, "base")
	if len(base) > 0 {
		s.dumps = base[0] + " " + dump
		s.pinnedDumps = strings.Join(base[1:], " ")
	}
	switch {
	case rapid.Bool().Draw(x.pick, "new list"):
		s.list = strings.Join(known, " ")
	case seq > 1 && rapid.Bool().Draw(x.pick, "same list"):
		s.sameList = true
	}
	return s
}

// names tells objects as snap does.
func (x *life) names(objects []remote.Object, at func(string, remote.Seq, remote.Hash) string) []string {
	var names []string
	for _, o := range objects {
		name := fmt.Sprintf("%d/%s", o.Seq, x.read(at(x.writer, o.Seq, o.SHA256)))
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (x *life) backup() {
	x.resume() // what was on disk is sent first
	x.run(x.snap())
}

// killed is a run that got as far as its uploads, or further: to the intent,
// and the signature.
func (x *life) killed() {
	if x.pending != nil {
		x.pick.Skip("a run is under way already")
	}
	m := x.prepare(x.snap())
	if rapid.Bool().Draw(x.pick, "with an intent") {
		x.pending = m
	}
}

func (x *life) resume() {
	if x.pending != nil {
		x.commit(x.pending)
		x.pending = nil
	}
}

// retained are the runs that a purge may forget.
func (x *life) retained() []remote.Seq {
	var seqs []remote.Seq
	for i := range len(x.runs) - 1 {
		seq := remote.Seq(i + 1)
		if _, err := x.Stat(context.Background(), remote.TombstoneKey(x.writer, seq)); err != nil {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

func (x *life) one(what string, seqs []remote.Seq) remote.Seq {
	if len(seqs) == 0 {
		x.pick.Skip("there is none")
	}
	return rapid.SampledFrom(seqs).Draw(x.pick, what)
}

func (x *life) forget() { x.purge(x.one("forget", x.retained())) }
func (x *life) half()   { x.bury(x.one("bury", x.retained()), "ann") }

// late is a request to put a manifest that arrives long after it was repeated.
func (x *life) late() {
	var seqs []remote.Seq
	for i := range x.runs {
		seqs = append(seqs, remote.Seq(i+1))
	}
	x.send(x.one("late", seqs))
}

func (x *life) stray() {
	x.strays++
	x.put(fmt.Sprintf("ann/blobs/%010d/stray%d", 1, x.strays), []byte("mine"))
}

// carryOut deletes what an older look found, up to some point.
func (x *life) carryOut() {
	if len(x.plans) == 0 {
		x.pick.Skip("nobody looked")
	}
	p := rapid.SampledFrom(x.plans).Draw(x.pick, "plan")
	f := storetest.NewFaulty(x.Store)
	if rapid.Bool().Draw(x.pick, "killed") {
		f.Script(storetest.Fault{Op: storetest.OpDelete, Kind: storetest.Fail, Every: true, Call: rapid.IntRange(1, 4).Draw(x.pick, "at")})
	}
	_, err := p.Delete(context.Background(), f, nil)
	if (err != nil) != (f.Injected() > 0) {
		x.t.Fatal(err)
	}
}

// stale is a prune that is not shown everything.
func (x *life) stale() {
	hidden := rapid.SliceOfN(rapid.SampledFrom(x.keys()), 0, 3).Draw(x.pick, "hidden")
	if rapid.Bool().Draw(x.pick, "the newest, too") {
		hidden = append(hidden, remote.ManifestKey(x.writer, remote.Seq(len(x.runs))))
	}
	o := x.options()
	o.Store = &hiding{x.Store, "", hidden}
	p, err := prune.Look(context.Background(), o, x.writer)
	if err != nil {
		x.t.Fatal(err)
	}
	if p.Stopped == nil {
		if _, err := p.Delete(context.Background(), x.Store, nil); err != nil {
			x.t.Fatal(err)
		}
	}
}
