package remote_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// history is a store with one writer, "host", whose runs 1 to n are committed.
type history struct {
	*mem.Store
	t      *testing.T
	hashes map[remote.Seq]remote.Hash // of the manifests that were committed
}

func newHistory(t *testing.T, n remote.Seq) *history {
	x := &history{mem.New(nil), t, make(map[remote.Seq]remote.Hash)}
	certify(t, x, "host", writerCertificate(t, 1, "writer", 1))
	certify(t, x, "host", maintainerCertificate(t, 2))
	for seq := remote.Seq(1); seq <= n; seq++ {
		x.hashes[seq] = x.commit(x.manifest(seq), "writer")
	}
	return x
}

// manifest returns that of run seq, as it follows what was committed.
func (x *history) manifest(seq remote.Seq) *remote.Manifest {
	if seq == 1 {
		return manifest("host", 1, nil)
	}
	previous := x.hashes[seq-1]
	return manifest("host", seq, &previous)
}

func (x *history) commit(m *remote.Manifest, by string) remote.Hash {
	object := encode(x.t, m)
	x.place(remote.ManifestKey(m.Writer, m.Seq), object, key(x.t, by).Sign(object, remote.ManifestComment(m.Writer, m.Seq)))
	return remote.Sum(object)
}

func (x *history) place(key string, object, signature []byte) {
	put(x.t, x, remote.SignatureKey(key), signature)
	put(x.t, x, key, object)
}

func (x *history) remove(keys ...string) {
	x.t.Helper()
	for _, key := range keys {
		if err := x.Delete(x.t.Context(), key); err != nil {
			x.t.Fatal(err)
		}
	}
}

// bury puts a tombstone for what was committed as run seq.
func (x *history) bury(seq remote.Seq, by string) {
	var previous *remote.Hash
	if seq > 1 {
		p := x.hashes[seq-1]
		previous = &p
	}
	object, err := remote.NewTombstone("host", seq, x.hashes[seq], previous, forgottenAt).Sign(key(x.t, by))
	if err != nil {
		x.t.Fatal(err)
	}
	put(x.t, x, remote.TombstoneKey("host", seq), object)
}

// seen is what a reader makes of a store, in words.
type seen struct {
	Snapshots, Forgotten []remote.Seq
	Problems             []string // key below the writer, class and "stops"
}

func (x *history) read() seen {
	x.t.Helper()
	w, err := remote.ReadWriter(x.t.Context(), x, key(x.t, "root").Public(), "host")
	if err != nil {
		x.t.Fatal(err)
	}
	var s seen
	for _, v := range w.Snapshots {
		s.Snapshots = append(s.Snapshots, v.Manifest.Seq)
	}
	for _, f := range w.Forgotten {
		s.Forgotten = append(s.Forgotten, f.Seq)
	}
	stops := slices.ContainsFunc(w.Signers.Problems, func(err error) bool {
		p := (*remote.Problem)(nil)
		return errors.As(err, &p) && p.Stops
	})
	for _, err := range w.Problems {
		var p *remote.Problem
		if !errors.As(err, &p) {
			x.t.Fatalf("%v is no Problem", err)
		}
		class := "?"
		for name, target := range classes {
			if errors.Is(p, target) {
				class = name
			}
		}
		line := strings.TrimPrefix(p.Key, "host/") + " " + class
		if p.Stops {
			line += " stops"
			stops = true
		}
		if !strings.Contains(p.Error(), p.Key) || strings.Contains(p.Error(), "\n") {
			x.t.Errorf("problem reads %q", p)
		}
		s.Problems = append(s.Problems, line)
	}
	if stopped := w.Stopped(); (stopped != nil) != stops {
		x.t.Errorf("Stopped() = %v", stopped)
	}
	return s
}

var classes = map[string]error{
	"not trusted": remote.ErrNotTrusted, "corrupt": remote.ErrCorrupt, "unsupported": remote.ErrUnsupported, "missing": remote.ErrMissing,
}

const m3 = "metadata/0000000003/manifest.json.zst"

