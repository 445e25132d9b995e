package backup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// certify makes a root key that certifies the writer's key.
func (w *world) certify() {
	w.t.Helper()
	root, err := remote.GenerateSigningKey(nil)
	check(w.t, err)
	w.config.Root = root.Public()
	c := remote.Certificate{N: 1, Key: w.config.Signer.Public(), Role: remote.RoleWriter, Writer: "host", From: 1}
	key := remote.SignerKey("host", 1)
	check(w.t, w.store.Put(w.t.Context(), key, c.Key.File()))
	check(w.t, w.store.Put(w.t.Context(), remote.SignatureKey(key), remote.SignCertificate(root, c)))
}

// purge forgets snapshots as a person with the writer's key does.
func (w *world) purge(seqs ...remote.Seq) {
	w.t.Helper()
	for _, seq := range seqs {
		key := remote.ManifestKey("host", seq)
		object, err := get(w.t.Context(), w.store.Store, key, 1<<20)
		check(w.t, err)
		w.bury(seq, remote.Sum(object), w.config.Signer)
		check(w.t, w.store.Store.Delete(w.t.Context(), key))
	}
}

func (w *world) bury(seq remote.Seq, hash remote.Hash, by remote.SigningKey) {
	w.t.Helper()
	previous := &hash // nobody looks at it here
	if seq == 1 {
		previous = nil
	}
	tombstone, err := remote.NewTombstone("host", seq, hash, previous, w.now).Sign(by)
	check(w.t, err)
	check(w.t, w.store.Store.Put(w.t.Context(), remote.TombstoneKey("host", seq), tombstone))
}

// prune deletes what no manifest wants, up to the newest one's seq.
func (w *world) prune() {
	w.t.Helper()
	wanted, newest := map[string]bool{}, remote.Seq(0)
	resolve := func(l remote.ObjectList) {
		all, err := l.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
			wanted[remote.ListKey("host", ref.Seq, ref.SHA256)] = true
			return remote.FetchList(w.t.Context(), w.store.Store, "host", ref)
		})
		check(w.t, err)
		for _, o := range all {
			wanted[remote.BlobKey("host", o.Seq, o.SHA256)] = true
		}
	}
	for _, seq := range seqs(w) {
		m := w.manifest(seq)
		newest = seq
		resolve(m.Blobs)
		for _, d := range m.Dumps {
			wanted[remote.DumpKey("host", d.Seq, d.SHA256)] = true
		}
	}
	m := w.manifest(newest)
	resolve(m.Pins)
	for _, d := range m.PinnedDumps {
		wanted[remote.DumpKey("host", d.Seq, d.SHA256)] = true
	}
	for _, key := range w.objects("host/") {
		k, err := remote.ParseKey(key)
		check(w.t, err)
		mayGo := k.Kind == remote.KindBlob || k.Kind == remote.KindDump || k.Kind == remote.KindList
		if mayGo && k.Seq <= newest && !wanted[key] {
			check(w.t, w.store.Store.Delete(w.t.Context(), key))
		}
	}
}

// blobBytes is how much the store's blobs take.
func (w *world) blobBytes() (bytes int64) {
	w.t.Helper()
	for info, err := range w.store.Store.List(w.t.Context(), remote.BlobsPrefix("host")) {
		check(w.t, err)
		bytes += info.Size
	}
	return bytes
}

func TestPurgedSnapshotsAreLearntOfAndTheOthersStay(t *testing.T) {
	w := newWorld(t, home())
	w.certify()
	want := map[remote.Seq]map[string]string{}
	run := func(letter string) *Result {
		t.Helper()
		w.source.edit(func(n *node) { n.Content, n.Time = letter, n.Time+100 }, "/home/ann/letter")
		r := w.backup()
		want[r.Seq] = w.shows(r.Seq)
		return r
	}
	for i := range 4 {
		run(fmt.Sprint("letter ", i))
	}
	w.purge(1, 3)
	w.prune()
	if r := run("after the purge"); r.Forgotten != 2 || len(r.Closed) > 0 {
		t.Errorf("%d purged snapshots learnt of, closed %q", r.Forgotten, r.Closed)
	}
	w.prune()
	w.reopen()
	r := run("and after that")
	if r.Forgotten != 0 {
		t.Errorf("%d purged snapshots learnt of again", r.Forgotten)
	}
	same(t, "problems", nil, kinds(r))
	for _, seq := range []remote.Seq{2, 4, 5, 6} {
		same(t, fmt.Sprint("snapshot ", seq), want[seq], w.shows(seq))
	}
	runs, err := w.index.Runs(t.Context())
	check(t, err)
	if len(runs) != 4 {
		t.Errorf("the index keeps %v", runs)
	}
}

