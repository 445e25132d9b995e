package remote_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

func certify(t testing.TB, s remote.Store, writer string, c remote.Certificate) {
	t.Helper()
	put(t, s, remote.SignerKey(writer, c.N), c.Key.File())
	put(t, s, remote.SignatureKey(remote.SignerKey(writer, c.N)), remote.SignCertificate(key(t, "root"), c))
}

func writerCertificate(t testing.TB, n int, name string, from remote.Seq) remote.Certificate {
	t.Helper()
	return remote.Certificate{N: n, Key: key(t, name).Public(), Role: remote.RoleWriter, Writer: "host", From: from}
}

func maintainerCertificate(t testing.TB, n int) remote.Certificate {
	t.Helper()
	return remote.Certificate{N: n, Key: key(t, "maintainer").Public(), Role: remote.RoleMaintainer, Writer: "host"}
}

func TestCertificatesSurviveTheirSignature(t *testing.T) {
	fenced := writerCertificate(t, 2, "writer", 7)
	fenced.PurgeMaintainer = true
	for comment, c := range map[string]remote.Certificate{
		"vaultik-signer v1 role=writer writer=host from=1":                  writerCertificate(t, 1, "writer", 1),
		"vaultik-signer v1 role=writer writer=host from=7 purge=maintainer": fenced,
		"vaultik-signer v1 role=maintainer writer=host":                     maintainerCertificate(t, 3),
	} {
		if diff := cmp.Diff(comment, c.Comment()); diff != "" {
			t.Errorf("comment (-want +got):\n%s", diff)
		}
		got, err := remote.ParseCertificate(key(t, "root").Public(), "host", c.N, c.Key.File(), remote.SignCertificate(key(t, "root"), c))
		if diff := cmp.Diff(c, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", comment, err, diff)
		}
	}
}

// brokenCertificates are comments that the root key signed all the same.
var brokenCertificates = []struct{ name, comment string }{
	{"empty", ""},
	{"of-minisign", "timestamp:1700000000\tfile:1.pub"},
	{"version-2", "vaultik-signer v2 role=writer writer=host from=1"},
	{"role-unknown", "vaultik-signer v1 role=reader writer=host from=1"},
	{"role-missing", "vaultik-signer v1 writer=host from=1"},
	{"writer-another", "vaultik-signer v1 role=writer writer=other from=1"},
	{"writer-prefix", "vaultik-signer v1 role=writer writer=hos from=1"},
	{"writer-missing", "vaultik-signer v1 role=writer from=1"},
	{"from-zero", "vaultik-signer v1 role=writer writer=host from=0"},
	{"from-leading-zero", "vaultik-signer v1 role=writer writer=host from=01"},
	{"from-missing", "vaultik-signer v1 role=writer writer=host"},
	{"from-too-long", "vaultik-signer v1 role=writer writer=host from=10000000000"},
	{"purge-unknown", "vaultik-signer v1 role=writer writer=host from=1 purge=nobody"},
	{"maintainer-of-all", "vaultik-signer v1 role=maintainer"},
	{"maintainer-of-another", "vaultik-signer v1 role=maintainer writer=other"},
	{"maintainer-with-more", "vaultik-signer v1 role=maintainer writer=host from=1"},
	{"maintainer-purge", "vaultik-signer v1 role=maintainer writer=host purge=maintainer"},
	{"blank-behind", "vaultik-signer v1 role=writer writer=host from=1 "},
	{"blank-before", " vaultik-signer v1 role=writer writer=host from=1"},
	{"blanks-two", "vaultik-signer v1 role=writer  writer=host from=1"},
}

func TestOtherCertificatesAreRefused(t *testing.T) {
	root, signer := key(t, "root"), key(t, "writer").Public()
	good := remote.SignCertificate(root, writerCertificate(t, 1, "writer", 1))
	old := minisign.SignWithComments(mustPrivate(t, root), signer.File(), "vaultik-signer v1 role=writer writer=host from=1", "x")
	type signed struct{ pub, signature []byte }
	cases := map[string]signed{
		"certified by another": {signer.File(), remote.SignCertificate(key(t, "other"), writerCertificate(t, 1, "writer", 1))},
		"of another key":       {key(t, "other").Public().File(), good},
		"old form":             {signer.File(), old},
		"nothing":              {nil, nil},
		"not a key":            {[]byte("hello\n"), root.Sign([]byte("hello\n"), "vaultik-signer v1 role=maintainer writer=host")},
	}
	for _, b := range brokenCertificates {
		cases[b.name] = signed{signer.File(), root.Sign(signer.File(), b.comment)}
	}
	for name, c := range cases {
		if got, err := remote.ParseCertificate(root.Public(), "host", 1, c.pub, c.signature); !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("%s: %+v, %v, want ErrNotTrusted", name, got, err)
		}
	}
}

