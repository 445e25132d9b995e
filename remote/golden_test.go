package remote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

var update = flag.Bool("update", false, "write the golden vectors of the current format anew")

const vectors = "testdata/v1"

// vector is one line of vectors.json. The files are for readers in any
// language; they never change once a format is released.
type vector struct {
	Kind string `json:"kind"` // manifest, list, tombstone, certificate, revocation or signature
	File string `json:"file"`
	// Want is "ok", "corrupt", "unsupported" or "not trusted".
	Want string `json:"want"`
	// PlainSize, of a list, is what its manifest says.
	PlainSize int64 `json:"plain_size,omitempty"`
	// Text, of what is ok, is the decompressed object.
	Text string `json:"text,omitempty"`
}

func class(err error) string {
	for name, target := range classes {
		if errors.Is(err, target) {
			return name
		}
	}
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// vectorSigners are those that sign the tombstones among the vectors.
func vectorSigners(t testing.TB) remote.Signers {
	fenced := writerCertificate(t, 3, "fenced", 30)
	fenced.PurgeMaintainer = true
	return remote.Signers{Writer: "host", Certificates: []remote.Certificate{
		writerCertificate(t, 1, "writer", 1), maintainerCertificate(t, 2), fenced,
	}}
}

func TestGoldenVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	var all []vector
	if err := json.Unmarshal(readFile(t, filepath.Join(vectors, "vectors.json")), &all); err != nil {
		t.Fatal(err)
	}
	root, writer := key(t, "root").Public(), key(t, "writer").Public()
	wants := make(map[string]int)
	for _, v := range all {
		wants[v.Kind+" "+v.Want]++
		object := readFile(t, filepath.Join(vectors, v.File))
		var err error
		var text []byte // what the reader's result encodes to
		switch v.Kind {
		case "manifest":
			var m *remote.Manifest
			if m, err = remote.DecodeManifest(object); err == nil {
				text = unpack(t, encode(t, m))
				_, err = writer.Verify(object, readFile(t, filepath.Join(vectors, v.File+".minisig")))
			}
		case "list":
			var l []remote.Object
			if l, err = remote.DecodeList(object, v.PlainSize); err == nil {
				again, _ := remote.EncodeList(l)
				text = unpack(t, again)
			}
		case "tombstone":
			var tomb *remote.Tombstone
			if tomb, err = remote.DecodeTombstone(object); err == nil {
				_, err = tomb.Verify(vectorSigners(t))
			}
		case "certificate":
			_, err = remote.ParseCertificate(root, "host", 1, object, readFile(t, filepath.Join(vectors, v.File+".minisig")))
		case "revocation":
			_, err = remote.ParseRevocation(root, "host", object, readFile(t, filepath.Join(vectors, v.File+".minisig")))
		case "signature":
			_, err = writer.Verify([]byte("a message"), object)
		default:
			t.Fatalf("unknown kind %q", v.Kind)
		}
		if got := class(err); got != v.Want {
			t.Errorf("%s: %s (%v), want %s", v.File, got, err, v.Want)
		}
		if v.Text != "" {
			if diff := cmp.Diff(string(readFile(t, filepath.Join(vectors, v.Text))), string(text)); diff != "" {
				t.Errorf("%s (-%s +ours):\n%s", v.File, v.Text, diff)
			}
		}
	}
	for _, kind := range []string{"manifest ok", "manifest corrupt", "manifest unsupported", "list ok", "list corrupt", "list unsupported",
		"tombstone ok", "tombstone corrupt", "tombstone not trusted", "certificate ok", "certificate not trusted", "signature ok", "signature not trusted",
		"revocation ok", "revocation corrupt", "revocation unsupported", "revocation not trusted"} {
		if wants[kind] == 0 {
			t.Errorf("no vector is %s", kind)
		}
	}
}

