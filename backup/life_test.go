package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// life is what may happen to a writer in years, in any order.
type life struct {
	*world
	rng    *rand.Rand
	sets   []Set
	clock  int64                            // of edits
	want   map[remote.Seq]map[string]string // what each kept snapshot shows
	due    map[remote.Seq]moment            // what those show that may come to be
	newest map[string]remote.Seq            // of each set
	seen   remote.Seq                       // newest run that was looked at
	two    *age.X25519Identity
	copies []frozenIndex // of the index, as they were once
}

// moment is what a backup finds.
type moment struct {
	there  map[string]string
	denied map[string]bool // files that cannot be read
}

// frozenIndex is an index's files.
type frozenIndex struct{ db, log []byte }

func newLife(t *testing.T, seed uint64) *life {
	l := &life{
		world: newWorld(t, home()), rng: rand.New(rand.NewPCG(seed, 11)), clock: 5000,
		want: map[remote.Seq]map[string]string{}, due: map[remote.Seq]moment{}, newest: map[string]remote.Seq{},
		sets: []Set{{Name: "ann", Roots: []string{"/home/ann", "/home/shared"}}, {Name: "bob", Roots: []string{"/home/bob", "/home/shared"}}},
	}
	l.certify()
	l.source.set("/home/shared/f0/g0", node{Content: "ours", Time: 1000})
	var err error
	l.two, err = age.GenerateX25519Identity()
	check(t, err)
	l.former = []age.Identity{l.two}
	return l
}

// open opens the index, whose commits are told to onCommit.
func (l *life) open(onCommit func()) {
	l.t.Helper()
	check(l.t, l.index.Close())
	var err error
	l.index, err = index.Open(l.t.Context(), l.indexAt, index.Options{OnCommit: onCommit})
	check(l.t, err)
}

func (l *life) freeze() frozenIndex {
	db, err := os.ReadFile(l.indexAt)
	check(l.t, err)
	log, err := os.ReadFile(l.indexAt + "-wal")
	if !errors.Is(err, os.ErrNotExist) {
		check(l.t, err)
	}
	return frozenIndex{db, log}
}

// thaw puts a frozen index in the place of the one that is there.
func (l *life) thaw(f frozenIndex) {
	l.t.Helper()
	check(l.t, l.index.Close())
	os.Remove(l.indexAt + "-shm")
	check(l.t, os.WriteFile(l.indexAt, f.db, 0o600))
	check(l.t, os.WriteFile(l.indexAt+"-wal", f.log, 0o600))
	var err error
	l.index, err = index.Open(l.t.Context(), l.indexAt, index.Options{})
	check(l.t, err)
}

// dying is a store that answers no more from some point on.
type dying struct {
	remote.Store
	point func() (dead bool)
}

func (d *dying) Put(ctx context.Context, key string, body []byte) error {
	if d.point() {
		return errInjected
	}
	err := d.Store.Put(ctx, key, body)
	if d.point() {
		return errInjected
	}
	return err
}

func (d *dying) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if d.point() {
		return nil, errInjected
	}
	return d.Store.Get(ctx, key, off, n)
}

func (d *dying) Stat(ctx context.Context, key string) (remote.Info, error) {
	if d.point() {
		return remote.Info{}, errInjected
	}
	return d.Store.Stat(ctx, key)
}

func (d *dying) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	if d.point() {
		return func(yield func(remote.Info, error) bool) { yield(remote.Info{}, errInjected) }
	}
	return d.Store.List(ctx, prefix)
}

// killed begins a backup that dies at some commit of the index or some call of
// the store: nothing that it does after that is seen by anybody. It reports
// whether the backup came to it.
func (l *life) killed(at int) bool {
	l.t.Helper()
	var mu sync.Mutex
	points, dead := 0, false
	point := func() bool {
		mu.Lock()
		defer mu.Unlock()
		points++
		dead = dead || points >= at
		return dead
	}
	var frozen *frozenIndex // by whoever commits, one at a time
	l.open(func() {
		if point() && frozen == nil {
			f := l.freeze()
			frozen = &f
		}
	})
	l.config.Store = &dying{l.store, point}
	now := l.moment()
	r, err := l.try()
	l.config.Store = l.store
	if frozen != nil {
		l.thaw(*frozen)
	} else {
		l.open(nil)
	}
	s, failed := l.index.Status(l.t.Context())
	check(l.t, failed)
	if s.Intent != nil && s.Intent.Seq > int64(l.last()) {
		if _, known := l.due[remote.Seq(s.Intent.Seq)]; !known {
			l.due[remote.Seq(s.Intent.Seq)] = now // or it is an older one's
		}
	}
	if err == nil {
		l.due[r.Seq] = now
	}
	l.look(r, now)
	return err != nil
}