func TestTheMinisignProgramCertifies(t *testing.T) {
	run := minisignProgram(t)
	secret := writeFile(t, "root", []byte(key(t, "root").Text()))
	pub := writeFile(t, "1.pub", key(t, "writer").Public().File())
	want := writerCertificate(t, 1, "writer", 1)
	if out, err := run("-S", "-W", "-s", secret, "-m", pub, "-t", want.Comment()); err != nil {
		t.Fatalf("minisign -S: %v: %s", err, out)
	}
	got, err := remote.ParseCertificate(key(t, "root").Public(), "host", 1, readFile(t, pub), readFile(t, pub+".minisig"))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestTheSignerOfARunIsTheOneCertifiedLastBeforeIt(t *testing.T) {
	s := mem.New(nil)
	certify(t, s, "host", writerCertificate(t, 1, "first", 1))
	certify(t, s, "host", writerCertificate(t, 3, "second", 5))
	certify(t, s, "host", writerCertificate(t, 10, "third", 5)) // takes the second's place
	certify(t, s, "host", writerCertificate(t, 2, "fourth", 8))
	certify(t, s, "host", maintainerCertificate(t, 4))
	put(t, s, remote.SignerKey("host", 5), key(t, "uncertified").Public().File())
	put(t, s, "host/signers/README", []byte("none of ours"))
	signers, err := remote.LoadSigners(t.Context(), s, key(t, "root").Public(), "host")
	if err != nil {
		t.Fatal(err)
	}
	if len(signers.Certificates) != 5 || len(signers.Problems) != 1 || !strings.Contains(signers.Problems[0].Error(), "host/signers/5.pub") {
		t.Errorf("%d certificates, problems %v", len(signers.Certificates), signers.Problems)
	}
	for seq, name := range map[remote.Seq]string{1: "first", 4: "first", 5: "third", 7: "third", 8: "fourth", remote.MaxSeq: "fourth"} {
		got, err := signers.For(seq)
		if err != nil || !got.Equal(key(t, name).Public()) {
			t.Errorf("run %s is signed by %s, %v, want %s", seq, got, err, name)
		}
	}
}

// Anybody who may write to the store can copy a certificate to the next number.
// That puts no older key in charge again, and takes no restriction away.
func TestACopiedCertificateTakesNobodysPlace(t *testing.T) {
	x := newHistory(t, 1)
	certify(t, x, "host", writerCertificate(t, 3, "second", 2))
	certify(t, x, "host", writerCertificate(t, 4, "third", 2))
	fenced := writerCertificate(t, 5, "third", 2)
	fenced.PurgeMaintainer = true
	certify(t, x, "host", fenced)
	x.hashes[2] = x.commit(x.manifest(2), "third")
	x.hashes[3] = x.commit(x.manifest(3), "third")
	x.expect("before", seen{Snapshots: []remote.Seq{1, 2, 3}})

	certify(t, x, "host", writerCertificate(t, 6, "second", 2))
	x.expect("the second key's is copied", seen{Snapshots: []remote.Seq{1, 2, 3}})
	certify(t, x, "host", writerCertificate(t, 7, "third", 2))
	x.bury(1, "third")
	x.bury(2, "third")
	x.expect("the one that may forget is copied", seen{Snapshots: []remote.Seq{1, 2, 3}, Problems: []string{"forgotten/0000000001 not trusted", "forgotten/0000000002 not trusted"}})
}

func TestARunBeforeTheFirstCertificateHasNoSigner(t *testing.T) {
	signers := remote.Signers{Writer: "host", Certificates: []remote.Certificate{writerCertificate(t, 1, "writer", 5), maintainerCertificate(t, 2)}}
	_, err := signers.For(4)
	if !errors.Is(err, remote.ErrNotTrusted) || !strings.Contains(err.Error(), `"host"`) {
		t.Errorf("%v, want ErrNotTrusted by name", err)
	}
}

func FuzzCertificate(f *testing.F) {
	f.Add([]byte(writerCertificate(f, 1, "writer", 1).Comment()))
	for _, b := range brokenCertificates {
		f.Add([]byte(b.comment))
	}
	root, signer := key(f, "root"), key(f, "writer").Public()
	f.Fuzz(func(t *testing.T, comment []byte) {
		if bytes.ContainsAny(comment, "\n\r") {
			t.Skip("not a comment that can be signed")
		}
		c, err := remote.ParseCertificate(root.Public(), "host", 1, signer.File(), root.Sign(signer.File(), string(comment)))
		if err == nil && (c.Comment() != string(comment) || c.Writer != "host" || c.Role == remote.RoleWriter && c.From < 1) {
			t.Errorf("%q is accepted as %+v", comment, c)
		}
		if err != nil && !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("%v is not ErrNotTrusted", err)
		}
	})
}