// The keys that made the vectors are there too, secret ones included.
func TestGoldenKeys(t *testing.T) {
	for _, name := range vectorKeys {
		k, err := remote.ParseSigningKey(string(readFile(t, filepath.Join(vectors, "keys", name+".key"))))
		if err != nil {
			t.Fatal(err)
		}
		p, err := remote.ParsePublicKey(string(readFile(t, filepath.Join(vectors, "keys", name+".pub"))))
		if err != nil || !p.Equal(k.Public()) || k.Base64() != key(t, name).Base64() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var vectorKeys = []string{"root", "writer", "maintainer", "fenced", "stranger"}

// writeVectors makes all vectors anew from fixed keys.
func writeVectors(t *testing.T) {
	var all []vector
	write := func(file string, data []byte) {
		path := filepath.Join(vectors, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add := func(v vector, data []byte) {
		write(v.File, data)
		all = append(all, v)
	}
	for _, name := range vectorKeys {
		write("keys/"+name+".key", []byte(key(t, name).Text()))
		write("keys/"+name+".pub", key(t, name).Public().File())
	}

	first := encode(t, manifest("host", 1, nil))
	for name, object := range map[string][]byte{"first": first, "second": encode(t, second(remote.Sum(first)))} {
		file := "manifest/" + name + ".json.zst"
		write(strings.TrimSuffix(file, ".zst"), unpack(t, object))
		write(file+".minisig", key(t, "writer").Sign(object, remote.ManifestComment("host", map[string]remote.Seq{"first": 1, "second": 2}[name])))
		add(vector{Kind: "manifest", File: file, Want: "ok", Text: strings.TrimSuffix(file, ".zst")}, object)
	}
	for _, b := range brokenManifests {
		add(vector{Kind: "manifest", File: "manifest/" + b.name + ".json.zst", Want: class(b.want)}, b.spoil(t))
	}
	add(vector{Kind: "manifest", File: "manifest/zstd-truncated.json.zst", Want: "corrupt"}, first[:len(first)-1])
	add(vector{Kind: "manifest", File: "manifest/zstd-byte-behind.json.zst", Want: "corrupt"}, append(bytes.Clone(first), 0))
	add(vector{Kind: "manifest", File: "manifest/zstd-missing.json.zst", Want: "corrupt"}, unpack(t, first))

	list, plain := remote.EncodeList(blobsOf(1))
	write("list/good.list", unpack(t, list))
	add(vector{Kind: "list", File: "list/good.list.zst", Want: "ok", PlainSize: plain, Text: "list/good.list"}, list)
	empty, plainEmpty := remote.EncodeList(nil)
	add(vector{Kind: "list", File: "list/good-empty.list.zst", Want: "ok", PlainSize: plainEmpty}, empty)
	add(vector{Kind: "list", File: "list/size-wrong.list.zst", Want: "corrupt", PlainSize: plain - 1}, list)
	for _, b := range brokenLists {
		add(vector{Kind: "list", File: "list/" + b.name + ".list.zst", Want: class(b.want), PlainSize: int64(len(b.text))}, pack(t, []byte(b.text)))
	}

	add(vector{Kind: "tombstone", File: "tombstone/by-writer", Want: "ok"}, tombstone(t, 2, "writer"))
	add(vector{Kind: "tombstone", File: "tombstone/by-maintainer", Want: "ok"}, tombstone(t, 2, "maintainer"))
	add(vector{Kind: "tombstone", File: "tombstone/of-run-1", Want: "ok"}, tombstone(t, 1, "writer"))
	add(vector{Kind: "tombstone", File: "tombstone/by-stranger", Want: "not trusted"}, tombstone(t, 2, "stranger"))
	add(vector{Kind: "tombstone", File: "tombstone/by-key-that-may-not", Want: "not trusted"}, tombstone(t, 30, "fenced"))
	add(vector{Kind: "tombstone", File: "tombstone/by-key-of-before", Want: "not trusted"}, tombstone(t, 30, "writer"))
	add(vector{Kind: "tombstone", File: "tombstone/changed", Want: "not trusted"},
		bytes.Replace(tombstone(t, 2, "writer"), []byte(`"seq":2`), []byte(`"seq":3`), 1))
	for _, b := range brokenTombstones {
		add(vector{Kind: "tombstone", File: "tombstone/" + b.name, Want: class(b.want)},
			bytes.Replace(tombstone(t, 2, "writer"), []byte(b.old), []byte(b.new), 1))
	}

	root, pub := key(t, "root"), key(t, "writer").Public().File()
	certificate := func(name, want string, signature []byte) {
		write("certificate/"+name+".pub.minisig", signature)
		add(vector{Kind: "certificate", File: "certificate/" + name + ".pub", Want: want}, pub)
	}
	for name, c := range map[string]remote.Certificate{
		"writer": writerCertificate(t, 1, "writer", 1), "writer-from-30": writerCertificate(t, 1, "writer", 30),
		"maintainer": {Key: key(t, "writer").Public(), Role: remote.RoleMaintainer, Writer: "host"},
	} {
		certificate(name, "ok", remote.SignCertificate(root, c))
	}
	fenced := writerCertificate(t, 1, "writer", 30)
	fenced.PurgeMaintainer = true
	certificate("writer-purge-maintainer", "ok", remote.SignCertificate(root, fenced))
	for _, b := range brokenCertificates {
		certificate(b.name, "not trusted", root.Sign(pub, b.comment))
	}
	good := writerCertificate(t, 1, "writer", 1)
	certificate("by-stranger", "not trusted", remote.SignCertificate(key(t, "stranger"), good))
	certificate("by-itself", "not trusted", remote.SignCertificate(key(t, "writer"), good))
	certificate("old-form", "not trusted", minisign.SignWithComments(mustPrivate(t, root), pub, good.Comment(), "x"))

	revocation := func(name, want string, text, signature []byte) {
		write("revocation/"+name+".revoked.minisig", signature)
		add(vector{Kind: "revocation", File: "revocation/" + name + ".revoked", Want: want}, text)
	}
	for name, r := range map[string]remote.Revocation{"good": revoked(t, 12, 3, 5), "good-none": revoked(t, 0)} {
		text, signature := remote.SignRevocation(root, r)
		revocation(name, "ok", text, signature)
	}
	for _, b := range brokenRevocations {
		text := b.spoil(string(revoked(t, 12, 3, 5).Text()))
		revocation(b.name, class(b.want), []byte(text), root.Sign([]byte(text), remote.RevocationComment("host", 1)))
	}
	text, byStranger := remote.SignRevocation(key(t, "stranger"), revoked(t, 12, 3, 5))
	revocation("by-stranger", "not trusted", text, byStranger)
	_, byItself := remote.SignRevocation(key(t, "writer"), revoked(t, 12, 3, 5))
	revocation("by-itself", "not trusted", text, byItself)

	signature := key(t, "writer").Sign([]byte("a message"), "a comment that counts")
	add(vector{Kind: "signature", File: "signature/good.minisig", Want: "ok"}, signature)
	for name, data := range map[string][]byte{
		"old-form":           minisign.SignWithComments(mustPrivate(t, key(t, "writer")), []byte("a message"), "a comment that counts", "x"),
		"of-another-message": key(t, "writer").Sign([]byte("another"), "a comment that counts"),
		"by-stranger":        key(t, "stranger").Sign([]byte("a message"), "a comment that counts"),
		"comment-changed":    bytes.Replace(signature, []byte("that counts"), []byte("that lies"), 1),
		"no-line-end":        bytes.TrimSuffix(signature, []byte("\n")),
		"line-ends-crlf":     bytes.ReplaceAll(signature, []byte("\n"), []byte("\r\n")),
		"empty":              {},
	} {
		add(vector{Kind: "signature", File: "signature/" + name + ".minisig", Want: "not trusted"}, data)
	}

	slices.SortFunc(all, func(a, b vector) int { return strings.Compare(a.File, b.File) })
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "\t")
	if err := e.Encode(all); err != nil {
		t.Fatal(err)
	}
	write("vectors.json", b.Bytes())
}
