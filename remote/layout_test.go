package remote_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
)

var h = remote.Sum([]byte("an object"))

func TestKeysAreSpelledAsTheFormatSays(t *testing.T) {
	for key, want := range map[string]remote.Key{
		"host/signers/1.pub":                                     {Writer: "host", Kind: remote.KindSigner, N: 1},
		"host/signers/12.pub.minisig":                            {Writer: "host", Kind: remote.KindSigner, N: 12, Signature: true},
		"host/signers/3.revoked":                                 {Writer: "host", Kind: remote.KindRevocation, N: 3},
		"host/signers/3.revoked.minisig":                         {Writer: "host", Kind: remote.KindRevocation, N: 3, Signature: true},
		"host/blobs/0000000007/" + h.String():                    {Writer: "host", Kind: remote.KindBlob, Seq: 7, Hash: h},
		"host/metadata/0000000007/" + h.String() + ".db.zst.age": {Writer: "host", Kind: remote.KindDump, Seq: 7, Hash: h},
		"host/metadata/0000000007/" + h.String() + ".list.zst":   {Writer: "host", Kind: remote.KindList, Seq: 7, Hash: h},
		"host/metadata/0000000007/manifest.json.zst":             {Writer: "host", Kind: remote.KindManifest, Seq: 7},
		"host/metadata/0000000007/manifest.json.zst.minisig":     {Writer: "host", Kind: remote.KindManifest, Seq: 7, Signature: true},
		"h.o_s-t/forgotten/9999999999":                           {Writer: "h.o_s-t", Kind: remote.KindTombstone, Seq: 9999999999},
	} {
		if diff := cmp.Diff(key, want.String()); diff != "" {
			t.Errorf("%+v is spelled (-want +got):\n%s", want, diff)
		}
		got, err := remote.ParseKey(key)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("ParseKey(%q): %v (-want +got):\n%s", key, err, diff)
		}
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	for _, key := range []string{
		"", "host", "host/", "host/blobs", "/blobs/0000000001/" + h.String(), "host//blobs/0000000001/" + h.String(),
		".probe-1/object/x", "host/signers/0.pub", "host/signers/01.pub", "host/signers/+1.pub", "host/signers/1", "host/signers/1.pub.minisig.minisig",
		"host/signers/1/1.pub", "host/signers/1234567890.pub", "host/signers/0.revoked", "host/signers/1.revoked.pub", "host/signers/.revoked",
		"host/blobs/0000000000/" + h.String(), "host/blobs/1/" + h.String(), "host/blobs/00000000001/" + h.String(), "host/blobs/+000000001/" + h.String(),
		"host/blobs/0000000001/" + strings.ToUpper(h.String()), "host/blobs/0000000001/" + h.String()[:63], "host/blobs/0000000001/" + h.String() + ".minisig",
		"host/metadata/0000000001/" + h.String(), "host/metadata/0000000001/" + h.String() + ".list.zst.minisig", "host/metadata/0000000001/manifest.json",
		"host/metadata/0000000001/x/manifest.json.zst", "host/metadata/manifest.json.zst", "host/forgotten/0000000001.minisig", "host/forgotten/0000000001/x",
		"host/other/0000000001", "ho st/forgotten/0000000001", "host./forgotten/0000000001",
	} {
		if k, err := remote.ParseKey(key); err == nil {
			t.Errorf("ParseKey(%q) = %+v", key, k)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "Host-1.example_x": true, strings.Repeat("a", 63): true, "a-": true, "latest": true,
		"": false, ".": false, "..": false, ".a": false, "a.": false, "-a": false, "_a": false, strings.Repeat("a", 64): false,
		"a b": false, "a/b": false, "é": false, "a\x00": false, "a\n": false, "a@b": false,
	} {
		if err := remote.CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// keys generates every key there is.
func keys() *rapid.Generator[remote.Key] {
	return rapid.Custom(func(t *rapid.T) remote.Key {
		k := remote.Key{
			Writer: rapid.StringMatching(`[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9_-])?`).Draw(t, "writer"),
			Kind: rapid.SampledFrom([]remote.Kind{
				remote.KindSigner, remote.KindRevocation, remote.KindBlob, remote.KindDump, remote.KindList, remote.KindManifest, remote.KindTombstone,
			}).Draw(t, "kind"),
		}
		if k.Kind == remote.KindSigner || k.Kind == remote.KindRevocation {
			k.N = rapid.IntRange(1, 999_999_999).Draw(t, "n")
		} else {
			k.Seq = remote.Seq(rapid.Uint64Range(1, uint64(remote.MaxSeq)).Draw(t, "seq"))
		}
		switch k.Kind {
		case remote.KindBlob, remote.KindDump, remote.KindList:
			k.Hash = remote.Sum(rapid.SliceOf(rapid.Byte()).Draw(t, "hashed"))
		case remote.KindSigner, remote.KindRevocation, remote.KindManifest:
			k.Signature = rapid.Bool().Draw(t, "signature")
		}
		return k
	})
}

func TestEveryKeySurvivesItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := keys().Draw(t, "key")
		got, err := remote.ParseKey(k.String())
		if diff := cmp.Diff(k, got); err != nil || diff != "" {
			t.Errorf("ParseKey(%q): %v (-want +got):\n%s", k, err, diff)
		}
	})
}

// A store whose prefix lies inside of another one's: whatever its writers are
// called, no key of it is one of the other's, and prune leaves it alone.
func TestAStoreWithinAStoreIsNoPartOfIt(t *testing.T) {
	for _, writer := range []string{"signers", "blobs", "metadata", "forgotten", "host"} {
		for _, inner := range []string{
			remote.SignerKey(writer, 1), remote.SignatureKey(remote.SignerKey(writer, 1)), remote.RevocationKey(writer, 1), remote.BlobKey(writer, 1, h),
			remote.DumpKey(writer, 1, h), remote.ListKey(writer, 1, h), remote.ManifestKey(writer, 1), remote.SignatureKey(remote.ManifestKey(writer, 1)), remote.TombstoneKey(writer, 1),
		} {
			for _, prefix := range []string{"host/", "host/blobs/", "host/metadata/", "host/blobs/0000000001/", "host/metadata/0000000001/"} {
				if k, err := remote.ParseKey(prefix + inner); err == nil {
					t.Errorf("%q passes for %+v", prefix+inner, k)
				}
			}
			for cut := inner; strings.Contains(cut, "/"); {
				_, cut, _ = strings.Cut(cut, "/")
				if k, err := remote.ParseKey(cut); err == nil {
					t.Errorf("from within, %q passes for %+v", cut, k)
				}
			}
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, key := range []string{
		"host/signers/1.pub", "host/signers/1.pub.minisig", "host/signers/1.revoked", "host/blobs/0000000007/" + h.String(), "host/metadata/0000000007/" + h.String() + ".db.zst.age",
		"host/metadata/0000000007/" + h.String() + ".list.zst", "host/metadata/0000000007/manifest.json.zst.minisig", "host/forgotten/0000000007",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if k, err := remote.ParseKey(key); err == nil && k.String() != key {
			t.Errorf("ParseKey(%q) is the key %q", key, k)
		}
	})
}