func TestWhatAReaderMakesOfAHistory(t *testing.T) {
	third := remote.ManifestKey("host", 3)
	for name, c := range map[string]struct {
		happen func(x *history)
		want   seen
	}{
		"nothing happens": {
			func(*history) {},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}},
		},
		"two snapshots are forgotten": {
			func(x *history) {
				x.bury(1, "writer")
				x.bury(3, "maintainer")
				x.remove(remote.ManifestKey("host", 1), third)
			},
			seen{Snapshots: []remote.Seq{2, 4, 5}, Forgotten: []remote.Seq{1, 3}},
		},
		"three in a row are forgotten": {
			func(x *history) {
				for seq := remote.Seq(2); seq <= 4; seq++ {
					x.bury(seq, "writer")
					x.remove(remote.ManifestKey("host", seq))
				}
			},
			seen{Snapshots: []remote.Seq{1, 5}, Forgotten: []remote.Seq{2, 3, 4}},
		},
		"a purge stopped after the tombstone": {
			func(x *history) { x.bury(3, "writer") },
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Forgotten: []remote.Seq{3}},
		},
		"a manifest is lost": {
			func(x *history) { x.remove(third) },
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{m3 + " missing stops"}},
		},
		"two manifests are lost with their signatures": {
			func(x *history) {
				for _, key := range []string{third, remote.ManifestKey("host", 4)} {
					x.remove(key, remote.SignatureKey(key))
				}
			},
			seen{Snapshots: []remote.Seq{1, 2, 5}, Problems: []string{m3 + " missing stops"}},
		},
		"the first manifests are lost": {
			func(x *history) { x.remove(remote.ManifestKey("host", 1), remote.ManifestKey("host", 2)) },
			seen{Snapshots: []remote.Seq{3, 4, 5}, Problems: []string{"metadata/0000000001/manifest.json.zst missing stops"}},
		},
		"a lost manifest is declared lost": {
			func(x *history) { x.remove(third); x.bury(3, "maintainer") },
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Forgotten: []remote.Seq{3}},
		},
		"a stranger forgets": {
			func(x *history) { x.bury(3, "stranger"); x.remove(third) },
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{"forgotten/0000000003 not trusted", m3 + " missing stops"}},
		},
		"a tombstone is about another manifest": {
			func(x *history) {
				previous := x.hashes[2]
				object, _ := remote.NewTombstone("host", 3, h, &previous, forgottenAt).Sign(key(x.t, "writer"))
				put(x.t, x, remote.TombstoneKey("host", 3), object)
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"forgotten/0000000003 not trusted"}},
		},
		"a tombstone gives the manifest another past": {
			func(x *history) {
				object, _ := remote.NewTombstone("host", 3, x.hashes[3], &h, forgottenAt).Sign(key(x.t, "writer"))
				put(x.t, x, remote.TombstoneKey("host", 3), object)
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"forgotten/0000000003 not trusted"}},
		},
		"a tombstone for another manifest hides a removal": {
			func(x *history) {
				object, _ := remote.NewTombstone("host", 3, h, &h, forgottenAt).Sign(key(x.t, "writer"))
				put(x.t, x, remote.TombstoneKey("host", 3), object)
				x.remove(third)
			},
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Forgotten: []remote.Seq{3}, Problems: []string{
				"forgotten/0000000003 not trusted stops", "metadata/0000000004/manifest.json.zst not trusted stops",
			}},
		},
		"a tombstone lies under another run": {
			func(x *history) {
				x.bury(2, "writer")
				object := x.bytes(remote.TombstoneKey("host", 2))
				put(x.t, x, remote.TombstoneKey("host", 3), object)
			},
			seen{Snapshots: []remote.Seq{1, 3, 4, 5}, Forgotten: []remote.Seq{2}, Problems: []string{"forgotten/0000000003 not trusted"}},
		},
		"a tombstone of another run hides a removal": {
			func(x *history) {
				x.bury(2, "writer")
				put(x.t, x, remote.TombstoneKey("host", 3), x.bytes(remote.TombstoneKey("host", 2)))
				x.remove(third)
			},
			seen{Snapshots: []remote.Seq{1, 4, 5}, Forgotten: []remote.Seq{2}, Problems: []string{
				"forgotten/0000000003 not trusted", m3 + " missing stops",
			}},
		},
		"a tombstone is damaged": {
			func(x *history) { put(x.t, x, remote.TombstoneKey("host", 3), []byte("{}")) },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"forgotten/0000000003 unsupported"}},
		},
		"the newest is forgotten": {
			func(x *history) { x.bury(5, "writer") },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"forgotten/0000000005 not trusted"}},
		},
		"the newest is forgotten and removed": {
			func(x *history) { x.bury(5, "writer"); x.remove(remote.ManifestKey("host", 5)) },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Forgotten: []remote.Seq{5}, Problems: []string{"metadata/0000000006/manifest.json.zst missing stops"}},
		},
		"a signature is lost": {
			func(x *history) { x.remove(remote.SignatureKey(third)) },
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{m3 + " not trusted stops"}},
		},
		"a manifest is by an unknown signer": {
			func(x *history) { x.commit(x.manifest(6), "stranger") },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/0000000006/manifest.json.zst not trusted stops"}},
		},
		"a manifest is by a maintainer": {
			func(x *history) { x.commit(x.manifest(6), "maintainer") },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/0000000006/manifest.json.zst not trusted stops"}},
		},
		"junk lies far above": {
			func(x *history) { x.place(remote.ManifestKey("host", remote.MaxSeq), []byte("junk"), []byte("junk")) },
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/9999999999/manifest.json.zst not trusted stops"}},
		},
		"a manifest is replaced by another run's": {
			func(x *history) {
				x.remove(third, remote.SignatureKey(third))
				second := remote.ManifestKey("host", 2)
				x.place(third, x.bytes(second), x.bytes(remote.SignatureKey(second)))
			},
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{m3 + " not trusted stops"}},
		},
		"a manifest is replaced by another writer's": {
			func(x *history) {
				x.remove(third, remote.SignatureKey(third))
				object := encode(x.t, manifest("other", 3, &h)) // signed with the same key
				x.place(third, object, key(x.t, "writer").Sign(object, ""))
			},
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{m3 + " not trusted stops"}},
		},
		"a manifest is damaged": {
			func(x *history) {
				object := x.bytes(third)
				object[len(object)/2] ^= 1
				x.remove(third)
				put(x.t, x, third, object)
			},
			seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Problems: []string{m3 + " not trusted stops"}},
		},
		"a signed manifest is not canonical": {
			func(x *history) {
				object := pack(x.t, append(unpack(x.t, encode(x.t, x.manifest(6))), ' '))
				x.place(remote.ManifestKey("host", 6), object, key(x.t, "writer").Sign(object, ""))
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/0000000006/manifest.json.zst corrupt stops"}},
		},
		"a signed manifest is of a newer version": {
			func(x *history) {
				plain := strings.Replace(string(unpack(x.t, encode(x.t, x.manifest(6)))), `"requires":[]`, `"requires":["padding"]`, 1)
				object := pack(x.t, []byte(plain))
				x.place(remote.ManifestKey("host", 6), object, key(x.t, "writer").Sign(object, ""))
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/0000000006/manifest.json.zst unsupported stops"}},
		},
		"the newest this version knows is forgotten by a newer version": {
			func(x *history) {
				object := pack(x.t, []byte(`{"format":2}`))
				x.place(remote.ManifestKey("host", 6), object, key(x.t, "writer").Sign(object, ""))
				x.bury(5, "writer")
				x.remove(remote.ManifestKey("host", 5))
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Forgotten: []remote.Seq{5}, Problems: []string{"metadata/0000000006/manifest.json.zst unsupported stops"}},
		},
		"a newer version stopped after that tombstone": {
			func(x *history) {
				object := pack(x.t, []byte(`{"format":2}`))
				x.place(remote.ManifestKey("host", 6), object, key(x.t, "writer").Sign(object, ""))
				x.bury(5, "writer")
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Forgotten: []remote.Seq{5}, Problems: []string{"metadata/0000000006/manifest.json.zst unsupported stops"}},
		},
		"two machines wrote on from run 3": {
			func(x *history) {
				fork := x.manifest(4)
				fork.Version = "on the clone"
				fourth := remote.ManifestKey("host", 4)
				x.remove(fourth, remote.SignatureKey(fourth))
				x.commit(fork, "writer")
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}, Problems: []string{"metadata/0000000005/manifest.json.zst not trusted stops"}},
		},
		"the writer gets a new key": {
			func(x *history) {
				certify(x.t, x, "host", writerCertificate(x.t, 3, "new", 6))
				x.hashes[6] = x.commit(x.manifest(6), "new")
				x.commit(x.manifest(7), "writer") // the old key is still somewhere
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5, 6}, Problems: []string{"metadata/0000000007/manifest.json.zst not trusted stops"}},
		},
		"other objects lie around": {
			func(x *history) {
				put(x.t, x, remote.DumpKey("host", 3, h), []byte("a dump"))
				put(x.t, x, "host/metadata/0000000003/notes.txt", []byte("notes"))
				put(x.t, x, "host/forgotten/README", []byte("notes"))
				put(x.t, x, remote.SignatureKey(remote.ManifestKey("host", 6)), []byte("of a run that was interrupted"))
			},
			seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			x := newHistory(t, 5)
			c.happen(x)
			if diff := cmp.Diff(c.want, x.read()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func (x *history) bytes(key string) []byte {
	x.t.Helper()
	r, err := x.Get(x.t.Context(), key, 0, -1)
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		x.t.Fatal(err)
	}
	return data
}

func TestAWriterWithoutCertificateIsNotTrusted(t *testing.T) {
	x := &history{mem.New(nil), t, nil}
	put(t, x, remote.SignerKey("host", 1), key(t, "writer").Public().File())
	x.commit(manifest("host", 1, nil), "writer")
	if diff := cmp.Diff(seen{Problems: []string{"signers/ not trusted stops"}}, x.read()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w, err := remote.ReadWriter(t.Context(), x, key(t, "root").Public(), "host")
	if err != nil || !strings.Contains(w.Problems[0].Error(), "vaultik key certify") {
		t.Errorf("%v, %v: does not say what to do", w.Problems, err)
	}
}

func TestOneManifestIsReadAndChecked(t *testing.T) {
	x := newHistory(t, 2)
	signers, err := remote.LoadSigners(t.Context(), x, key(t, "root").Public(), "host")
	if err != nil {
		t.Fatal(err)
	}
	v, err := remote.ReadManifest(t.Context(), x, signers, "host", 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(x.manifest(2), v.Manifest); diff != "" || v.Hash != x.hashes[2] || v.Size != int64(len(x.bytes(remote.ManifestKey("host", 2)))) || !v.Key.Equal(key(t, "writer").Public()) {
		t.Errorf("hash %s, size %d, key %s (-want +got):\n%s", v.Hash, v.Size, v.Key, diff)
	}
	if _, err := remote.ReadManifest(t.Context(), x, signers, "host", 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a manifest that is not there: %v, want ErrNotExist", err)
	}
	if _, err := remote.ReadManifest(t.Context(), x, signers, "other", 1); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("with another writer's signers: %v, want ErrNotTrusted", err)
	}
}

// failing is a store that fails for some keys.
type failing struct {
	remote.Store
	part string
	err  error
}

func (s failing) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if strings.Contains(key, s.part) {
		return nil, s.err
	}
	return s.Store.Get(ctx, key, off, n)
}

// An unreachable store says nothing about what is in it.
func TestAStoreThatFailsMakesNoProblems(t *testing.T) {
	x := newHistory(t, 5)
	x.bury(2, "writer")
	for _, part := range []string{"/signers/1.pub", ".pub.minisig", m3, m3 + ".minisig", "/forgotten/"} {
		down := errors.New("connection reset")
		w, err := remote.ReadWriter(t.Context(), failing{x, part, down}, key(t, "root").Public(), "host")
		if !errors.Is(err, down) {
			t.Errorf("%s: %+v, %v, want the store's error", part, w, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := remote.ReadWriter(ctx, x, key(t, "root").Public(), "host"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// One object that does not come out of the store, because somebody put it there
// so or because a disk fails, takes nothing else with it. If none comes out,
// these credentials may not read.
func TestAnObjectThatCannotBeReadHidesNoOther(t *testing.T) {
	x := newHistory(t, 5)
	x.bury(2, "writer")
	x.place(remote.RevocationKey("host", 1), []byte("junk"), []byte("junk"))
	x.remove(remote.SignatureKey(remote.RevocationKey("host", 1)))
	x.place(remote.RevocationKey("host", 3), []byte("junk"), []byte("junk"))
	for _, withheld := range []error{remote.ErrUnreadable, remote.ErrDenied} {
		for _, c := range []struct {
			part      string
			snapshots []remote.Seq
			problem   string
		}{
			{m3, []remote.Seq{1, 4, 5}, m3},
			{m3 + ".minisig", []remote.Seq{1, 4, 5}, m3},
			{"metadata/0000000005/", []remote.Seq{1, 3, 4}, "metadata/0000000005/manifest.json.zst"},
			{"/forgotten/", []remote.Seq{1, 2, 3, 4, 5}, "forgotten/0000000002"},
			{"/signers/2.pub", []remote.Seq{1, 3, 4, 5}, "signers/2.pub"},
			{"/signers/3.revoked", []remote.Seq{1, 3, 4, 5}, "signers/3.revoked"},
		} {
			w, err := remote.ReadWriter(t.Context(), failing{x, c.part, withheld}, key(t, "root").Public(), "host")
			if err != nil {
				t.Errorf("%s: %v", c.part, err)
				continue
			}
			var got []remote.Seq
			for _, v := range w.Snapshots {
				got = append(got, v.Manifest.Seq)
			}
			told := slices.ContainsFunc(slices.Concat(w.Signers.Problems, w.Problems), func(err error) bool {
				p := (*remote.Problem)(nil)
				return errors.As(err, &p) && errors.Is(err, withheld) && p.Key == "host/"+c.problem
			})
			if diff := cmp.Diff(c.snapshots, got); diff != "" || !told {
				t.Errorf("%s, %v: told %v (-want +got):\n%s", c.part, withheld, told, diff)
			}
		}
		for _, part := range []string{"/metadata/", "/signers/"} {
			if w, err := remote.ReadWriter(t.Context(), failing{x, part, withheld}, key(t, "root").Public(), "host"); !errors.Is(err, withheld) {
				t.Errorf("%s: %+v, %v, want %v", part, w, err, withheld)
			}
		}
	}
}

// A revocation that was damaged may be the one that takes a thief's tombstones
// back: nothing is deleted on their word.
func TestADamagedRevocationStopsDeleting(t *testing.T) {
	x := newHistory(t, 4)
	x.bury(2, "writer")
	x.revoke(1, "writer", 4)
	x.expect("revoked", seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Problems: []string{"forgotten/0000000002 not trusted"}})
	revocation := remote.RevocationKey("host", 1)
	x.remove(revocation)
	put(t, x, revocation, []byte("damaged"))
	w := x.state()
	if len(w.Snapshots) != 3 || w.Stopped() == nil {
		t.Errorf("%d snapshots, stopped by %v", len(w.Snapshots), w.Stopped())
	}
	if _, err := w.Tombstones([]remote.Seq{1}, forgottenAt); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("a purge: %v", err)
	}
}

// purging forgets run 3 between the reader's look at the listing and at the
// manifest.
type purging struct {
	*history
	done bool
}

func (s *purging) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if strings.Contains(key, m3) && !s.done {
		s.done = true
		s.bury(3, "writer")
		s.remove(remote.ManifestKey("host", 3))
	}
	return s.history.Get(ctx, key, off, n)
}

func TestAPurgeAtWorkMakesNoProblems(t *testing.T) {
	w, err := remote.ReadWriter(t.Context(), &purging{history: newHistory(t, 5)}, key(t, "root").Public(), "host")
	if err != nil || len(w.Problems) != 0 || len(w.Snapshots) != 4 || len(w.Forgotten) != 1 {
		t.Errorf("%d snapshots, %d forgotten, problems %v, %v", len(w.Snapshots), len(w.Forgotten), w.Problems, err)
	}
}

// foldered is a store that can tell folders, and refuses to list everything.
type foldered struct {
	remote.Store
	names map[string][]string // by prefix
}

func (s foldered) Folders(_ context.Context, prefix string) ([]string, error) {
	return s.names[prefix], nil
}

func TestWritersAreFound(t *testing.T) {
	s := mem.New(nil)
	for _, key := range []string{"b/signers/1.pub", "b/blobs/0000000001/x", "a/metadata/1/x", "letters/1999/dear", "signers/1.pub", ".probe-1/object", "lost+found/blobs/y", "file"} {
		put(t, s, key, []byte("x"))
	}
	folders := foldered{nil, map[string][]string{
		"": {"lost+found", "b", "letters", "signers", ".probe-1", "a"}, "b/": {"blobs", "signers"}, "a/": {"metadata"}, "letters/": {"1999"}, "lost+found/": {"blobs"},
	}}
	for name, s := range map[string]remote.Store{"by listing": s, "by folders": folders} {
		got, err := remote.ListWriters(t.Context(), s)
		if diff := cmp.Diff([]string{"a", "b"}, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// Whatever subset of manifests and tombstones a store shows, nothing that it
// leaves out goes unnoticed, the end of the chain excepted.
func TestEveryGapIsNoticed(t *testing.T) {
	const n = 5
	for mask := range 1 << n {
		x := newHistory(t, n)
		var kept []remote.Seq
		for i := range n {
			seq := remote.Seq(i + 1)
			if mask&(1<<i) != 0 {
				kept = append(kept, seq)
			} else {
				x.remove(remote.ManifestKey("host", seq))
			}
		}
		got := x.read()
		if !slices.Equal(got.Snapshots, kept) {
			t.Errorf("kept %v, shown %v", kept, got.Snapshots)
		}
		complete := len(kept) == 0 || kept[len(kept)-1] == remote.Seq(len(kept))
		if noticed := len(got.Problems) > 0; noticed == complete {
			t.Errorf("kept %v: problems %v", kept, got.Problems)
		}
	}
}
