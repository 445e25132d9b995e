package remote_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

const formatDoc = "../docs/FORMAT.md"

// examples are the worked examples of docs/FORMAT.md, made from the golden
// vectors and the code, so that they cannot drift from either.
func examples(t *testing.T) map[string]string {
	file := func(name string) string { return string(readFile(t, filepath.Join(vectors, name))) }
	object := file("manifest/first.json.zst")
	var keys strings.Builder
	for _, k := range []remote.Key{
		{Writer: "host", Kind: remote.KindSigner, N: 1},
		{Writer: "host", Kind: remote.KindSigner, N: 1, Signature: true},
		{Writer: "host", Kind: remote.KindRevocation, N: 1},
		{Writer: "host", Kind: remote.KindRevocation, N: 1, Signature: true},
		{Writer: "host", Kind: remote.KindBlob, Seq: 1, Hash: h},
		{Writer: "host", Kind: remote.KindDump, Seq: 1, Hash: h},
		{Writer: "host", Kind: remote.KindList, Seq: 1, Hash: h},
		{Writer: "host", Kind: remote.KindManifest, Seq: 1},
		{Writer: "host", Kind: remote.KindManifest, Seq: 1, Signature: true},
		{Writer: "host", Kind: remote.KindTombstone, Seq: 1},
	} {
		fmt.Fprintln(&keys, k)
	}
	var limits strings.Builder
	for _, l := range []struct {
		name  string
		value int64
	}{
		{"header of an age file", remote.MaxHeader}, {"chunk, plain; frame, decompressed", remote.MaxChunk},
		{"blob, encrypted", remote.MaxBlob}, {"dump part, encrypted", remote.MaxDumpPart},
		{"blob list, compressed and decompressed", remote.MaxList}, {"manifest, compressed and decompressed", remote.MaxManifest},
		{"tombstone", remote.MaxTombstone}, {"revocation", remote.MaxRevocation}, {"public key file, signature file", remote.MaxSignature},
		{"zstd window", remote.MaxWindow}, {"name of a directory entry", remote.MaxName},
		{"components of a path (not bytes)", remote.MaxDepth}, {"number of a run (not bytes)", int64(remote.MaxSeq)},
	} {
		fmt.Fprintf(&limits, "%-40s %13d\n", l.name, l.value)
	}
	return map[string]string{
		"keys":                  keys.String(),
		"secret key":            file("keys/writer.key"),
		"public key":            file("keys/writer.pub"),
		"root key":              file("keys/root.pub"),
		"certificate":           file("certificate/writer.pub.minisig"),
		"revocation":            file("revocation/good.revoked"),
		"revocation signature":  file("revocation/good.revoked.minisig"),
		"manifest":              file("manifest/first.json"),
		"manifest that differs": file("manifest/second.json"),
		"manifest object":       hex.Dump([]byte(object)),
		"manifest hash":         remote.Sum([]byte(object)).String() + "\n",
		"manifest signature":    file("manifest/first.json.zst.minisig"),
		"blob list":             file("list/good.list"),
		"tombstone":             file("tombstone/by-writer"),
		"limits":                limits.String(),
	}
}

// An example stands between a comment that names it and the end of the block
// that follows:
//
//	<!-- example: NAME -->
//	```
//	text
//	```
func TestTheExamplesOfTheFormatAreTrue(t *testing.T) {
	doc := string(readFile(t, formatDoc))
	for name, want := range examples(t) {
		mark := "<!-- example: " + name + " -->\n```\n"
		before, rest, found := strings.Cut(doc, mark)
		got, after, ended := strings.Cut(rest, "```\n")
		if !found || !ended {
			t.Errorf("%s has no example %q", formatDoc, name)
			continue
		}
		if *update {
			doc = before + mark + want + "```\n" + after
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("example %q (-true +written):\n%s", name, diff)
		}
	}
	// The example of a blob is checked where blobs are made.
	if n := strings.Count(doc, "<!-- example: ") - strings.Count(doc, "<!-- example: blob -->"); n != len(examples(t)) {
		t.Errorf("%d examples, %d of them checked", n, len(examples(t)))
	}
	if *update {
		if err := os.WriteFile(formatDoc, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
