package remote_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

func (x *history) state() *remote.WriterState {
	x.t.Helper()
	w, err := remote.ReadWriter(x.t.Context(), x, key(x.t, "root").Public(), "host")
	if err != nil {
		x.t.Fatal(err)
	}
	return w
}

// forget does what a purge does with these runs.
func (x *history) forget(by string, seqs ...remote.Seq) error {
	w := x.state()
	stones, err := w.Tombstones(seqs, forgottenAt)
	for _, stone := range stones {
		err = errors.Join(err, remote.Forget(x.t.Context(), x, w.Signers, stone, key(x.t, by)))
	}
	return err
}

func (x *history) there(key string) bool {
	_, err := x.Stat(x.t.Context(), key)
	return err == nil
}

func TestAForgottenSnapshotLeavesATombstoneAndItsSignature(t *testing.T) {
	x := newHistory(t, 5)
	if err := x.forget("writer", 2, 4); err != nil {
		t.Fatal(err)
	}
	if err := x.forget("maintainer", 3); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(seen{Snapshots: []remote.Seq{1, 5}, Forgotten: []remote.Seq{2, 3, 4}}, x.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	k := remote.ManifestKey("host", 3)
	if x.there(k) || !x.there(remote.SignatureKey(k)) {
		t.Error("the manifest stayed, or its signature went")
	}
}

func TestTheNewestIsNeverForgotten(t *testing.T) {
	x := newHistory(t, 3)
	m := x.manifest(4)
	m.Set = "other"
	x.commit(m, "writer")
	for seq, want := range map[remote.Seq]error{1: nil, 2: nil, 3: remote.ErrNewest, 4: remote.ErrNewest, 5: fs.ErrNotExist} {
		if _, err := x.state().Tombstones([]remote.Seq{seq}, forgottenAt); !errors.Is(err, want) {
			t.Errorf("run %d: %v, want %v", seq, err, want)
		}
	}
}

func TestNothingIsForgottenWhereTheChainDoesNotHold(t *testing.T) {
	x := newHistory(t, 5)
	x.remove(remote.ManifestKey("host", 3))
	if err := x.forget("writer", 1); !errors.Is(err, remote.ErrMissing) {
		t.Errorf("%v, want ErrMissing", err)
	}
}

func TestATombstoneThatNobodyWouldAcceptIsNotPut(t *testing.T) {
	x := newHistory(t, 3)
	fenced := writerCertificate(t, 3, "fenced", 2)
	fenced.PurgeMaintainer = true
	certify(t, x, "host", fenced)
	x.remove(remote.ManifestKey("host", 2), remote.ManifestKey("host", 3))
	x.remove(remote.SignatureKey(remote.ManifestKey("host", 2)), remote.SignatureKey(remote.ManifestKey("host", 3)))
	for seq := remote.Seq(2); seq <= 3; seq++ {
		x.hashes[seq] = x.commit(x.manifest(seq), "fenced")
	}
	for by, want := range map[string]string{"fenced": "purge=maintainer", "stranger": "nobody signed it who may", "writer": "does not allow it"} {
		err := x.forget(by, 2)
		if !errors.Is(err, remote.ErrNotTrusted) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", by, err, want)
		}
		if err := x.state().Signers.MayForget(key(t, by), 2); !errors.Is(err, remote.ErrNotTrusted) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s may: %v, want %q", by, err, want)
		}
	}
	if x.there(remote.TombstoneKey("host", 2)) || !x.there(remote.ManifestKey("host", 2)) {
		t.Error("something was done")
	}
	if err := x.state().Signers.MayForget(key(t, "maintainer"), 1); err != nil {
		t.Error(err)
	}
}

// Two purges at once, or one that was cut short.
func TestATombstoneOfTheSameMeaningWillDo(t *testing.T) {
	x := newHistory(t, 4)
	w := x.state()
	stones, err := w.Tombstones([]remote.Seq{2}, forgottenAt)
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"maintainer", "writer", "writer"} {
		if err := remote.Forget(t.Context(), x, w.Signers, stones[0], key(t, by)); err != nil {
			t.Errorf("%s: %v", by, err)
		}
	}
	if x.there(remote.ManifestKey("host", 2)) {
		t.Error("the manifest stayed")
	}
	other := stones[0]
	other.Manifest[0] ^= 1
	if err := remote.Forget(t.Context(), x, w.Signers, other, key(t, "writer")); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("about another manifest: %v", err)
	}
	put(t, x, remote.TombstoneKey("host", 3), []byte("junk"))
	if err := x.forget("writer", 3); !errors.Is(err, remote.ErrCorrupt) || !strings.Contains(err.Error(), remote.TombstoneKey("host", 3)) {
		t.Errorf("over junk: %v", err)
	}
	if !x.there(remote.ManifestKey("host", 3)) {
		t.Error("a manifest without a valid tombstone went")
	}
}

