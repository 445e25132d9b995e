package remote_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

// revoked is the revocation of the key "writer", signer 1 of "host".
func revoked(t testing.TB, through remote.Seq, tombstones ...remote.Seq) remote.Revocation {
	t.Helper()
	r := remote.Revocation{Writer: "host", N: 1, Key: key(t, "writer").Public(), Through: through}
	if through > 0 {
		r.Manifest = remote.Sum([]byte("the last manifest"))
	}
	for _, seq := range tombstones {
		r.Tombstones = append(r.Tombstones, remote.RevokedTombstone{Seq: seq, SHA256: remote.Sum([]byte("a manifest"))})
	}
	return r
}

func TestRevocationsSurviveTheirText(t *testing.T) {
	for _, want := range []remote.Revocation{revoked(t, 0), revoked(t, 12), revoked(t, 0, 1), revoked(t, 12, 3, 5)} {
		object, signature := remote.SignRevocation(key(t, "root"), want)
		got, err := remote.ParseRevocation(key(t, "root").Public(), "host", object, signature)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", object, err, diff)
		}
	}
}

// brokenRevocations are texts that the root key signed all the same.
var brokenRevocations = []struct {
	name  string
	spoil func(string) string
	want  error
}{
	{"empty", func(string) string { return "" }, remote.ErrCorrupt},
	{"title-another", replaceOnce("vaultik revocation", "vaultik blobs"), remote.ErrCorrupt},
	{"version-2", replaceOnce("revocation 1", "revocation 2"), remote.ErrUnsupported},
	{"version-01", replaceOnce("revocation 1", "revocation 01"), remote.ErrUnsupported},
	{"cut", func(s string) string { return s[:len(s)-1] }, remote.ErrCorrupt},
	{"cut-after-key", func(s string) string { return s[:strings.Index(s, "through")] }, remote.ErrCorrupt},
	{"byte-behind", func(s string) string { return s + "\n" }, remote.ErrCorrupt},
	{"line-ends-crlf", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }, remote.ErrUnsupported},
	{"writer-another", replaceOnce("writer host", "writer other"), remote.ErrNotTrusted},
	{"writer-bad", replaceOnce("writer host", "writer ../host"), remote.ErrCorrupt},
	{"signer-zero", replaceOnce("signer 1", "signer 0"), remote.ErrCorrupt},
	{"signer-leading-zero", replaceOnce("signer 1", "signer 01"), remote.ErrCorrupt},
	{"key-none", replaceOnce("key RW", "key XX"), remote.ErrCorrupt},
	{"through-missing", replaceOnce("through ", ""), remote.ErrCorrupt},
	{"through-zero", replaceOnce("through 0000000012", "through 0000000000"), remote.ErrCorrupt},
	{"through-short", replaceOnce("through 0000000012", "through 12"), remote.ErrCorrupt},
	{"hash-upper-case", strings.ToUpper, remote.ErrCorrupt},
	{"tombstones-unsorted", func(s string) string {
		return strings.NewReplacer("tombstone 0000000003", "tombstone 0000000005", "tombstone 0000000005", "tombstone 0000000003").Replace(s)
	}, remote.ErrCorrupt},
	{"tombstone-twice", replaceOnce("tombstone 0000000003", "tombstone 0000000005"), remote.ErrCorrupt},
	{"tombstone-unnamed", replaceOnce("tombstone ", ""), remote.ErrCorrupt},
	{"line-unknown", func(s string) string { return s + "note hello\n" }, remote.ErrCorrupt},
}

func replaceOnce(old, with string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, with, 1) }
}

func TestOtherRevocationsAreRefused(t *testing.T) {
	root := key(t, "root")
	for _, b := range brokenRevocations {
		text := []byte(b.spoil(string(revoked(t, 12, 3, 5).Text())))
		if got, err := remote.ParseRevocation(root.Public(), "host", text, root.Sign(text, "x")); !errors.Is(err, b.want) {
			t.Errorf("%s: %+v, %v, want %v", b.name, got, err, b.want)
		}
	}
	object, signature := remote.SignRevocation(key(t, "writer"), revoked(t, 12))
	if _, err := remote.ParseRevocation(root.Public(), "host", object, signature); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("signed by the key itself: %v", err)
	}
}

