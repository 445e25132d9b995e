package remote_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
)

// flaws are those of "host", read with a root key.
func (x *history) flaws(root string, memory *remote.Seen) []error {
	x.t.Helper()
	w, err := remote.ReadWriter(x.t.Context(), x, key(x.t, root).Public(), "host")
	if err != nil {
		x.t.Fatal(err)
	}
	return w.Flaws(memory, "the store", time.Unix(1_800_000_000, 0))
}

func memory(t *testing.T) *remote.Seen {
	t.Helper()
	s, err := remote.OpenSeen(filepath.Join(t.TempDir(), "seen.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A writer has many manifests and one certificate: what is wrong with that is
// said once, and who is accused depends on what was seen before.
func TestWhatIsWrongWithAWriterIsSaidOnce(t *testing.T) {
	joined := &history{mem.New(nil), t, make(map[remote.Seq]remote.Hash)}
	put(t, joined, remote.SignerKey("host", 1), key(t, "writer").Public().File())
	for seq := remote.Seq(1); seq <= 3; seq++ {
		joined.hashes[seq] = joined.commit(joined.manifest(seq), "writer")
	}
	unsigned := newHistory(t, 2)
	unsigned.remove(remote.SignerKey("host", 1), remote.SignatureKey(remote.SignerKey("host", 1)),
		remote.SignerKey("host", 2), remote.SignatureKey(remote.SignerKey("host", 2)))
	trusted := func() (*history, *remote.Seen) {
		x, seen := newHistory(t, 3), memory(t)
		if flaws := x.flaws("root", seen); len(flaws) != 0 {
			t.Fatal(flaws)
		}
		return x, seen
	}
	robbed, before := trusted()
	robbed.remove(remote.SignatureKey(remote.SignerKey("host", 1)), remote.SignatureKey(remote.SignerKey("host", 2)))
	short, shortBefore := trusted()
	short.remove(remote.ManifestKey("host", 3))
	empty := &history{mem.New(nil), t, nil}
	_, emptyBefore := trusted()

	for name, c := range map[string]struct {
		store       *history
		root        string
		seen        *remote.Seen
		uncertified bool // else a Rollback
		waiting     bool
		before      remote.Seq
		says        string
	}{
		"joined":               {joined, "root", memory(t), true, true, 0, `run "vaultik key certify host --kit KIT"`},
		"joined, no memory":    {joined, "root", nil, true, true, 0, `run "vaultik key certify host --kit KIT"`},
		"another root key":     {newHistory(t, 3), "other", memory(t), true, false, 0, "is not certified by root key " + key(t, "other").Public().String()},
		"no signer":            {unsigned, "root", memory(t), true, false, 0, "has no signing key in the store"},
		"certificates removed": {robbed, "root", before, true, true, 3, "its run 3 was trusted here on 2027-01-15T08:00:00Z: either its certificate was removed"},
		"newest removed":       {short, "root", shortBefore, false, false, 0, "newer snapshots were removed"},
		"all removed":          {empty, "root", emptyBefore, false, false, 0, "shows none now"},
	} {
		t.Run(name, func(t *testing.T) {
			flaws := c.store.flaws(c.root, c.seen)
			if len(flaws) != 1 || !errors.Is(flaws[0], remote.ErrNotTrusted) || !strings.Contains(flaws[0].Error(), c.says) || strings.Contains(flaws[0].Error(), "\n") {
				t.Fatalf("%q, want one line with %q", flaws, c.says)
			}
			var u *remote.Uncertified
			if errors.As(flaws[0], &u) != c.uncertified {
				t.Fatalf("%#v", flaws[0])
			}
			if u == nil {
				return
			}
			var seq remote.Seq
			if u.Before != nil {
				seq = u.Before.Remembered
			}
			if u.Writer != "host" || u.Waiting() != c.waiting || seq != c.before {
				t.Errorf("writer %q, waiting %v, before %s", u.Writer, u.Waiting(), seq)
			}
		})
	}
}

func TestAStoreThatLostAllItsWritersIsNoStore(t *testing.T) {
	store, seen := mem.New(nil), memory(t)
	read := func(before ...string) ([]string, error) {
		return remote.WritersToRead(t.Context(), store, seen, "the store", before...)
	}
	if names, err := read(); err != nil || len(names) != 0 {
		t.Errorf("a new store: %q, %v", names, err)
	}
	if err := seen.Check("the store", "bob", 1, remote.Sum([]byte("1")), time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := read("ann"); !errors.Is(err, remote.ErrNoStore) || !strings.Contains(err.Error(), `showed ["ann" "bob"] here before`) {
		t.Error(err)
	}
	put(t, store, remote.SignerKey("carl", 1), []byte("a key"))
	names, err := read("ann", "bob")
	if diff := cmp.Diff([]string{"ann", "bob", "carl"}, names); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
