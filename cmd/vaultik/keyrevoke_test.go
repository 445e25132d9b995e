package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
)

// stolen is a bench with four runs, of which the machine's key has said that 1
// and 2 are forgotten: the manifest of 1 is gone, that of 2 is there.
func stolen(t *testing.T) (*bench, *dir.Store, remote.PublicKey) {
	t.Helper()
	b := newBench(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if code := b.vaultik("init", "--store", b.store(), "--kit", b.dir+"/kit.txt", "--writer", "ann", b.dir+"/source"); code != 0 {
		t.Fatal(b.err.String())
	}
	for range 4 {
		if code := b.vaultik("backup"); code != 0 {
			t.Fatal(b.err.String())
		}
	}
	store, err := dir.Open(b.dir + "/store")
	must(err)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	key, err := signing.ReadKey(filepath.Join(b.dir, "state/ann", state.SigningKeyFile))
	must(err)
	k, err := kit.Read(b.dir + "/kit.txt")
	must(err)
	w, err := remote.ReadWriter(t.Context(), store, k.Root.Public(), "ann")
	must(err)
	for _, s := range w.Snapshots[:2] {
		object, err := remote.NewTombstone("ann", s.Manifest.Seq, s.Hash, s.Manifest.Previous, b.now()).Sign(key)
		must(err)
		must(store.Put(t.Context(), remote.TombstoneKey("ann", s.Manifest.Seq), object))
	}
	must(store.Delete(t.Context(), remote.ManifestKey("ann", 1)))
	return b, store, k.Root.Public()
}

func runsOf(t *testing.T, store remote.Store, root remote.PublicKey) (shown, forgotten []remote.Seq) {
	t.Helper()
	w, err := remote.ReadWriter(t.Context(), store, root, "ann")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range w.Snapshots {
		shown = append(shown, s.Manifest.Seq)
	}
	for _, f := range w.Forgotten {
		forgotten = append(forgotten, f.Seq)
	}
	return shown, forgotten
}

// What a thief said is forgotten comes back with the revocation, unless it is
// gone; what is to be deleted is listed, by key.
func TestARevocationBringsBackWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		option           string
		shown, forgotten []remote.Seq
		tombstones       string
		refused          []string
	}{
		{"--signer=1", []remote.Seq{2, 3}, []remote.Seq{1}, "1 tombstone of it still counts", []string{
			"ann/metadata/0000000004/manifest.json.zst", "ann/metadata/0000000004/manifest.json.zst.minisig", "ann/forgotten/0000000002",
		}},
		{"--keep-tombstones", []remote.Seq{3}, []remote.Seq{1, 2}, "2 tombstones of it still count", []string{
			"ann/metadata/0000000004/manifest.json.zst", "ann/metadata/0000000004/manifest.json.zst.minisig",
		}},
	} {
		b, store, root := stolen(t)
		if code := b.vaultik("key", "revoke", "ann", "--signer", "1", c.option, "--through", "3", "--kit", b.dir+"/kit.txt"); code != 0 {
			t.Fatal(b.err.String())
		}
		if !strings.Contains(b.out.String(), c.tombstones+"\n") {
			t.Errorf("%s: it does not say %q:\n%s", c.option, c.tombstones, &b.out)
		}
		var refused []string
		for line := range strings.Lines(b.out.String()) {
			if key, ok := strings.CutPrefix(line, "  "); ok {
				refused = append(refused, strings.TrimSpace(key))
			}
		}
		if diff := cmp.Diff(c.refused, refused); diff != "" {
			t.Errorf("%s: listed (-want +got):\n%s", c.option, diff)
		}
		shown, forgotten := runsOf(t, store, root)
		if diff := cmp.Diff([][]remote.Seq{c.shown, c.forgotten}, [][]remote.Seq{shown, forgotten}); diff != "" {
			t.Errorf("%s: shown and forgotten (-want +got):\n%s", c.option, diff)
		}
	}
}

// A revocation that a crash left without its signature is completed by the
// same command; until then it revokes nothing.
func TestAnInterruptedRevocationIsCompleted(t *testing.T) {
	b, store, root := stolen(t)
	revoke := []string{"key", "revoke", "ann", "--signer", "1", "--through", "3", "--kit", b.dir + "/kit.txt"}
	if code := b.vaultik(revoke...); code != 0 {
		t.Fatal(b.err.String())
	}
	signature := remote.SignatureKey(remote.RevocationKey("ann", 1))
	if err := store.Delete(t.Context(), signature); err != nil {
		t.Fatal(err)
	}
	if shown, _ := runsOf(t, store, root); len(shown) != 2 { // 3 and 4
		t.Errorf("without its signature the revocation counts: runs %v are shown", shown)
	}
	if code := b.vaultik(revoke...); code != 0 {
		t.Fatal(b.err.String())
	}
	if shown, _ := runsOf(t, store, root); len(shown) != 2 || shown[1] != 3 {
		t.Errorf("runs %v are shown", shown)
	}
	if _, err := store.Stat(t.Context(), signature); err != nil {
		t.Error(err)
	}
}

// Every step of a rotation may be the last before a crash.
func TestARotationGoesOnAfterACrash(t *testing.T) {
	for _, step := range []string{"the key is made", "it is put", "it is certified"} {
		b := newBench(t)
		if code := b.vaultik("init", "--store", b.store(), "--kit", b.dir+"/kit.txt", "--writer", "ann", b.dir+"/source"); code != 0 {
			t.Fatal(b.err.String())
		}
		folder := filepath.Join(b.dir, "state/ann")
		old, err := signing.ReadKey(filepath.Join(folder, state.SigningKeyFile))
		if err != nil {
			t.Fatal(err)
		}
		switch step {
		case "the key is made":
			next, err := remote.GenerateSigningKey(b.random)
			if err == nil {
				err = state.Create(filepath.Join(folder, signing.NextKeyFile), []byte(next.Text()))
			}
			if err != nil {
				t.Fatal(err)
			}
		case "it is put":
			if code := b.vaultik("key", "rotate"); code != 0 {
				t.Fatal(b.err.String())
			}
		case "it is certified":
			if code := b.vaultik("key", "rotate"); code != 0 {
				t.Fatal(b.err.String())
			}
			if code := b.vaultik("key", "certify", "ann", "--from", "1", "--kit", b.dir+"/kit.txt"); code != 0 {
				t.Fatal(b.err.String())
			}
		}
		if code := b.vaultik("key", "rotate", "--kit", b.dir+"/kit.txt"); code != 0 {
			t.Fatalf("%s: %s", step, &b.err)
		}
		key, err := signing.ReadKey(filepath.Join(folder, state.SigningKeyFile))
		if err != nil || key.Public().Equal(old.Public()) {
			t.Errorf("%s: the key is the old one, %v", step, err)
		}
		if _, err := os.Stat(filepath.Join(folder, signing.NextKeyFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the next key still waits: %v", step, err)
		}
		if code := b.vaultik("backup"); code != 0 {
			t.Fatalf("%s: %s", step, &b.err)
		}
		if code := b.vaultik("snapshot", "list"); code != 0 || !strings.Contains(b.out.String(), "\nann-") {
			t.Errorf("%s: exit %d\n%s%s", step, code, &b.out, &b.err)
		}
		if found, err := filepath.Glob(b.dir + "/store/ann/signers/*.pub"); err != nil || len(found) != 2 {
			t.Errorf("%s: %d signers, %v", step, len(found), err)
		}
	}
}