// What the root key signed for one purpose serves no other.
func TestARevocationIsNoCertificate(t *testing.T) {
	root := key(t, "root")
	object, _ := remote.SignRevocation(root, revoked(t, 12))
	comment := writerCertificate(t, 1, "writer", 1).Comment()
	if _, err := remote.ParseCertificate(root.Public(), "host", 1, object, root.Sign(object, comment)); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("a revocation as a certificate: %v", err)
	}
	pub := key(t, "writer").Public().File()
	if _, err := remote.ParseRevocation(root.Public(), "host", pub, remote.SignCertificate(root, writerCertificate(t, 1, "writer", 1))); !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("a certificate as a revocation: %v", err)
	}
}

// revoke puts a revocation of signer n, whose key has that name.
func (x *history) revoke(n int, name string, through remote.Seq, tombstones ...remote.Seq) {
	x.t.Helper()
	r := remote.Revocation{Writer: "host", N: n, Key: key(x.t, name).Public(), Through: through, Manifest: x.hashes[through]}
	for _, seq := range tombstones {
		r.Tombstones = append(r.Tombstones, remote.RevokedTombstone{Seq: seq, SHA256: remote.Sum(x.bytes(remote.TombstoneKey("host", seq)))})
	}
	object, signature := remote.SignRevocation(key(x.t, "root"), r)
	x.place(remote.RevocationKey("host", n), object, signature)
}

func (x *history) expect(story string, want seen) {
	x.t.Helper()
	if diff := cmp.Diff(want, x.read()); diff != "" {
		x.t.Errorf("%s (-want +got):\n%s", story, diff)
	}
}

// A key is stolen after run 4. The thief signs run 5; later the honest machine
// goes on with a new key, once the thief's objects are gone.
func TestAThiefsRunsEndWithTheRevocation(t *testing.T) {
	x := newHistory(t, 4)
	x.hashes[5] = x.commit(x.manifest(5), "writer")
	x.expect("before", seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}})

	x.revoke(1, "writer", 4)
	thiefs := remote.ManifestKey("host", 5)
	x.expect("revoked", seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Problems: []string{"metadata/0000000005/manifest.json.zst not trusted stops"}})

	// Nobody's older key takes over, and a copy of the certificate helps no thief.
	certify(t, x, "host", writerCertificate(t, 7, "writer", 1))
	x.expect("with a copy of the certificate", seen{Snapshots: []remote.Seq{1, 2, 3, 4}, Problems: []string{"metadata/0000000005/manifest.json.zst not trusted stops"}})
	var r *remote.Revoked
	signers, err := remote.LoadSigners(t.Context(), x, key(t, "root").Public(), "host")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signers.For(5); !errors.As(err, &r) || r.Revocation.Through != 4 || !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("who signs run 5: %v, want a Revoked", err)
	}

	x.remove(thiefs, remote.SignatureKey(thiefs))
	certify(t, x, "host", writerCertificate(t, 3, "second", 5))
	x.hashes[5] = x.commit(x.manifest(5), "second")
	x.hashes[6] = x.commit(x.manifest(6), "second")
	x.expect("with a new key", seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5, 6}})
	// Under a certificate that begins with the same run, too.
	certify(t, x, "host", writerCertificate(t, 9, "writer", 5))
	x.expect("with a copy that begins as late", seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5, 6}})
}

// Who has a revoked key and may delete objects cannot rewrite what it signed
// before: the revocation names the last manifest, and the chain the others.
func TestARevokedKeyRewritesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		seq  remote.Seq
		want seen
	}{
		"the last": {4, seen{Snapshots: []remote.Seq{5}, Problems: []string{
			"metadata/0000000001/manifest.json.zst not trusted stops", "metadata/0000000002/manifest.json.zst not trusted stops",
			"metadata/0000000003/manifest.json.zst not trusted stops", "metadata/0000000004/manifest.json.zst not trusted stops",
		}}},
		"one before": {2, seen{Snapshots: []remote.Seq{3, 4, 5}, Problems: []string{
			"metadata/0000000001/manifest.json.zst not trusted stops", "metadata/0000000002/manifest.json.zst not trusted stops",
		}}},
	} {
		x := newHistory(t, 4)
		certify(t, x, "host", writerCertificate(t, 3, "second", 5))
		x.hashes[5] = x.commit(x.manifest(5), "second")
		x.revoke(1, "writer", 4)
		x.expect(name+": before", seen{Snapshots: []remote.Seq{1, 2, 3, 4, 5}})
		key := remote.ManifestKey("host", c.seq)
		x.remove(key, remote.SignatureKey(key))
		forged := x.manifest(c.seq)
		forged.Totals.Files = 99
		x.commit(forged, "writer")
		x.expect(name, c.want)
	}
}

