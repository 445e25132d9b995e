package remote_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

var forgottenAt = time.Date(2026, 2, 3, 4, 5, 6, 7, time.FixedZone("CET", 3600))

func tombstone(t testing.TB, seq remote.Seq, by string) []byte {
	t.Helper()
	var previous *remote.Hash
	if seq > 1 {
		previous = &h
	}
	object, err := remote.NewTombstone("host", seq, remote.Sum([]byte("a manifest")), previous, forgottenAt).Sign(key(t, by))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func TestTombstonesSurviveTheirBytes(t *testing.T) {
	want := remote.NewTombstone("host", 2, remote.Sum([]byte("a manifest")), &h, forgottenAt)
	got, err := remote.DecodeTombstone(tombstone(t, 2, "writer"))
	if err != nil {
		t.Fatal(err)
	}
	signature := got.Signature
	got.Signature = ""
	if diff := cmp.Diff(want, *got); diff != "" || signature == "" || want.Time != "2026-02-03T03:05:06Z" {
		t.Errorf("signature %q, time %q (-want +got):\n%s", signature, want.Time, diff)
	}
}

// Who may forget which run, of a writer whose key changed twice.
func TestWhoMayForget(t *testing.T) {
	fenced := writerCertificate(t, 5, "fenced", 30)
	fenced.PurgeMaintainer = true
	signers := remote.Signers{Writer: "host", Certificates: []remote.Certificate{
		writerCertificate(t, 1, "first", 1), writerCertificate(t, 2, "replaced", 10), writerCertificate(t, 3, "second", 10),
		maintainerCertificate(t, 4), fenced,
	}}
	for _, c := range []struct {
		by   string
		seq  remote.Seq
		want bool
	}{
		{"maintainer", 1, true}, {"maintainer", 99, true},
		{"first", 1, true}, {"first", 9, true}, {"first", 10, false}, {"first", 30, false},
		{"replaced", 9, false}, {"replaced", 10, false}, {"replaced", 99, false},
		{"second", 1, true}, {"second", 10, true}, {"second", 29, true}, {"second", 30, false},
		{"fenced", 1, false}, {"fenced", 30, false},
		{"stranger", 1, false},
	} {
		tomb, err := remote.DecodeTombstone(tombstone(t, c.seq, c.by))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tomb.Verify(signers)
		if c.want && err != nil || !c.want && !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("%s forgets run %d: %v, want %v", c.by, c.seq, err, c.want)
		}
	}
}

func TestASignatureHoldsForOneTombstone(t *testing.T) {
	signers := remote.Signers{Writer: "host", Certificates: []remote.Certificate{maintainerCertificate(t, 1)}}
	other := signers
	other.Writer = "other"
	for name, change := range map[string]func(*remote.Tombstone){
		"another run":      func(t *remote.Tombstone) { t.Seq++ },
		"another manifest": func(t *remote.Tombstone) { t.Manifest[0]++ },
		"another previous": func(t *remote.Tombstone) { p := remote.Sum(nil); t.Previous = &p },
		"another time":     func(t *remote.Tombstone) { t.Time = "2027-01-01T00:00:00Z" },
		"no signature":     func(t *remote.Tombstone) { t.Signature = "" },
		"not base64":       func(t *remote.Tombstone) { t.Signature = "!" + t.Signature[1:] },
		"blanks in base64": func(t *remote.Tombstone) { t.Signature = t.Signature[:8] + "\n" + t.Signature[8:] },
	} {
		tomb, err := remote.DecodeTombstone(tombstone(t, 2, "maintainer"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tomb.Verify(signers); err != nil {
			t.Fatalf("as signed: %v", err)
		}
		if _, err := tomb.Verify(other); !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("for another writer: %v, want ErrNotTrusted", err)
		}
		change(tomb)
		if _, err := tomb.Verify(signers); !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("%s: %v, want ErrNotTrusted", name, err)
		}
	}
}

// A manifest's signature says nothing about a tombstone, whatever the comment.
func TestAManifestsSignatureIsNoTombstones(t *testing.T) {
	signers := remote.Signers{Writer: "host", Certificates: []remote.Certificate{writerCertificate(t, 1, "writer", 1)}}
	object := encode(t, manifest("host", 1, nil))
	tomb := remote.NewTombstone("host", 1, remote.Sum(object), nil, forgottenAt)
	tomb.Signature = base64.StdEncoding.EncodeToString(key(t, "writer").Sign(object, remote.TombstoneComment("host", 1)))
	if _, err := tomb.Verify(signers); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("%v, want ErrNotTrusted", err)
	}
}

