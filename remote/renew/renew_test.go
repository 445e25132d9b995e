package renew_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/renew"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

const day = 24 * time.Hour

// world is a store with one writer, ann, whose clock stands still until told.
type world struct {
	t      *testing.T
	now    time.Time
	store  *mem.Versioned
	root   remote.SigningKey
	signer remote.SigningKey
	seq    remote.Seq
	last   *remote.Hash
}

var lock = remote.Lock{Mode: remote.Compliance, For: 30 * day}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.store = mem.NewVersioned(func() time.Time { return w.now })
	w.store.LockPuts(lock)
	w.root, w.signer = key(t, 1), key(t, 2)
	pub := w.signer.Public().File()
	w.put(remote.SignerKey("ann", 1), pub)
	w.put(remote.SignatureKey(remote.SignerKey("ann", 1)), remote.SignCertificate(w.root, remote.Certificate{
		N: 1, Key: w.signer.Public(), Role: remote.RoleWriter, Writer: "ann", From: 1,
	}))
	return w
}

func key(t *testing.T, seed byte) remote.SigningKey {
	t.Helper()
	k, err := remote.GenerateSigningKey(strings.NewReader(string(storetest.Bytes(seed, 1000))))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) put(key string, body []byte) {
	w.t.Helper()
	if err := w.store.Put(w.t.Context(), key, body); err != nil {
		w.t.Fatal(err)
	}
}

// blob puts one under the next run.
func (w *world) blob(name string) remote.Object {
	o := remote.Object{Seq: w.seq + 1, SHA256: remote.Sum([]byte(name)), Size: int64(len(name))}
	w.put(remote.BlobKey("ann", o.Seq, o.SHA256), []byte(name))
	return o
}

// list puts a list of blobs under the next run.
func (w *world) list(blobs ...remote.Object) *remote.ListRef {
	object, plain := remote.EncodeList(blobs)
	ref := &remote.ListRef{
		Object:    remote.Object{Seq: w.seq + 1, SHA256: remote.Sum(object), Size: int64(len(object))},
		PlainSize: plain, Count: int64(len(blobs)),
	}
	w.put(remote.ListKey("ann", ref.Seq, ref.SHA256), object)
	return ref
}

// commit makes a snapshot of these blobs, told as a difference to a list.
func (w *world) commit(list *remote.ListRef, listed, blobs []remote.Object) {
	w.t.Helper()
	seq := w.seq + 1
	dump := fmt.Appendf(nil, "dump %d", seq)
	part := remote.DumpPart{Object: remote.Object{Seq: seq, SHA256: remote.Sum(dump), Size: int64(len(dump))}, PlainSize: 100}
	w.put(remote.DumpKey("ann", seq, part.SHA256), dump)
	at := w.now.UTC()
	m := &remote.Manifest{
		Format: remote.FormatVersion, Type: remote.TypeManifest, Writer: "ann", Seq: seq, Previous: w.last,
		Snapshot: "ann-" + at.Format("20060102-150405Z"), Set: "default",
		Started: at.Format(time.RFC3339), Finished: at.Format(time.RFC3339), Version: "test",
		Dumps: []remote.DumpPart{part}, Blobs: remote.Diff(list, listed, blobs), Pins: remote.Diff(nil, nil, nil),
		Recipients: []string{remote.Sum([]byte("recipient")).String()},
		Parameters: remote.Parameters{Chunker: "fastcdc", ChunkMin: 1 << 18, ChunkAvg: 1 << 20, ChunkMax: 1 << 22},
	}
	object, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(remote.SignatureKey(remote.ManifestKey("ann", seq)), w.signer.Sign(object, remote.ManifestComment("ann", seq)))
	w.put(remote.ManifestKey("ann", seq), object)
	h := remote.Sum(object)
	w.seq, w.last = seq, &h
}

func (w *world) state() *remote.WriterState {
	w.t.Helper()
	state, err := remote.ReadWriter(w.t.Context(), w.store, w.root.Public(), "ann")
	if err != nil {
		w.t.Fatal(err)
	}
	return state
}