// Nor does a gap make room for what it signs: where the chain does not lead, the
// revocation vouches for nothing. What was there before the gap counts again when
// the gap is closed.
func TestARevokedKeyPutsNothingBelowAGap(t *testing.T) {
	x := newHistory(t, 4)
	certify(t, x, "host", writerCertificate(t, 3, "second", 5))
	x.hashes[5] = x.commit(x.manifest(5), "second")
	x.revoke(1, "writer", 4)
	second := x.bytes(remote.ManifestKey("host", 2))
	x.remove(remote.ManifestKey("host", 3), remote.ManifestKey("host", 2), remote.SignatureKey(remote.ManifestKey("host", 2)))
	forged := x.manifest(2)
	forged.Totals.Files = 99
	x.commit(forged, "writer")
	x.expect("forged", seen{Snapshots: []remote.Seq{4, 5}, Problems: []string{
		"metadata/0000000001/manifest.json.zst not trusted stops", "metadata/0000000002/manifest.json.zst not trusted stops", m3 + " missing stops",
	}})

	x.remove(remote.ManifestKey("host", 2), remote.SignatureKey(remote.ManifestKey("host", 2)))
	x.place(remote.ManifestKey("host", 2), second, key(t, "writer").Sign(second, ""))
	if err := x.close(3, 3, "second"); err != nil {
		t.Fatal(err)
	}
	x.expect("closed", seen{Snapshots: []remote.Seq{1, 2, 4, 5}, Forgotten: []remote.Seq{3}})
}

