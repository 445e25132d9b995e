package backup

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// Of every put a run makes, the one that fails decides nothing: whether it
// took effect or not, the next run makes a whole snapshot under the right seq,
// and uploads no blob again that was confirmed.
func TestAnyPutMayFailOrLoseItsAnswer(t *testing.T) {
	for _, kind := range []struct {
		name string
		kind storetest.Kind
	}{{"fails", storetest.Fail}, {"answer lost", storetest.LostAnswer}} {
		t.Run(kind.name, func(t *testing.T) {
			for call := 1; ; call++ {
				w := newWorld(t, home())
				w.store.Script(storetest.Fault{Op: storetest.OpPut, Call: call, Kind: kind.kind, Err: errInjected})
				_, err := w.try()
				if err == nil {
					if call < 4 {
						t.Fatalf("a run has only %d puts", call-1)
					}
					return
				}
				if !errors.Is(err, errInjected) {
					t.Fatalf("put %d: %v", call, err)
				}
				w.store.Script()
				w.reopen()
				before := len(w.objects(remote.BlobsPrefix("host")))
				r := w.backup()
				same(t, "the snapshot", shown(), w.shows(r.Seq))
				if after := len(w.objects(remote.BlobsPrefix("host"))); before > 0 && kind.kind == storetest.Fail && after != before {
					t.Errorf("put %d: %d blobs before the rerun, %d after", call, before, after)
				}
				verifyChain(t, w)
			}
		})
	}
}

// verifyChain checks that the manifests name each other without a gap.
func verifyChain(t *testing.T, w *world) {
	t.Helper()
	var previous *remote.Hash
	for i, seq := range seqs(w) {
		if seq != remote.Seq(i+1) {
			t.Errorf("run %d where %d is due", seq, i+1)
		}
		m := w.manifest(seq)
		if d := cmp.Diff(previous, m.Previous); d != "" {
			t.Errorf("run %d does not name the one before:\n%s", seq, d)
		}
		object, err := get(t.Context(), w.store.Store, remote.ManifestKey("host", seq), 1<<20)
		check(t, err)
		hash := remote.Sum(object)
		previous = &hash
	}
}

func TestABlobThatTheStoreLostIsReadAgain(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	for _, key := range w.objects(remote.BlobsPrefix("host")) {
		check(t, w.store.Delete(t.Context(), key))
	}
	r := w.backup()
	same(t, "the snapshot", shown(), w.shows(r.Seq))
	if len(kinds(r)) == 0 || r.Incomplete() {
		t.Errorf("the loss is not told, or the healed snapshot passes for incomplete: %v", r.Problems)
	}
}

func TestWhatCannotBeReadAgainIsFlagged(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	for _, key := range w.objects(remote.BlobsPrefix("host")) {
		check(t, w.store.Delete(t.Context(), key))
	}
	w.source.nodes["/home/ann/letter"].DenyRead = errInjected
	r := w.backup()
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/letter": "(unreadable)"}), w.shows(r.Seq))
	if !r.Incomplete() {
		t.Error("the snapshot passes for complete")
	}
}

// A blob that was cut short counts as missing, whichever run put it.
func TestABlobOfTheWrongSizeCountsAsMissing(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	key := w.objects(remote.BlobsPrefix("host"))[0]
	check(t, w.store.Delete(t.Context(), key))
	check(t, w.store.Store.Put(t.Context(), key, []byte("cut")))
	r := w.backup()
	same(t, "the snapshot", shown(), w.shows(r.Seq))
}

// A listing that does not show the newest blobs yet makes nobody read
// anything twice.
func TestAListingMayLagBehind(t *testing.T) {
	w := newWorld(t, home())
	w.store.Script(storetest.Fault{Op: storetest.OpList, Key: "/blobs/", Every: true, Kind: storetest.StaleList, Hide: 10})
	r := w.backup()
	same(t, "problems", nil, kinds(r))
	same(t, "the snapshot", shown(), w.shows(r.Seq))
}

// Nor does one that does not show the run before yet, as when several sets are
// backed up one after the other.
func TestAListingMayNotShowTheNewestRunYet(t *testing.T) {
	w := newWorld(t, home())
	w.certify()
	w.backup()
	want := w.shows(w.backup().Seq)
	w.store.Script(storetest.Fault{Op: storetest.OpList, Key: "/metadata/", Every: true, Kind: storetest.StaleList, Hide: 4})
	r := w.backup()
	if w.store.Injected() == 0 {
		t.Error("nothing was hidden")
	}
	same(t, "problems", nil, kinds(r))
	same(t, "the snapshot", want, w.shows(r.Seq))
	verifyChain(t, w)
}

func TestACloneIsNoticed(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	clone := newWorld(t, home())
	clone.store, clone.config.Store = w.store, w.store
	clone.config.Signer, clone.config.Recipients = w.config.Signer, w.config.Recipients
	before := w.objects("")
	if _, err := clone.try(); !errors.Is(err, ErrCloned) {
		t.Fatalf("a second index of the same writer: %v, want ErrCloned", err)
	}
	same(t, "objects", before, w.objects(""))
}

