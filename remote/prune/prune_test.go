package prune_test

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/prune"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// months is a history of four runs: 3/d was uploaded by a try of run 3 that was
// killed, 1/b lives on as a pin, and 5/x belongs to a run under way.
func months(t tester) *world {
	x := newWorld(t)
	x.run(snap{blobs: "1/a 1/b 1/c"})
	x.run(snap{blobs: "1/a 1/b 2/a", dumps: "1/dump 2/diff"})
	x.upload(3, "3/d", remote.BlobKey)
	x.upload(3, "3/try", remote.DumpKey)
	x.run(snap{blobs: "1/a 2/a 3/a", pins: "1/b", dumps: "3/dump", pinnedDumps: "1/dump"})
	x.run(snap{blobs: "1/a 3/a 4/a", pins: "1/b", dumps: "3/dump 4/diff", pinnedDumps: "1/dump"})
	x.upload(5, "5/x", remote.BlobKey)
	return x
}

func TestWhatNoSnapshotNeedsIsDeleted(t *testing.T) {
	x := months(t)
	x.put("ann/blobs/0000000001/notes.txt", []byte("mine"))
	x.purge(2)
	x.bury(1, "maintainer") // a purge that was killed before it deleted the manifest
	p := x.prune()
	// 1/dump stays because run 3 and 4 pin it for other sets' differences.
	want := "1/a 1/b 2/a 3/a 4/a 5/x ann/blobs/0000000001/notes.txt " +
		"dump:1/dump dump:3/dump dump:4/diff manifest:3 manifest:4 minisig:1 minisig:2 minisig:3 minisig:4 tombstone:1 tombstone:2"
	if d := cmp.Diff(want, x.left()); d != "" {
		t.Error(d)
	}
	freed := prune.Freed{Blobs: prune.Count{Objects: 2, Bytes: 2}, Dumps: prune.Count{Objects: 2, Bytes: 7}, Manifests: prune.Count{Objects: 1, Bytes: x.runs[0].Size}}
	if d := cmp.Diff(freed, p.Freed()); d != "" {
		t.Error(d)
	}
	p.Stays.Metadata.Bytes = 0
	stays := prune.Stays{
		Blobs: prune.Count{Objects: 4, Bytes: 4}, Pinned: prune.Count{Objects: 1, Bytes: 1}, Newer: prune.Count{Objects: 1, Bytes: 1},
		Strays: prune.Count{Objects: 1, Bytes: 4}, Metadata: prune.Count{Objects: 15}, // manifests, signatures, tombstones, dumps, signers: 2+4+2+3+4
	}
	if d := cmp.Diff(stays, p.Stays); d != "" {
		t.Error(d)
	}
	if p.Newest != 4 || p.Snapshots != 2 || p.Forgotten != 2 || len(p.Missing) > 0 {
		t.Errorf("plan says %+v", p)
	}
	if again := x.prune(); len(again.Garbage) > 0 {
		t.Errorf("there was more: %v", again.Garbage)
	}
}