// A tombstone stands for a manifest in the chain, and says which one came before.
// The thief's word for that is not taken either, though it is for the right run.
func TestARevokedKeyGivesNoSnapshotAnotherPast(t *testing.T) {
	x := newHistory(t, 4)
	certify(t, x, "host", writerCertificate(t, 3, "second", 5))
	x.hashes[5] = x.commit(x.manifest(5), "second")
	x.bury(2, "writer")
	x.remove(remote.ManifestKey("host", 2))
	x.revoke(1, "writer", 4, 2)
	x.expect("before", seen{Snapshots: []remote.Seq{1, 3, 4, 5}, Forgotten: []remote.Seq{2}})

	first := remote.ManifestKey("host", 1)
	x.remove(first, remote.SignatureKey(first), remote.TombstoneKey("host", 2))
	forged := x.manifest(1)
	forged.Totals.Files = 99
	forgery := x.commit(forged, "writer")
	object, err := remote.NewTombstone("host", 2, x.hashes[2], &forgery, forgottenAt).Sign(key(t, "writer"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, x, remote.TombstoneKey("host", 2), object)
	x.expect("forged", seen{Snapshots: []remote.Seq{3, 4, 5}, Problems: []string{
		"forgotten/0000000002 not trusted", "metadata/0000000001/manifest.json.zst not trusted stops", "metadata/0000000002/manifest.json.zst missing stops",
	}})
}

// Of a revoked key's tombstones those count that the revocation lists.
func TestARevokedKeyForgetsNothingMore(t *testing.T) {
	x := newHistory(t, 4)
	certify(t, x, "host", writerCertificate(t, 3, "second", 5))
	x.hashes[5] = x.commit(x.manifest(5), "second")
	x.bury(1, "writer")
	x.remove(remote.ManifestKey("host", 1))
	x.bury(2, "writer")
	x.expect("before", seen{Snapshots: []remote.Seq{3, 4, 5}, Forgotten: []remote.Seq{1, 2}})
	x.revoke(1, "writer", 4, 1)
	x.bury(3, "writer")
	x.bury(4, "second")
	x.expect("revoked", seen{Snapshots: []remote.Seq{2, 3, 5}, Forgotten: []remote.Seq{1, 4}, Problems: []string{
		"forgotten/0000000002 not trusted", "forgotten/0000000003 not trusted",
	}})
}

// A maintainer's key is revoked like a writer's; manifests it never signed.
func TestAMaintainerIsRevoked(t *testing.T) {
	x := newHistory(t, 4)
	x.bury(1, "maintainer")
	x.revoke(2, "maintainer", 0, 1)
	x.bury(2, "maintainer")
	x.expect("revoked", seen{Snapshots: []remote.Seq{2, 3, 4}, Forgotten: []remote.Seq{1}, Problems: []string{"forgotten/0000000002 not trusted"}})
}

// What the root key did not sign revokes nothing, and is told.
func TestOnlyTheRootKeyRevokes(t *testing.T) {
	x := newHistory(t, 2)
	object, signature := remote.SignRevocation(key(t, "writer"), remote.Revocation{Writer: "host", N: 1, Key: key(t, "writer").Public()})
	x.place(remote.RevocationKey("host", 1), object, signature)
	put(t, x, remote.RevocationKey("host", 2), object)
	x.expect("by the key itself", seen{Snapshots: []remote.Seq{1, 2}})
	signers, err := remote.LoadSigners(t.Context(), x, key(t, "root").Public(), "host")
	if err != nil || len(signers.Revocations) != 0 || len(signers.Problems) != 2 {
		t.Fatalf("%d revocations, problems %v, %v", len(signers.Revocations), signers.Problems, err)
	}
	for i, want := range []string{"host/signers/1.revoked", "host/signers/2.revoked"} {
		if text := signers.Problems[i].Error(); !strings.Contains(text, want) || !strings.Contains(text, "it revokes nothing") {
			t.Errorf("problem %d: %s", i, text)
		}
	}
}

func TestTheStricterOfTwoRevocationsCounts(t *testing.T) {
	x := newHistory(t, 4)
	x.revoke(1, "writer", 4)
	x.revoke(8, "writer", 2)
	x.expect("two", seen{Snapshots: []remote.Seq{1, 2}, Problems: []string{
		"metadata/0000000003/manifest.json.zst not trusted stops", "metadata/0000000004/manifest.json.zst not trusted stops",
	}})
}

func FuzzRevocation(f *testing.F) {
	f.Add(revoked(f, 0).Text())
	f.Add(revoked(f, 12, 3, 5).Text())
	for _, b := range brokenRevocations {
		f.Add([]byte(b.spoil(string(revoked(f, 12, 3, 5).Text()))))
	}
	root := key(f, "root")
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := remote.ParseRevocation(root.Public(), "host", text, root.Sign(text, "x"))
		switch {
		case err == nil && (!bytes.Equal(r.Text(), text) || r.Writer != "host" || r.N < 1):
			t.Errorf("%q is accepted as %+v", text, r)
		case err != nil && !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, remote.ErrUnsupported) && !errors.Is(err, remote.ErrNotTrusted):
			t.Errorf("%v is of no class", err)
		}
	})
}

// Whoever saw a thief's runs remembers them. Once their key is revoked, that a
// store shows less than it did is as it should be; and only then.
func TestWhatARevokedKeyShowedIsForgotten(t *testing.T) {
	x := newHistory(t, 4)
	memory := openSeen(t, filepath.Join(t.TempDir(), "seen.json"))
	look := func() []error {
		w, err := remote.ReadWriter(t.Context(), x, key(t, "root").Public(), "host")
		if err != nil {
			t.Fatal(err)
		}
		return w.Flaws(memory, "s", noon)
	}
	if flaws := look(); len(flaws) > 0 {
		t.Fatal(flaws)
	}
	for seq := remote.Seq(3); seq <= 4; seq++ {
		x.remove(remote.ManifestKey("host", seq), remote.SignatureKey(remote.ManifestKey("host", seq)))
	}
	var r *remote.Rollback
	if flaws := look(); len(flaws) != 1 || !errors.As(flaws[0], &r) || r.Shown != 2 || r.Remembered != 4 {
		t.Errorf("runs 3 and 4 are gone: %v", flaws)
	}
	x.revoke(1, "writer", 2)
	if flaws := look(); len(flaws) > 0 {
		t.Errorf("they were a thief's: %v", flaws)
	}
	x.remove(remote.ManifestKey("host", 2))
	if flaws := look(); len(flaws) != 2 || !errors.As(flaws[1], &r) || r.Shown != 0 || r.Remembered != 2 {
		t.Errorf("run 2 is gone, which was not, and with it what vouches for run 1: %v", flaws)
	}
}