// Two copies of an index that run at the same time meet at the signature: one
// commits, the other stops.
func TestTwoClonesCannotBothCommit(t *testing.T) {
	a := newWorld(t, home())
	b := newWorld(t, home())
	b.store, b.config.Store = a.store, a.store
	b.config.Signer, b.config.Recipients, b.identity = a.config.Signer, a.config.Recipients, a.identity
	b.source.set("/home/ann/letter", node{Content: "dear eve", Time: 2000})
	raced := false
	a.store.OnCall = func(_ int, op, key string) {
		if op == storetest.OpPut && strings.HasSuffix(key, ".minisig") && !raced {
			raced = true
			b.backup() // in the middle of a's commit
		}
	}
	if _, err := a.try(); !errors.Is(err, ErrCloned) {
		t.Fatalf("the one that came second: %v, want ErrCloned", err)
	}
	same(t, "the snapshot", with(shown(), map[string]string{"/home/ann/letter": "dear eve"}), b.shows(1))
	if _, err := a.try(); !errors.Is(err, ErrCloned) {
		t.Errorf("the one that came second, again: %v, want ErrCloned", err)
	}
}

func TestAnEmptiedStoreIsNoticed(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	for _, key := range w.objects("") {
		check(t, w.store.Delete(t.Context(), key))
	}
	if _, err := w.try(); !errors.Is(err, ErrStoreLost) {
		t.Fatalf("an empty store: %v, want ErrStoreLost", err)
	}
	same(t, "objects", nil, w.objects(""))
}

// Credentials that may only create objects are enough to back up; what could
// not be compared is said.
func TestCredentialsThatMayOnlyPut(t *testing.T) {
	w := newWorld(t, home())
	var faults []storetest.Fault
	for _, op := range []string{storetest.OpGet, storetest.OpStat, storetest.OpList, storetest.OpDelete} {
		faults = append(faults, storetest.Fault{Op: op, Every: true, Kind: storetest.Fail, Err: remote.ErrDenied})
	}
	w.store.Script(faults...)
	first := w.backup()
	w.source.set("/home/ann/letter", node{Content: "dear carl", Time: 2000})
	// The answer to the manifest's put gets lost, and nobody may look.
	w.store.Script(append(faults, storetest.Fault{Op: storetest.OpPut, Key: `manifest\.json\.zst$`, Kind: storetest.LostAnswer, Err: errInjected})...)
	if _, err := w.try(); !errors.Is(err, errInjected) {
		t.Fatalf("the lost answer: %v", err)
	}
	w.store.Script(faults...)
	w.reopen()
	third := w.backup()
	same(t, "seqs", []remote.Seq{1, 2, 3}, seqs(w))
	same(t, "the first snapshot", shown(), w.shows(first.Seq))
	want := with(shown(), map[string]string{"/home/ann/letter": "dear carl"})
	same(t, "the interrupted snapshot", want, w.shows(2))
	same(t, "the third snapshot", want, w.shows(third.Seq))
	if !first.Unverified || !third.Unverified {
		t.Error("the runs do not say that nothing was compared")
	}
	verifyChain(t, w)
}

// An index of another writer is not used by mistake.
func TestTheIndexMustBeTheWriters(t *testing.T) {
	w := newWorld(t, home())
	w.config.Writer = "somebody"
	if _, err := w.try(); err == nil || !strings.Contains(err.Error(), `"somebody"`) {
		t.Errorf("with another writer's index: %v", err)
	}
}

// Two snapshots of one second have two ids.
func TestSnapshotIDsAreNeverUsedTwice(t *testing.T) {
	w := newWorld(t, home())
	first := w.backup()
	w.now = start
	second := w.backup()
	same(t, "ids", []string{"host-20261124-130000Z", "host-20261124-130000Z-2"}, []string{first.Snapshot, second.Snapshot})
}

// Every part of a dump and every list is looked at before the commit.
func TestAMissingDumpStopsTheCommit(t *testing.T) {
	w := newWorld(t, home())
	w.store.OnCall = func(_ int, op, key string) {
		if op == storetest.OpPut+" done" && strings.HasSuffix(key, ".db.zst.age") {
			check(t, w.store.Store.Delete(t.Context(), key))
		}
	}
	if _, err := w.try(); err == nil || !strings.Contains(err.Error(), ".db.zst.age") {
		t.Fatalf("with its dump gone the run ends with %v", err)
	}
	same(t, "runs in the store", nil, seqs(w))
	w.store.OnCall = nil
	same(t, "the snapshot after", shown(), w.shows(w.backup().Seq))
}

// A signature alone keeps its seq taken, but it is no snapshot.
func TestALostManifestIsNoticedThoughItsSignatureIsThere(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	check(t, w.store.Delete(t.Context(), remote.ManifestKey("host", 1)))
	if _, err := w.try(); !errors.Is(err, ErrStoreLost) {
		t.Errorf("%v, want ErrStoreLost", err)
	}
}

// Where the store let two clones create one key, one of them was overwritten:
// the newest manifest is not the one that this index committed.
func TestAnotherManifestUnderTheNewestSeqIsACloneAtWork(t *testing.T) {
	w := newWorld(t, home())
	w.backup()
	key := remote.ManifestKey("host", 1)
	check(t, w.store.Delete(t.Context(), key))
	check(t, w.store.Put(t.Context(), key, []byte("somebody else's")))
	if _, err := w.try(); !errors.Is(err, ErrCloned) {
		t.Errorf("%v, want ErrCloned", err)
	}
}

// hiding is a store whose listings do not show one object.
type hiding struct {
	remote.Store
	key string
	hid int
}

func (h *hiding) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		for info, err := range h.Store.List(ctx, prefix) {
			if info.Key == h.key {
				h.hid++
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