// Only a tombstone that holds makes a snapshot purged.
func TestASnapshotThatIsGoneWithoutATombstoneIsTold(t *testing.T) {
	stranger, err := remote.GenerateSigningKey(nil)
	check(t, err)
	for name, c := range map[string]struct {
		bury func(w *world, hash remote.Hash)
		says string
	}{
		"no tombstone":        {func(*world, remote.Hash) {}, "snapshot purge --missing"},
		"a stranger's":        {func(w *world, hash remote.Hash) { w.bury(1, hash, stranger) }, "nobody signed it who may forget run"},
		"of another manifest": {func(w *world, _ remote.Hash) { w.bury(1, remote.Sum(nil), w.config.Signer) }, "another snapshot's"},
		"not a tombstone": {func(w *world, _ remote.Hash) {
			check(t, w.store.Put(t.Context(), remote.TombstoneKey("host", 1), []byte("x")))
		}, "corrupt"},
		"no certificate at all": {func(w *world, hash remote.Hash) {
			w.bury(1, hash, w.config.Signer)
			check(t, w.store.Store.Delete(t.Context(), remote.SignerKey("host", 1)))
		}, "nobody signed it"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, home())
			w.certify()
			w.backup()
			w.backup()
			object, err := get(t.Context(), w.store, remote.ManifestKey("host", 1), 1<<20)
			check(t, err)
			check(t, w.store.Delete(t.Context(), remote.ManifestKey("host", 1)))
			c.bury(w, remote.Sum(object))
			r := w.backup()
			if r.Forgotten != 0 || r.Incomplete() || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Err.Error(), c.says) {
				t.Errorf("%d forgotten, %v", r.Forgotten, r.Problems)
			}
		})
	}
}

func TestAListingThatHidesAnOldManifestIsNoPurge(t *testing.T) {
	w := newWorld(t, home())
	w.certify()
	w.backup()
	w.backup()
	hidden := remote.ManifestKey("host", 1)
	listing := &hiding{Store: w.store, key: hidden}
	w.config.Store = listing
	r := w.backup()
	same(t, "problems", nil, kinds(r))
	if r.Forgotten != 0 || listing.hid == 0 {
		t.Errorf("%d forgotten; the manifest was hidden %d times", r.Forgotten, listing.hid)
	}
}

// A set whose snapshots were all purged is closed, and what it alone needed can
// be pruned after the next run of another.
func TestASetThatWasPurgedWholeIsClosed(t *testing.T) {
	w := newWorld(t, map[string]node{
		"/home/ann/letter": {Content: newNoise(1).text(50_000), Time: 1000},
		"/etc/passwd":      {Content: "root", Time: 1000},
	})
	w.certify()
	w.backup()
	w.set = Set{Name: "etc", Roots: []string{"/etc"}}
	w.backup()
	w.purge(1)
	r := w.backup()
	same(t, "closed", []string{"default"}, r.Closed)
	w.prune()
	if bytes := w.blobBytes(); bytes > 10_000 {
		t.Errorf("%d bytes are left of it", bytes)
	}
	w.set = Set{Name: "default", Roots: []string{"/home"}}
	same(t, "the set begun anew", newNoise(1).text(50_000), w.shows(w.backup().Seq)["/home/ann/letter"])
}

// An old copy of an index writes nothing over what came after it, whatever its
// credentials let it see, and says what to do; also if what it knows of was
// purged since.
func TestAnOldCopyOfTheIndexOverwritesNothing(t *testing.T) {
	deny := func(ops ...string) (faults []storetest.Fault) {
		for _, op := range ops {
			faults = append(faults, storetest.Fault{Op: op, Every: true, Kind: storetest.Fail, Err: remote.ErrDenied})
		}
		return faults
	}
	for name, faults := range map[string][]storetest.Fault{
		"it may list":                  nil,
		"it may not list":              deny(storetest.OpList),
		"it may neither list nor stat": deny(storetest.OpList, storetest.OpStat),
	} {
		for _, purged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, purged %v", name, purged), func(t *testing.T) {
				w := newWorld(t, home())
				w.certify()
				w.backup()
				w.backup()
				w.reopen()
				old, err := os.ReadFile(w.indexAt)
				check(t, err)
				for i := range 2 {
					w.source.set("/home/ann/letter", node{Content: fmt.Sprint("letter ", i), Time: int64(2000 + i)})
					w.backup()
				}
				if purged {
					w.purge(1, 2, 3)
					w.prune()
				}
				check(t, w.index.Close())
				for _, suffix := range []string{"-wal", "-shm"} {
					os.Remove(w.indexAt + suffix)
				}
				check(t, os.WriteFile(w.indexAt, old, 0o600))
				w.index, err = index.Open(t.Context(), w.indexAt, index.Options{})
				check(t, err)
				before := w.bytes()
				w.source.set("/home/ann/letter", node{Content: "the copy's", Time: 3000})
				for range 2 {
					w.store.Script(faults...)
					_, err = w.try()
					w.store.Script()
					gone := purged && errors.Is(err, ErrStoreLost) && len(faults) > 1
					if !(errors.Is(err, ErrCloned) || gone) || !strings.Contains(err.Error(), "vaultik init --store URL --root") {
						t.Errorf("%v, want ErrCloned", err)
					}
				}
				after := w.bytes()
				for key, body := range before {
					if after[key] != body {
						t.Errorf("%s is not what it was", key)
					}
				}
				same(t, "runs", slices.DeleteFunc([]remote.Seq{1, 2, 3, 4}, func(s remote.Seq) bool { return purged && s < 4 }), seqs(w))
				same(t, "the newest snapshot", with(shown(), map[string]string{"/home/ann/letter": "letter 1"}), w.shows(4))
			})
		}
	}
}

// bytes are all objects.
func (w *world) bytes() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, key := range w.objects("") {
		object, err := get(w.t.Context(), w.store.Store, key, 1<<30)
		check(w.t, err)
		all[key] = string(object)
	}
	return all
}