func TestInvalidTombstonesAreNotSigned(t *testing.T) {
	for name, spoil := range map[string]func(*remote.Tombstone){
		"another format": func(t *remote.Tombstone) { t.Format = 2 },
		"another type":   func(t *remote.Tombstone) { t.Type = remote.TypeManifest },
		"no writer":      func(t *remote.Tombstone) { t.Writer = "" },
		"no run":         func(t *remote.Tombstone) { t.Seq = 0 },
		"no previous":    func(t *remote.Tombstone) { t.Previous = nil },
		"no time":        func(t *remote.Tombstone) { t.Time = "" },
	} {
		tomb := remote.NewTombstone("host", 2, remote.Sum([]byte("a manifest")), &h, forgottenAt)
		spoil(&tomb)
		if _, err := tomb.Sign(key(t, "writer")); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// brokenTombstones are changes to the JSON of a good one.
var brokenTombstones = []struct {
	name, old, new string
	want           error
}{
	{"format-2", `{"format":1,`, `{"format":2,`, remote.ErrUnsupported},
	{"type-manifest", `"type":"tombstone"`, `"type":"manifest"`, remote.ErrCorrupt},
	{"key-unknown", `"seq":2,`, `"seq":2,"note":"x",`, remote.ErrCorrupt},
	{"key-twice", `"seq":2,`, `"seq":1,"seq":2,`, remote.ErrCorrupt},
	{"key-other-case", `"seq":2,`, `"SEQ":2,`, remote.ErrCorrupt},
	{"key-missing", `"writer":"host",`, ``, remote.ErrCorrupt},
	{"blank", `"seq":2`, `"seq": 2`, remote.ErrCorrupt},
	{"previous-null", `"previous":"` + h.String() + `"`, `"previous":null`, remote.ErrCorrupt},
	{"no-line-end", "}\n", "}", remote.ErrCorrupt},
	{"trailing-object", "}\n", "}\n{}\n", remote.ErrCorrupt},
	{"time-local", "03:05:06Z", "04:05:06+01:00", remote.ErrCorrupt},
	{"too-long", `"signature":"`, `"signature":"` + strings.Repeat("A", remote.MaxTombstone), remote.ErrCorrupt},
}

func TestBrokenTombstonesAreRefused(t *testing.T) {
	good := string(tombstone(t, 2, "writer"))
	for _, b := range brokenTombstones {
		if strings.Count(good, b.old) != 1 {
			t.Fatalf("%s: %q is not once in %s", b.name, b.old, good)
		}
		if _, err := remote.DecodeTombstone([]byte(strings.Replace(good, b.old, b.new, 1))); !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.name, err, b.want)
		}
	}
}

// The recipe of docs/FORMAT.md, with the stock programs.
func TestTheMinisignProgramVerifiesATombstone(t *testing.T) {
	run := minisignProgram(t)
	if _, err := exec.LookPath("sed"); err != nil {
		t.Skip("there is no sed")
	}
	object := tombstone(t, 2, "writer")
	path := writeFile(t, "tombstone", object)
	out, err := exec.Command("sh", "-c", `
		sed 's/"signature":"[^"]*"/"signature":""/' "$1" >"$1.message"
		sed 's/.*"signature":"\([^"]*\)".*/\1/' "$1" | base64 -d >"$1.minisig"`, "sh", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said, err := run("-V", "-H", "-Q", "-P", key(t, "writer").Public().String(), "-m", path+".message", "-x", path+".minisig")
	if diff := cmp.Diff(remote.TombstoneComment("host", 2)+"\n", said); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func FuzzDecodeTombstone(f *testing.F) {
	good := tombstone(f, 2, "writer")
	f.Add(good)
	for _, b := range brokenTombstones[:8] {
		f.Add(bytes.Replace(good, []byte(b.old), []byte(b.new), 1))
	}
	signers := remote.Signers{Writer: "host", Certificates: []remote.Certificate{writerCertificate(f, 1, "writer", 1)}}
	f.Fuzz(func(t *testing.T, object []byte) {
		tomb, err := remote.DecodeTombstone(object)
		if err != nil {
			if !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, remote.ErrUnsupported) {
				t.Errorf("%v is neither ErrCorrupt nor ErrUnsupported", err)
			}
			return
		}
		signature := tomb.Signature
		unsigned := bytes.Replace(object, []byte(`"signature":"`+signature+`"`), []byte(`"signature":""`), 1)
		if _, err := tomb.Verify(signers); err == nil && !bytes.Equal(unsigned, bytes.Replace(good, goodSignature(good), nil, 1)) {
			t.Errorf("%q is trusted", object)
		}
	})
}

// goodSignature returns the text between the quotes of the last field.
func goodSignature(object []byte) []byte {
	i := bytes.Index(object, []byte(`"signature":"`)) + len(`"signature":"`)
	return object[i : len(object)-len("\"}\n")]
}