// last is the newest run in the store, 0 if there is none.
func (l *life) last() (last remote.Seq) {
	for _, seq := range seqs(l.world) {
		last = seq
	}
	return last
}

// backup backs up some set.
func (l *life) backup() {
	l.t.Helper()
	now := l.moment()
	r := l.world.backup()
	l.look(r, now)
}

func (l *life) moment() moment {
	m := moment{l.there(), map[string]bool{}}
	for p, n := range l.source.nodes {
		m.denied[p] = n.DenyRead != nil
	}
	return m
}

// look looks at new snapshots: each shows what was there, nothing is unreadable
// but what was, and each counts on nothing but what the run before it did. r is
// the run that just ended, nil if it was killed.
func (l *life) look(r *Result, now moment) {
	l.t.Helper()
	for _, seq := range seqs(l.world) {
		if seq <= l.seen {
			continue
		}
		l.seen = seq
		then, waited := l.due[seq]
		if !waited {
			then = now
		}
		l.newest[l.manifest(seq).Set] = seq
		shows := l.shows(seq)
		l.want[seq] = shows
		readable := maps.Clone(shows)
		for p, text := range shows {
			if text == "(unreadable)" && then.denied[p] {
				readable[p] = then.there[p]
				if r != nil && r.Seq == seq && !slices.Contains(kinds(r), "unreadable "+p) && !slices.Contains(kinds(r), "lost "+p) {
					l.t.Errorf("run %d does not tell that %s is missing: %v", seq, p, kinds(r))
				}
			}
		}
		same(l.t, fmt.Sprint("the snapshot of run ", seq), then.there, readable)
		if seq > 1 {
			l.follows(seq)
		}
	}
}

// whole makes sure that each snapshot still shows what it showed.
func (l *life) whole(when string) {
	l.t.Helper()
	for _, seq := range seqs(l.world) {
		if want := l.want[seq]; want != nil {
			same(l.t, fmt.Sprintf("snapshot %d after %s", seq, when), want, l.shows(seq))
		}
	}
}

// forget purges some snapshots that may go; now and then all of a set's.
func (l *life) forget() {
	keep := slices.Collect(maps.Values(l.newest))
	if l.rng.IntN(6) == 0 {
		keep = []remote.Seq{l.last()}
	}
	for _, seq := range seqs(l.world) {
		if !slices.Contains(keep, seq) && l.rng.IntN(3) > 0 {
			l.purge(seq)
		}
	}
}

// oldCopy brings an old copy of the index back for a run: either nothing was
// committed since, or it must be told from the one that goes on.
func (l *life) oldCopy() {
	l.t.Helper()
	if len(l.copies) == 0 {
		return
	}
	now, then := l.freezeClosed(), l.copies[l.rng.IntN(len(l.copies))]
	l.thaw(then)
	s, err := l.index.Status(l.t.Context())
	check(l.t, err)
	before, knows := l.last(), remote.Seq(s.LastSeq)
	if s.Intent != nil {
		knows = remote.Seq(s.Intent.Seq)
	}
	_, err = l.store.Store.Stat(l.t.Context(), remote.SignatureKey(remote.ManifestKey("host", before+1)))
	switch {
	case knows == before && err != nil:
		l.backup()
		return
	case knows <= before:
		if _, err := l.try(); !errors.Is(err, ErrCloned) {
			l.t.Errorf("an old copy of the index: %v", err)
		}
	}
	same(l.t, "the newest run", before, l.last())
	for _, seq := range seqs(l.world) {
		// One that it sent again although it was purged: nobody counts it.
		if _, err := l.store.Store.Stat(l.t.Context(), remote.TombstoneKey("host", seq)); err == nil {
			check(l.t, l.store.Store.Delete(l.t.Context(), remote.ManifestKey("host", seq)))
		}
	}
	l.thaw(now)
}

func (l *life) freezeClosed() frozenIndex {
	l.open(nil)
	return l.freeze()
}