func TestNothingIsDeletedWithoutNeed(t *testing.T) {
	for name, c := range map[string]struct {
		happen func(x *world)
		gone   string
	}{
		"nothing happened": {func(*world) {}, "3/d"},
		"a first backup is under way": {func(x *world) {
			*x = *newWorld(x.t)
			x.upload(1, "1/a 1/b", remote.BlobKey)
		}, ""},
		"the oldest was forgotten":               {func(x *world) { x.purge(1) }, "1/c 3/d"},
		"all that may be were forgotten":         {func(x *world) { x.purge(1, 2, 3) }, "1/c 2/a 3/d"},
		"a tombstone of the newest is no reason": {func(x *world) { x.bury(4, "maintainer") }, "3/d"},
		"a stranger's tombstone is none":         {func(x *world) { x.bury(1, "stranger") }, "3/d"},
		"nor is one of another manifest":         {func(x *world) { x.buryAs(1, remote.Sum([]byte("another")), nil, "ann") }, "3/d"},
		"nor is one in another's place":          {func(x *world) { x.put(remote.TombstoneKey("ann", 1), x.stone(2)) }, "3/d"},
		"nor is one that is no tombstone at all": {func(x *world) { x.put(remote.TombstoneKey("ann", 1), []byte("{}")) }, "3/d"},
		"a manifest comes back late":             {func(x *world) { x.purge(1); x.send(1) }, "1/c 3/d"},
		"a list and what is dropped from it by all": {func(x *world) {
			x.run(snap{blobs: "1/a 3/a 4/a 5/x", pins: "1/b", list: "1/a 1/b 1/c 3/a 4/a"})
			x.run(snap{blobs: "1/a 3/a 5/x 6/n", pins: "4/a", sameList: true})
			x.purge(1, 2)
		}, "1/b 1/c 3/d"},
	} {
		t.Run(name, func(t *testing.T) {
			x := months(t)
			c.happen(x)
			before := strings.Fields(x.blobs())
			x.prune()
			x.whole()
			after := strings.Fields(x.blobs())
			gone := slices.DeleteFunc(before, func(word string) bool { return slices.Contains(after, word) })
			if d := cmp.Diff(c.gone, strings.Join(gone, " ")); d != "" {
				t.Errorf("gone: %s", d)
			}
			for key := range x.wanted() {
				if _, err := x.Stat(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// stone returns a run's tombstone.
func (x *world) stone(seq remote.Seq) []byte {
	v := x.runs[seq-1]
	object, err := remote.NewTombstone(x.writer, seq, v.Hash, v.Manifest.Previous, time.Unix(1_800_000_000, 0)).Sign(key("ann"))
	if err != nil {
		x.t.Fatal(err)
	}
	return object
}

func TestNothingOfAWriterIsDeletedWhileItCannotBeBelieved(t *testing.T) {
	third := remote.ManifestKey("ann", 3)
	for name, c := range map[string]struct {
		happen func(x *world)
		class  error
		says   string // the object, and what to do
	}{
		"a manifest is missing":            {func(x *world) { x.remove(third) }, remote.ErrMissing, "0000000003/manifest.json.zst\": missing from the chain.*snapshot purge --writer [^ ]+ --missing 3"},
		"a manifest's signature is":        {func(x *world) { x.remove(remote.SignatureKey(third)) }, remote.ErrNotTrusted, third},
		"the first manifests are":          {func(x *world) { x.remove(remote.ManifestKey("ann", 1), remote.ManifestKey("ann", 2)) }, remote.ErrMissing, "0000000001/manifest"},
		"a manifest is changed":            {func(x *world) { x.remove(third); x.put(third, []byte("changed")) }, remote.ErrNotTrusted, third},
		"a stranger's manifest is newest":  {func(x *world) { x.put(remote.ManifestKey("ann", 9), []byte("mine")) }, remote.ErrNotTrusted, "0000000009"},
		"a tombstone is forged for a lost": {func(x *world) { x.bury(3, "stranger"); x.remove(third) }, remote.ErrMissing, third},
		"the newest is gone":               {func(x *world) { x.purge(4) }, remote.ErrMissing, "0000000005"},
		"a newer program wrote one": {func(x *world) {
			x.replace(4, strings.Replace(x.text(4), `"requires":[]`, `"requires":["holes"]`, 1))
		}, remote.ErrUnsupported, `"holes".*use a newer`},
		"two machines wrote as one": {func(x *world) {
			other := remote.Sum([]byte("another past"))
			m := *x.runs[3].Manifest
			m.Previous = &other
			x.remove(remote.ManifestKey("ann", 4), remote.SignatureKey(remote.ManifestKey("ann", 4)))
			x.runs = x.runs[:3]
			x.commit(&m)
		}, remote.ErrNotTrusted, "two machines"},
		"nobody is certified": {func(x *world) {
			x.remove(remote.SignatureKey(remote.SignerKey("ann", 1)), remote.SignatureKey(remote.SignerKey("ann", 2)))
		},
			remote.ErrNotTrusted, "key certify ann"},
		"a list is lost":    {func(x *world) { x.listed(); x.remove(x.listKey()) }, remote.ErrMissing, `\.list\.zst": missing.*any of the runs 5 to 6.*copy of the store`},
		"a list is changed": {func(x *world) { x.listed(); at := x.listKey(); x.remove(at); x.put(at, []byte("changed")) }, remote.ErrCorrupt, `\.list\.zst`},
		"a manifest drops what its list does not have": {func(x *world) {
			x.listed()
			m := *x.runs[5].Manifest
			m.Seq, m.Previous = 7, &x.runs[5].Hash
			m.Blobs.Drop = []remote.Name{{Seq: 1, SHA256: remote.Sum([]byte("nobody's"))}}
			x.commit(&m)
		}, remote.ErrCorrupt, "0000000007/manifest"},
		"a manifest adds what its list has": {func(x *world) {
			x.listed()
			m := *x.runs[5].Manifest
			m.Seq, m.Previous = 7, &x.runs[5].Hash
			m.Blobs.Add = objects("1/a")
			x.commit(&m)
		}, remote.ErrCorrupt, "0000000007/manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			x := months(t)
			c.happen(x)
			before := x.keys()
			p := x.look()
			if p.Stopped == nil || !errors.Is(p.Stopped, c.class) {
				t.Fatalf("stopped: %v", p.Stopped)
			}
			matches(t, c.says, p.Stopped)
			if !slices.ContainsFunc(p.Flaws, func(err error) bool { return strings.Contains(p.Stopped.Error(), err.Error()) }) {
				t.Errorf("flaws %q lack %q", p.Flaws, p.Stopped)
			}
			if _, err := p.Delete(t.Context(), x.Store, nil); !errors.Is(err, c.class) {
				t.Errorf("Delete returns %v", err)
			}
			if d := cmp.Diff(before, x.keys()); d != "" || len(p.Garbage) > 0 {
				t.Errorf("%v\n%s", p.Garbage, d)
			}
		})
	}
}

// listed makes two runs that share a list.
func (x *world) listed() {
	x.run(snap{blobs: "1/a 3/a 5/x", list: "1/a 3/a 5/x"})
	x.run(snap{blobs: "1/a 5/x", sameList: true})
}

func (x *world) listKey() string {
	l := x.runs[len(x.runs)-1].Manifest.Blobs.List
	return remote.ListKey(x.writer, l.Seq, l.SHA256)
}

// A store that remembers less than its reader is not pruned: who knows what
// else it has lost.
func TestARolledBackStoreIsLeftAlone(t *testing.T) {
	x := months(t)
	seen, err := remote.OpenSeen(filepath.Join(t.TempDir(), "seen.json"))
	if err != nil {
		t.Fatal(err)
	}
	o := x.options()
	o.Flaws = func(w *remote.WriterState) []error { return w.Flaws(seen, "here", time.Unix(0, 0)) }
	look := func(o prune.Options) *prune.Plan {
		t.Helper()
		p, err := prune.Look(t.Context(), o, "ann")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := look(o); p.Stopped != nil || len(p.Garbage) != 2 {
		t.Fatalf("%v, %v", p.Stopped, p.Garbage)
	}
	f := storetest.NewFaulty(x.Store)
	fourth := remote.ManifestKey("ann", 4)
	x.remove(fourth)
	o.Store = f
	p := look(o)
	if r := (*remote.Rollback)(nil); !errors.As(p.Stopped, &r) || r.Shown != 3 || r.Remembered != 4 || len(p.Garbage) > 0 {
		t.Errorf("%v, %v", p.Stopped, p.Garbage)
	}
	// One who never looked before cannot know. He spares what run 4 needs.
	o.Flaws = nil
	if p := look(o); p.Stopped != nil || p.Newest != 3 || len(p.Garbage) != 2 {
		t.Errorf("%v, %v", p.Stopped, p.Garbage)
	}
	// All of the writer is gone, to where nobody knows.
	x.remove(x.keys()...)
	o.Flaws = func(w *remote.WriterState) []error { return w.Flaws(seen, "here", time.Unix(0, 0)) }
	if p := look(o); !errors.Is(p.Stopped, remote.ErrNotTrusted) {
		t.Error(p.Stopped)
	}
}

func TestWhatListingsHideIsSpared(t *testing.T) {
	objects, tombstones := "^ann/$", "^ann/forgotten/$"
	for name, c := range map[string]struct {
		prefix  string
		hide    []string
		stopped bool
		newest  remote.Seq
	}{
		"the newest manifest":                 {objects, []string{remote.ManifestKey("ann", 6)}, false, 5},
		"the newest two":                      {objects, []string{remote.ManifestKey("ann", 6), remote.ManifestKey("ann", 5)}, false, 4},
		"an older one":                        {objects, []string{remote.ManifestKey("ann", 5)}, true, 6},
		"the oldest that is there":            {objects, []string{remote.ManifestKey("ann", 3)}, true, 6},
		"the tombstone of what is gone":       {tombstones, []string{remote.TombstoneKey("ann", 1)}, true, 6},
		"a tombstone whose manifest is there": {tombstones, []string{remote.TombstoneKey("ann", 2)}, false, 6},
		"all tombstones":                      {tombstones, []string{remote.TombstoneKey("ann", 1), remote.TombstoneKey("ann", 2)}, true, 6},
		"blobs":                               {objects, []string{remote.BlobKey("ann", 1, remote.Sum([]byte("b"))), remote.BlobKey("ann", 1, remote.Sum([]byte("c")))}, false, 6},
	} {
		t.Run(name, func(t *testing.T) {
			x := months(t)
			x.run(snap{blobs: "1/a 4/a 5/n", pins: "1/b 3/a 5/x", dumps: "3/dump 5/diff", list: "1/a 1/b 3/a 4/a"})
			x.run(snap{blobs: "1/b 4/a 6/n", pins: "3/a", dumps: "6/dump", sameList: true})
			x.purge(1)
			x.bury(2, "ann")
			o := x.options()
			o.Store = &hiding{x.Store, c.prefix, c.hide}
			p, err := prune.Look(t.Context(), o, "ann")
			if err != nil {
				t.Fatal(err)
			}
			if (p.Stopped != nil) != c.stopped || p.Newest != c.newest {
				t.Fatalf("newest %d, stopped: %v", p.Newest, p.Stopped)
			}
			if !c.stopped {
				if _, err := p.Delete(t.Context(), x.Store, nil); err != nil {
					t.Fatal(err)
				}
			}
			x.whole()
			x.run(snap{blobs: "1/b 3/a 6/n", dumps: "6/dump 7/diff", sameList: true}) // it refers to what was pinned
			x.prune()
			x.whole()
		})
	}
}

func TestAPruneMayBeKilledAtEveryDelete(t *testing.T) {
	start := months(t)
	start.purge(2)
	start.bury(1, "ann")
	done := copyOf(start)
	total := len(done.prune().Garbage)
	if total < 5 {
		t.Fatalf("only %d objects to delete", total)
	}
	want := done.keys()
	for name, fault := range map[string]storetest.Fault{
		"every further delete fails": {Kind: storetest.Fail, Every: true},
		"one fails":                  {Kind: storetest.Fail},
		"the answers are lost":       {Kind: storetest.LostAnswer, Every: true},
		"the rights end":             {Kind: storetest.Fail, Every: true, Err: remote.ErrDenied},
		"the store goes away":        {Kind: storetest.Fail, Every: true, Err: remote.ErrNoStore},
		"the process is told to end": {Kind: storetest.Stall, Every: true},
	} {
		for k := 1; k <= total; k++ {
			x := copyOf(start)
			f := storetest.NewFaulty(x.Store)
			fault.Op, fault.Call = storetest.OpDelete, k
			f.Script(fault)
			ctx, cancel := context.WithCancel(t.Context())
			if fault.Kind == storetest.Stall {
				var deletes atomic.Int64 // beside each other
				f.OnCall = func(_ int, op, _ string) {
					if op == storetest.OpDelete && deletes.Add(1) >= int64(k) {
						cancel()
					}
				}
			}
			failed := 0
			freed, err := x.look().Delete(ctx, f, func(_ prune.Object, err error) {
				if err != nil {
					failed++
				}
			})
			cancel()
			if err == nil {
				t.Fatalf("%s: delete %d of %d: no error", name, k, total)
			}
			if fault.Kind == storetest.Fail && fault.Err == nil {
				wantFailed := 1
				if fault.Every {
					wantFailed = total - k + 1
				}
				if failed != wantFailed || freed.Total().Objects != int64(total-failed) || !errors.Is(err, storetest.ErrInjected) {
					t.Errorf("%s: delete %d of %d: %d failed, %+v freed: %v", name, k, total, failed, freed, err)
				}
			}
			if fault.Err != nil && !errors.Is(err, fault.Err) || fault.Kind == storetest.Stall && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			x.whole()
			x.prune()
			if d := cmp.Diff(want, x.keys()); d != "" {
				t.Errorf("%s: delete %d of %d: %s", name, k, total, d)
			}
		}
	}
}

// Whatever a writer and a purge do between two requests of a prune: all that
// they count on is still there, and what was garbage is gone after one more.
func TestABackupAndAPurgeBesideAPrune(t *testing.T) {
	points := 1
	for at := 1; at <= points; at++ {
		x := months(t)
		x.purge(1)
		f := storetest.NewFaulty(x.Store)
		var half *remote.Manifest
		n := 0
		f.OnCall = func(call int, _, _ string) {
			points = max(points, call)
			switch call {
			case at: // run 5 commits, which refers to what only pins hold; run 6 has uploaded all but the manifest
				x.run(snap{blobs: "1/b 4/a 5/x", pins: "3/a", dumps: "1/dump 5/diff", pinnedDumps: "3/dump", list: "1/b 4/a 5/x 3/a"})
				half = x.prepare(snap{blobs: "1/b 3/a 6/n", pins: "5/x", dumps: "3/dump 6/diff", sameList: true})
				x.purge(2)
				x.bury(3, "ann")
				n++
			case at + 3:
				x.commit(half)
				n++
			}
		}
		o := x.options()
		o.Store = &sequential{Store: f}
		p, err := prune.Look(t.Context(), o, "ann")
		if err != nil {
			t.Fatal(err)
		}
		if p.Stopped != nil {
			t.Fatalf("at %d: %v", at, p.Stopped)
		}
		if _, err = p.Delete(t.Context(), o.Store, nil); err != nil {
			t.Fatal(err)
		}
		if len(p.Missing) > 0 {
			t.Errorf("at %d: missing: %v", at, p.Missing)
		}
		x.whole()
		f.OnCall = nil
		if n == 1 {
			x.commit(half)
		}
		if n == 0 {
			continue
		}
		x.prune()
		x.whole()
		if d := cmp.Diff("1/a 1/b 3/a 4/a 5/x 6/n", x.blobs()); d != "" {
			t.Errorf("at %d: %s", at, d)
		}
	}
	if points < 40 {
		t.Errorf("a prune has only %d points", points)
	}
}

func TestTwoPrunesAtOnce(t *testing.T) {
	x := months(t)
	x.purge(1)
	first := x.look()
	x.purge(2)
	second := x.look()
	cut := storetest.NewFaulty(x.Store)
	cut.Script(storetest.Fault{Op: storetest.OpDelete, Call: 2, Every: true, Kind: storetest.Fail})
	if _, err := second.Delete(t.Context(), cut, nil); err == nil {
		t.Fatal("it was not interrupted")
	}
	x.run(snap{blobs: "1/b 5/x", pins: "4/a", dumps: "3/dump 5/diff"})
	for _, p := range []*prune.Plan{first, second, first} {
		if _, err := p.Delete(t.Context(), x.Store, nil); err != nil {
			t.Fatal(err)
		}
		x.whole()
	}
	x.purge(3)
	x.prune()
	x.whole()
	if d := cmp.Diff("1/a 1/b 3/a 4/a 5/x", x.blobs()); d != "" {
		t.Error(d)
	}
}

func TestNoClockMatters(t *testing.T) {
	history := func(now time.Time, times ...string) *world {
		x := newClockedWorld(t, func() time.Time { return now })
		for i, at := range times {
			x.run(snap{blobs: "1/a " + string(rune('1'+i)) + "/n", started: at, end: times[len(times)-1-i]})
		}
		x.purge(2)
		x.upload(4, "4/x", remote.BlobKey)
		return x
	}
	want := history(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02T03:04:05Z", "2026-01-03T03:04:05Z", "2026-01-04T03:04:05Z")
	want.prune()
	for _, x := range []*world{
		history(time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02T03:04:05Z", "2026-01-03T03:04:05Z", "2026-01-04T03:04:05Z"),
		history(time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02T03:04:05Z", "2026-01-03T03:04:05Z", "2026-01-04T03:04:05Z"),
		history(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
	} {
		x.prune()
		if d := cmp.Diff(want.left(), x.left()); d != "" {
			t.Error(d)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if i.Path.Value == `"time"` {
				t.Errorf("%s imports %s", file, i.Path.Value)
			}
		}
	}
}

func TestWhatIsMissingIsSaidAndStopsNothing(t *testing.T) {
	x := months(t)
	x.purge(1)
	lost := []string{remote.BlobKey("ann", 1, remote.Sum([]byte("a"))), remote.DumpKey("ann", 3, remote.Sum([]byte("dump")))}
	x.remove(lost...)
	x.remove(remote.BlobKey("ann", 1, remote.Sum([]byte("b")))) // run 2 needs it, the others pin it
	p := x.look()
	if d := cmp.Diff([]string{lost[1], remote.BlobKey("ann", 1, remote.Sum([]byte("b"))), lost[0]}, p.Missing); d != "" || p.Lost != 3 {
		t.Error(d, p.Lost)
	}
	if len(p.Garbage) != 3 { // 1/c, 3/d and 3/try
		t.Errorf("garbage: %v", p.Garbage)
	}
	// A pin that is gone is the writer's to notice, not a snapshot's loss.
	x.purge(2)
	if p := x.look(); p.Lost != 2 {
		t.Errorf("missing: %v", p.Missing)
	}
	// A listing that hides what is there is no loss.
	o := x.options()
	o.Store = &hiding{x.Store, "^ann/$", []string{remote.BlobKey("ann", 3, remote.Sum([]byte("a")))}}
	p, err := prune.Look(t.Context(), o, "ann")
	if err != nil || p.Lost != 3 || len(p.Missing) != 2 {
		t.Errorf("missing: %v (%d), %v", p.Missing, p.Lost, err)
	}
	// A forged tombstone does not hush it up, a purge at work does for now.
	x.bury(3, "stranger")
	if p := x.look(); p.Lost != 2 {
		t.Errorf("missing: %v", p.Missing)
	}
	x.remove(remote.TombstoneKey("ann", 3))
	f := storetest.NewFaulty(x.Store)
	f.OnCall = func(_ int, op, key string) {
		if op == storetest.OpStat {
			x.purge(3)
			f.OnCall = nil
		}
	}
	o.Store = f
	if p, err := prune.Look(t.Context(), o, "ann"); err != nil || p.Lost != 0 || len(p.Missing) > 0 {
		t.Errorf("missing: %v, %v", p.Missing, err)
	}
}

func TestAStoreThatFailsIsAnError(t *testing.T) {
	x := months(t)
	x.run(snap{blobs: "1/a 4/a 5/x", list: "1/a 4/a"})
	x.remove(remote.BlobKey("ann", 1, remote.Sum([]byte("a"))))
	f := storetest.NewFaulty(x.Store)
	calls := 0
	f.OnCall = func(int, string, string) { calls++ }
	o := x.options()
	o.Store = &sequential{Store: f}
	if _, err := prune.Look(t.Context(), o, "ann"); err != nil {
		t.Fatal(err)
	}
	f.OnCall = nil
	for k := 1; k <= calls/2; k++ {
		f.Script(storetest.Fault{Call: k, Kind: storetest.Fail})
		if p, err := prune.Look(t.Context(), o, "ann"); !errors.Is(err, storetest.ErrInjected) || p != nil {
			t.Errorf("call %d: %v, %v", k, p, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := prune.Look(ctx, o, "ann"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOnlyManifestsAndListsAreReadEachOnce(t *testing.T) {
	x := months(t)
	x.run(snap{blobs: "1/a 4/a 5/x", list: "1/a 4/a"})
	x.run(snap{blobs: "1/a 4/a 6/x", pins: "5/x", sameList: true})
	x.run(snap{blobs: "1/a 4/a 6/x", sameList: true})
	c := storetest.NewCounting(x.Store)
	o := x.options()
	o.Store = c
	if _, err := prune.Look(t.Context(), o, "ann"); err != nil {
		t.Fatal(err)
	}
	lists := 0
	for _, key := range c.KeysRead() {
		k, err := remote.ParseKey(key)
		if err != nil || k.Kind == remote.KindBlob || k.Kind == remote.KindDump {
			t.Errorf("it read %s", key)
		}
		if k.Kind == remote.KindList {
			lists++
		}
	}
	if lists != 1 {
		t.Errorf("it read %d lists", lists)
	}
	if n := c.Count(storetest.OpPut).Calls + c.Count(storetest.OpDelete).Calls; n > 0 {
		t.Errorf("a look changed %d objects", n)
	}
	if n := c.Count(storetest.OpStat).Calls; n > 0 {
		t.Errorf("it looked at %d objects one by one", n)
	}
}

func TestAWriterIsNotAnothers(t *testing.T) {
	x := months(t)
	before := x.left()
	bob := &world{Store: x.Store, t: t, writer: "ann-2", lists: x.lists}
	bob.certify(1, "ann-2", remote.RoleWriter)
	bob.run(snap{blobs: "1/a"})
	bob.upload(1, "1/z", remote.BlobKey)
	bob.prune()
	if _, err := x.Stat(t.Context(), remote.BlobKey("ann-2", 1, remote.Sum([]byte("z")))); !errors.Is(err, fs.ErrNotExist) {
		t.Error("its own garbage is there", err)
	}
	for _, key := range x.keys() {
		if strings.HasPrefix(key, "ann-2/") {
			x.remove(key)
		}
	}
	if d := cmp.Diff(before, x.left()); d != "" {
		t.Error(d)
	}
}

func TestWhatOnlyPinsHoldIsToldFromWhatSnapshotsNeed(t *testing.T) {
	x := newWorld(t)
	x.run(snap{blobs: "1/a 1/b", pins: "1/c 1/d", list: "1/a 1/b 1/c 1/d"})
	x.run(snap{blobs: "1/a 1/c", pins: "1/d", sameList: true})
	p := x.look()
	if p.Stays.Blobs.Objects != 3 || p.Stays.Pinned.Objects != 1 || len(p.Garbage) != 0 {
		t.Errorf("%+v", p)
	}
}