// close says that the runs from … to are lost, as snapshot purge --missing does.
func (x *history) close(from, to remote.Seq, by string) error {
	w := x.state()
	stones, err := w.Lost(from, to, forgottenAt)
	if err != nil {
		return err
	}
	return remote.Bury(x.t.Context(), x, w.Signers, stones, key(x.t, by))
}

func TestTombstonesCloseAGap(t *testing.T) {
	for name, c := range map[string]struct {
		lost, forgotten []remote.Seq
		from, to        remote.Seq
		left            []remote.Seq
	}{
		"one":                           {[]remote.Seq{3}, nil, 3, 3, []remote.Seq{1, 2, 4, 5, 6, 7}},
		"the first":                     {[]remote.Seq{1}, nil, 1, 1, []remote.Seq{2, 3, 4, 5, 6, 7}},
		"several in a row":              {[]remote.Seq{3, 4, 5}, nil, 3, 5, []remote.Seq{1, 2, 6, 7}},
		"all but the newest":            {[]remote.Seq{1, 2, 3, 4, 5, 6}, nil, 1, 6, []remote.Seq{7}},
		"between forgotten ones":        {[]remote.Seq{3, 4}, []remote.Seq{2, 5}, 3, 4, []remote.Seq{1, 6, 7}},
		"around a forgotten one":        {[]remote.Seq{3, 5}, []remote.Seq{4}, 3, 5, []remote.Seq{1, 2, 6, 7}},
		"before the newest":             {[]remote.Seq{5, 6}, nil, 5, 6, []remote.Seq{1, 2, 3, 4, 7}},
		"nothing, all were forgotten":   {nil, []remote.Seq{3, 4}, 3, 4, []remote.Seq{1, 2, 5, 6, 7}},
		"beyond what a forgotten hides": {[]remote.Seq{2}, []remote.Seq{3}, 2, 3, []remote.Seq{1, 4, 5, 6, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newHistory(t, 7)
			for _, seq := range c.forgotten {
				if err := x.forget("writer", seq); err != nil {
					t.Fatal(err)
				}
			}
			for _, seq := range c.lost {
				x.remove(remote.ManifestKey("host", seq))
			}
			if err := x.close(c.from, c.to, "maintainer"); err != nil {
				t.Fatal(err)
			}
			gone := slices.Sorted(slices.Values(append(slices.Clone(c.lost), c.forgotten...)))
			if diff := cmp.Diff(seen{Snapshots: c.left, Forgotten: gone}, x.read()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := x.close(c.from, c.to, "maintainer"); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// A purge --missing that was cut short after any of its tombstones goes on
// from there, whoever signs.
func TestAGapIsClosedInSeveralTries(t *testing.T) {
	for done := range 4 {
		x := newHistory(t, 6)
		for seq := remote.Seq(2); seq <= 5; seq++ {
			x.remove(remote.ManifestKey("host", seq))
		}
		w := x.state()
		stones, err := w.Lost(2, 5, forgottenAt)
		if err != nil || len(stones) != 4 {
			t.Fatal(err, stones)
		}
		if err := remote.Bury(t.Context(), x, w.Signers, stones[:done], key(t, "writer")); err != nil {
			t.Fatal(err)
		}
		if err := x.close(2, 5, "maintainer"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(seen{Snapshots: []remote.Seq{1, 6}, Forgotten: []remote.Seq{2, 3, 4, 5}}, x.read()); diff != "" {
			t.Errorf("after %d (-want +got):\n%s", done, diff)
		}
	}
}

func TestWhatIsNotLostIsNotDeclaredLost(t *testing.T) {
	for name, c := range map[string]struct {
		happen   func(x *history)
		from, to remote.Seq
		want     error
		text     string
	}{
		"it is there":        {func(*history) {}, 2, 2, remote.ErrExists, "purge host-20260102-030405Z"},
		"one of them is":     {func(x *history) { x.remove(remote.ManifestKey("host", 2)) }, 2, 3, remote.ErrExists, "run 3"},
		"the newest":         {func(x *history) { x.remove(remote.ManifestKey("host", 5)) }, 5, 5, remote.ErrMissing, "rolled back"},
		"newer than anybody": {func(*history) {}, 9, 12, remote.ErrMissing, "rolled back"},
		"half of a gap": {func(x *history) {
			x.remove(remote.ManifestKey("host", 2), remote.ManifestKey("host", 3))
		}, 2, 2, remote.ErrMissing, "--missing 2-3"},
		"the other half": {func(x *history) {
			x.remove(remote.ManifestKey("host", 2), remote.ManifestKey("host", 3))
		}, 3, 3, remote.ErrMissing, "--missing 2-3"},
		"it is there and rotten": {func(x *history) {
			x.remove(remote.ManifestKey("host", 3))
			put(t, x, remote.ManifestKey("host", 3), []byte("rotten"))
		}, 3, 3, remote.ErrExists, "does not hold"},
		"more than there can have been": {func(x *history) {
			m := manifest("host", remote.MaxSeq, &h)
			x.commit(m, "writer")
		}, 6, remote.MaxSeq - 1, nil, "revoke his key"},
		"part of more than there can have been": {func(x *history) {
			m := manifest("host", remote.MaxSeq, &h)
			x.commit(m, "writer")
		}, 7, 7, remote.ErrMissing, "--missing 6-9999999998"},
		"no range": {func(*history) {}, 3, 2, nil, "numbered from 1"},
		"run 0":    {func(*history) {}, 0, 2, nil, "numbered from 1"},
	} {
		x := newHistory(t, 5)
		c.happen(x)
		stones, err := x.state().Lost(c.from, c.to, forgottenAt)
		if err == nil || stones != nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v, want %v with %q", name, stones, err, c.want, c.text)
		}
	}
}

// If manifests that were declared lost turn up again, their tombstones are not
// about them; what was true of the chain before is true again.
func TestALostManifestThatTurnsUpIsNotForgotten(t *testing.T) {
	x := newHistory(t, 6)
	kept := make(map[string][]byte)
	for seq := remote.Seq(2); seq <= 4; seq++ {
		k := remote.ManifestKey("host", seq)
		kept[k] = encode(t, x.manifest(seq))
		x.remove(k)
	}
	if err := x.close(2, 4, "writer"); err != nil {
		t.Fatal(err)
	}
	for k, object := range kept {
		put(t, x, k, object)
	}
	want := seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5, 6}, Problems: []string{
		"forgotten/0000000002 not trusted", "forgotten/0000000003 not trusted", "forgotten/0000000004 not trusted"}}
	if diff := cmp.Diff(want, x.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A listing that leaves a manifest out is not a manifest that is lost.
func TestWhatAListingHidesIsNotBuried(t *testing.T) {
	x := newHistory(t, 4)
	k := remote.ManifestKey("host", 2)
	object := encode(t, x.manifest(2))
	x.remove(k)
	w := x.state()
	put(t, x, k, object)
	stones, err := w.Lost(2, 2, forgottenAt)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Bury(t.Context(), x, w.Signers, stones, key(t, "writer")); !errors.Is(err, remote.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	if diff := cmp.Diff(seen{Snapshots: []remote.Seq{1, 2, 3, 4}}, x.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nor is one that lies below a delete marker.
func TestWhatTheStoreHasKeptIsNotBuried(t *testing.T) {
	x := newHistory(t, 4)
	kept := mem.NewVersioned(nil)
	for info, err := range x.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		put(t, kept, info.Key, x.bytes(info.Key))
	}
	if err := kept.Delete(t.Context(), remote.ManifestKey("host", 2)); err != nil {
		t.Fatal(err)
	}
	bury := func() error {
		w, err := remote.ReadWriter(t.Context(), kept, key(t, "root").Public(), "host")
		if err != nil {
			t.Fatal(err)
		}
		stones, err := w.Lost(2, 2, forgottenAt)
		if err != nil {
			t.Fatal(err)
		}
		return remote.Bury(t.Context(), kept, w.Signers, stones, key(t, "writer"))
	}
	if err := bury(); !errors.Is(err, remote.ErrExists) || !strings.Contains(err.Error(), "remove the delete marker") {
		t.Errorf("%v, want ErrExists and what to do", err)
	}
	for v := range kept.Versions(t.Context(), remote.ManifestKey("host", 2)) {
		if v.Key == remote.ManifestKey("host", 2) && !v.Marker {
			if err := kept.DeleteVersion(t.Context(), v.Key, v.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := bury(); err != nil {
		t.Errorf("once it is gone: %v", err)
	}
}

func TestTheStoreTellsWhenItTookAManifest(t *testing.T) {
	x := newHistory(t, 2)
	times, err := remote.ManifestTimes(t.Context(), x, "host")
	if err != nil || len(times) != 2 {
		t.Fatal(times, err)
	}
	for _, seq := range []remote.Seq{1, 2} {
		info, err := x.Stat(t.Context(), remote.ManifestKey("host", seq))
		if err != nil || !info.Modified.Equal(times[seq]) || times[seq].IsZero() {
			t.Errorf("run %d: %v, want %v (%v)", seq, times[seq], info.Modified, err)
		}
	}
}