// settled reports whether no run is half-committed.
func (l *life) settled() bool {
	s, err := l.index.Status(l.t.Context())
	check(l.t, err)
	return l.last() > 0 && s.Intent == nil
}

// deny makes a file unreadable, or readable again.
func (l *life) deny() {
	l.source.mu.Lock()
	defer l.source.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(l.source.nodes)) {
		if n := l.source.nodes[p]; n.Type == metastore.Regular && l.rng.IntN(8) == 0 {
			if n.DenyRead == nil {
				n.DenyRead = errInjected
			} else {
				n.DenyRead = nil
			}
		}
	}
}

// linkOrHole makes a file of two names, or one with a hole.
func (l *life) linkOrHole() {
	text := fmt.Sprint(l.rng.IntN(9), " linked")
	if l.rng.IntN(2) == 0 {
		for _, p := range []string{"/home/ann/one", "/home/shared/two"} {
			l.source.set(p, node{Content: text, Time: l.clock, Inode: 9, Nlink: 2})
		}
		return
	}
	data := text + strings.Repeat("\x00", 50_000) + "tail"
	l.source.set("/home/bob/sparse", node{Content: data, Time: l.clock, Data: [][2]int64{{0, int64(len(text))}, {int64(len(data) - 4), int64(len(data))}}})
}

// lose deletes one of the blobs that the newest run counts on. The snapshots that
// are there may be the worse for it, those to come are not.
func (l *life) lose() {
	var keys []string
	for name := range l.counted(l.manifest(l.last())) {
		keys = append(keys, remote.BlobKey("host", name.Seq, name.SHA256))
	}
	if len(keys) > 0 {
		check(l.t, l.store.Store.Delete(l.t.Context(), keys[l.rng.IntN(len(keys))])) // any: names are random
	}
	clear(l.want)
}

// A writer is killed at any moment, loses its index, gets an old copy of it
// back, does not find a blob, or does not see it, changes its recipients to and fro, compacts and spreads, while
// snapshots are purged and pruned: every snapshot that is kept shows for ever
// what was there, and no run counts on what the run before it let go.
func TestWhateverHappensEverySnapshotStays(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			for range 40 {
				if l.step(); t.Failed() {
					t.FailNow()
				}
			}
			l.backup()
			l.prune()
			l.whole("all")
		})
	}
}

func (l *life) step() {
	l.t.Helper()
	l.clock++
	l.set = l.sets[l.rng.IntN(2)]
	if l.rng.IntN(3) > 0 {
		l.scribble(l.rng, l.clock)
	}
	if l.rng.IntN(8) == 0 {
		l.linkOrHole()
	}
	l.config.CompactPerRun = []int64{0, 1000, 1 << 20}[l.rng.IntN(3)]
	l.config.ResealPerRun = []int64{0, 1000, 1 << 20}[l.rng.IntN(3)]
	what := ""
	switch n := l.rng.IntN(22); {
	case n < 7:
		what = "a backup"
		l.backup()
	case n < 11:
		what = "a backup that is killed"
		for range 1 + l.rng.IntN(3) {
			l.killed(1 + l.rng.IntN(40))
		}
	case n < 13:
		what = "a purge"
		l.forget()
	case n < 15 && l.last() > 0:
		what = "a prune"
		l.prune()
	case n < 16:
		what = "a change of recipients"
		ids := []*age.X25519Identity{l.identity, l.two}
		l.config.Recipients = []string{ids[l.rng.IntN(2)].Recipient().String()}
		if l.rng.IntN(3) == 0 {
			l.config.Recipients = []string{ids[0].Recipient().String(), ids[1].Recipient().String()}
		}
	case n < 17 && l.settled():
		what = "a rebuild"
		l.rebuild()
	case n < 18:
		what = "a file that nobody may read"
		l.deny()
	case n < 19:
		what = "an old copy of the index"
		l.oldCopy()
	case n < 20:
		what = "a listing that lags"
		l.store.Script(storetest.Fault{Op: storetest.OpList, Every: true, Kind: storetest.StaleList, Hide: 1 + l.rng.IntN(8)})
		l.backup()
		l.store.Script()
	case n < 21 && l.settled():
		what = "a blob that is lost"
		l.lose()
	default:
		l.copies = append(l.copies, l.freezeClosed())
	}
	if what == "a prune" && l.rng.IntN(3) == 0 {
		l.whole(what)
	}
}