func (w *world) renew(dry bool) renew.Report {
	w.t.Helper()
	r, err := renew.Run(w.t.Context(), renew.Options{Store: w.store, Lock: lock, Now: func() time.Time { return w.now }, DryRun: dry}, w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// locks returns in how many days each lock ends.
func (w *world) locks() map[string]int {
	w.t.Helper()
	days := map[string]int{}
	for v, err := range w.store.Versions(w.t.Context(), "") {
		if err != nil {
			w.t.Fatal(err)
		}
		if v.Marker {
			continue
		}
		r, err := w.store.Retention(w.t.Context(), v.Key, v.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		days[v.Key] = int(r.Until.Sub(w.now) / day)
	}
	return days
}

func TestWhatSnapshotsNeedIsLockedAnewAndNothingElse(t *testing.T) {
	w := newWorld(t)
	a, b, garbage := w.blob("blob a"), w.blob("blob b, larger"), w.blob("nobody's")
	listed := []remote.Object{a, b, garbage}
	list := w.list(listed...)
	w.commit(list, listed, []remote.Object{a, b})
	w.now = w.now.Add(20 * day)
	c := w.blob("blob c")
	w.commit(list, listed, []remote.Object{a, c})

	all := slices.Sorted(maps.Keys(w.locks()))
	first := func(key string) bool { return !strings.Contains(key, "/0000000002/") }
	want := map[string]int{}
	for _, key := range all {
		want[key] = 30
		if key == remote.BlobKey("ann", 1, garbage.SHA256) {
			want[key] = 10
		}
	}
	const old = 8 // the signer, its certificate, two blobs, the list, dump, manifest and its signature

	plan := w.renew(true)
	if plan.Renewed != old || plan.Needed != old+4 || plan.Missing != 0 || !plan.Soonest.Equal(w.now.Add(10*day)) {
		t.Errorf("a dry run: %+v", plan)
	}
	for key, days := range w.locks() {
		if first(key) && days != 10 {
			t.Errorf("after a dry run %q is locked for %d days", key, days)
		}
	}
	done := w.renew(false)
	if done.Renewed != old || done.Needed != old+4 || len(done.Flaws) > 0 || !done.Soonest.Equal(w.now.Add(30*day)) {
		t.Errorf("renewed: %+v", done)
	}
	if diff := cmp.Diff(want, w.locks()); diff != "" {
		t.Errorf("days (-want +got):\n%s", diff)
	}
	if again := w.renew(false); again.Renewed != 0 || again.Needed != old+4 {
		t.Errorf("repeated: %+v", again)
	}
	w.now = w.now.Add(7 * day) // within the first quarter
	if again := w.renew(false); again.Renewed != 0 {
		t.Errorf("a week later: %+v", again)
	}
	w.now = w.now.Add(day)
	if again := w.renew(false); again.Renewed != old+4 {
		t.Errorf("when a quarter is gone: %+v", again)
	}
}

func TestAForgottenSnapshotAgesAway(t *testing.T) {
	w := newWorld(t)
	a, b := w.blob("blob a"), w.blob("blob b")
	w.commit(nil, nil, []remote.Object{a, b})
	first := *w.last
	w.commit(nil, nil, []remote.Object{b})
	w.put(remote.TombstoneKey("ann", 1), tombstone(t, w, first))
	w.now = w.now.Add(20 * day)
	w.renew(false)
	days := w.locks()
	for key, want := range map[string]int{
		remote.BlobKey("ann", 1, a.SHA256):                     10,
		remote.ManifestKey("ann", 1):                           10,
		remote.BlobKey("ann", 1, b.SHA256):                     30,
		remote.TombstoneKey("ann", 1):                          30,
		remote.SignatureKey(remote.ManifestKey("ann", 1)):      30, // keeps the number taken
		remote.ManifestKey("ann", 2):                           30,
		remote.SignatureKey(remote.ManifestKey("ann", 2)):      30,
		remote.SignatureKey(remote.SignerKey("ann", 1)):        30,
		remote.DumpKey("ann", 1, remote.Sum([]byte("dump 1"))): 10,
		remote.DumpKey("ann", 2, remote.Sum([]byte("dump 2"))): 30,
	} {
		if days[key] != want {
			t.Errorf("%q is locked for %d days, want %d", key, days[key], want)
		}
	}
}

func tombstone(t *testing.T, w *world, manifest remote.Hash) []byte {
	t.Helper()
	stone, err := remote.NewTombstone("ann", 1, manifest, nil, w.now).Sign(w.signer)
	if err != nil {
		t.Fatal(err)
	}
	return stone
}

// A thief who may delete has hidden a blob and covered another.
func TestWhatIsHiddenOrCoveredIsLockedAnewToo(t *testing.T) {
	w := newWorld(t)
	a, b, lost := w.blob("blob a"), w.blob("blob b"), w.blob("blob that is lost")
	w.commit(nil, nil, []remote.Object{a, b, lost})
	if err := w.store.Delete(t.Context(), remote.BlobKey("ann", 1, a.SHA256)); err != nil {
		t.Fatal(err)
	}
	w.store.Overwrite(remote.BlobKey("ann", 1, b.SHA256), []byte("garbage of another size"))
	w.now = w.now.Add(31 * day)
	for v := range w.store.Versions(t.Context(), remote.BlobKey("ann", 1, lost.SHA256)) {
		if err := w.store.DeleteVersion(t.Context(), v.Key, v.ID); err != nil {
			t.Fatal(err)
		}
	}
	if plan := w.renew(true); !plan.Soonest.IsZero() {
		t.Errorf("all locks are over, but the first is said to end %v", plan.Soonest)
	}
	if done := w.renew(false); done.Missing != 1 || done.Renewed != done.Needed {
		t.Errorf("renewed: %+v", done)
	}
	var got []string
	for v, err := range w.store.Versions(t.Context(), remote.BlobsPrefix("ann")) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.store.Retention(t.Context(), v.Key, v.ID)
		locked := err == nil && r.Until.After(w.now)
		got = append(got, fmt.Sprintf("%d %v", v.Size, locked))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"0 false", "23 false", "6 true", "6 true"}, got); diff != "" {
		t.Errorf("sizes of versions, and whether locked (-want +got):\n%s", diff)
	}
}

func TestAListThatIsLostIsSaidAndTheRestRenewed(t *testing.T) {
	w := newWorld(t)
	a := w.blob("blob a")
	list := w.list(a)
	w.commit(list, []remote.Object{a}, []remote.Object{a})
	if err := w.store.Delete(t.Context(), remote.ListKey("ann", 1, list.SHA256)); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(20 * day)
	done := w.renew(false)
	if len(done.Flaws) != 1 || done.Renewed != 6 {
		t.Errorf("renewed: %+v", done)
	}
}

func TestAStoreWithoutVersionsIsRefused(t *testing.T) {
	_, err := renew.Run(t.Context(), renew.Options{Store: mem.New(nil), Lock: lock, Now: time.Now}, &remote.WriterState{Writer: "ann"})
	if !errors.Is(err, remote.ErrNoLock) {
		t.Errorf("got %v, want %v", err, remote.ErrNoLock)
	}
}

// A lock that holds keeps its mode; the config's counts when it is over.
func TestALockKeepsItsMode(t *testing.T) {
	w := newWorld(t)
	w.store.LockPuts(remote.Lock{Mode: remote.Governance, For: 30 * day})
	a := w.blob("blob a")
	w.commit(nil, nil, []remote.Object{a})
	mode := func() remote.LockMode {
		for v := range w.store.Versions(context.Background(), remote.BlobsPrefix("ann")) {
			r, err := w.store.Retention(t.Context(), v.Key, v.ID)
			if err != nil {
				t.Fatal(err)
			}
			return r.Mode
		}
		return ""
	}
	w.now = w.now.Add(20 * day)
	w.renew(false)
	if mode() != remote.Governance {
		t.Errorf("it became %s", mode())
	}
	w.now = w.now.Add(40 * day)
	w.renew(false)
	if mode() != remote.Compliance {
		t.Errorf("after its end it stayed %s", mode())
	}
}
