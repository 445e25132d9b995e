package fs

import (
	"crypto/rand"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// catalog is over the world's store, through wrappers that count and fail.
type catalog struct {
	*fstest.World
	*Catalog
	counting *storetest.Counting
	faulty   *storetest.Faulty
}

func newCatalog(t testing.TB, w *fstest.World, cache string, change func(*CatalogOptions)) *catalog {
	t.Helper()
	counting := storetest.NewCounting(w.Store)
	faulty := storetest.NewFaulty(counting)
	o := CatalogOptions{Store: faulty, Root: w.Root.Public(), Identities: []age.Identity{w.Identity}, Cache: cache}
	if change != nil {
		change(&o)
	}
	c, err := NewCatalog(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &catalog{w, c, counting, faulty}
}

func (c *catalog) refresh(t testing.TB) bool {
	t.Helper()
	changed, err := c.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func (c *catalog) ids() []string {
	var out []string
	for _, s := range c.Snapshots() {
		out = append(out, s.ID)
	}
	return out
}

func hello(text string) []fstest.Entry {
	return []fstest.Entry{fstest.Regular("/hello", []byte(text))}
}

func read(t testing.TB, tree *Tree, name string) string {
	t.Helper()
	n, err := tree.Lookup(t.Context(), tree.Root(), name)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n.Size)
	if _, err := tree.ReadAt(t.Context(), n, p, 0); err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func TestNewAndForgottenSnapshotsComeAndGo(t *testing.T) {
	w := fstest.New(t)
	c := newCatalog(t, w, t.TempDir(), nil)
	if c.refresh(t) || len(c.ids()) != 0 {
		t.Error("an empty store has snapshots:", c.ids())
	}
	w.Snapshot("ann", "home", hello("1")...)
	w.Snapshot("bob", "home", hello("2")...)
	second := w.Snapshot("ann", "etc", hello("3")...)
	if !c.refresh(t) {
		t.Error("nothing changed")
	}
	want := []string{"ann-20261124-031022Z", "ann-20261124-051022Z", "bob-20261124-041022Z"}
	if diff := cmp.Diff(want, c.ids()); diff != "" {
		t.Error(diff)
	}

	c.counting.Reset()
	if c.refresh(t) || c.counting.Count(storetest.OpGet).Calls != 0 {
		t.Errorf("an unchanged store costs %d reads", c.counting.Count(storetest.OpGet).Calls)
	}

	w.Snapshot("ann", "home", hello("4")...)
	w.Forget(second)
	if !c.refresh(t) {
		t.Error("nothing changed")
	}
	want = []string{"ann-20261124-031022Z", "ann-20261124-061022Z", "bob-20261124-041022Z"}
	if diff := cmp.Diff(want, c.ids()); diff != "" || len(c.Problems()) > 0 {
		t.Error(diff, c.Problems())
	}
}

func TestWhatIsNotTrustedIsLeftOutByName(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	// Whoever knows the public keys and may write to the store does this.
	forger := fstest.New(t)
	forger.Snapshot("mallory", "home", hello("forged")...)
	for info, err := range forger.Store.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		w.Copy(forger.Store, info.Key, info.Key)
	}
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	if diff := cmp.Diff([]string{"ann-20261124-031022Z"}, c.ids()); diff != "" {
		t.Error(diff)
	}
	problems := errors.Join(c.Problems()...)
	if !errors.Is(problems, remote.ErrNotTrusted) || !strings.Contains(problems.Error(), "mallory") {
		t.Error(problems)
	}
	if c.refresh(t) {
		t.Error("nothing happened, but something changed")
	}
}

func TestWhatIsListedToReadAWriterIsNotListedAgain(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	// The store as a whole, to find the writer; its signers, its metadata and
	// what it has forgotten.
	if n := c.counting.Count(storetest.OpList).Calls; n != 4 {
		t.Errorf("%d listings, want 4", n)
	}
}

func TestAWriterThatCannotBeReadKeepsWhatWasKnown(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	w.Snapshot("bob", "home", hello("2")...)
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	w.Snapshot("ann", "home", hello("3")...)
	w.Snapshot("bob", "home", hello("4")...)
	c.faulty.Script(storetest.Fault{Op: storetest.OpList, Key: "^ann/", Every: true, Kind: storetest.Fail})
	if _, err := c.Refresh(t.Context()); !errors.Is(err, storetest.ErrInjected) || !strings.Contains(err.Error(), `"ann"`) {
		t.Error(err)
	}
	want := []string{"ann-20261124-031022Z", "bob-20261124-041022Z", "bob-20261124-061022Z"}
	if diff := cmp.Diff(want, c.ids()); diff != "" {
		t.Error(diff)
	}
	c.faulty.Script()
	c.refresh(t)
	if len(c.ids()) != 4 {
		t.Error("it does not heal:", c.ids())
	}
}

func TestAStoreThatShowsLessThanBeforeIsReported(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	last := w.Snapshot("ann", "home", hello("2")...)
	seen := filepath.Join(t.TempDir(), "seen.json")
	open := func() *catalog {
		s, err := remote.OpenSeen(seen)
		if err != nil {
			t.Fatal(err)
		}
		return newCatalog(t, w, t.TempDir(), func(o *CatalogOptions) { o.Seen, o.StoreID = s, "mem" })
	}
	c := open()
	c.refresh(t)
	if len(c.Problems()) != 0 {
		t.Fatal(c.Problems())
	}
	for _, key := range []string{remote.ManifestKey("ann", last.Seq), remote.SignatureKey(remote.ManifestKey("ann", last.Seq))} {
		if err := w.Store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	c = open()
	c.refresh(t)
	var rollback *remote.Rollback
	if err := errors.Join(c.Problems()...); !errors.As(err, &rollback) {
		t.Errorf("problems: %v", err)
	}
}

func TestDirectoriesThatCouldNotBeReadAreNotEmpty(t *testing.T) {
	w := newWorld(t, ChunkOptions{}, fstest.Dir("/empty"), fstest.Dir("/closed").With(func(e *fstest.Entry) {
		e.State, e.Errno = metastore.StateUnreadable, 13
	}))
	for name, want := range map[string]error{"empty": nil, "closed": ErrNotCaptured} {
		n := w.node(t, name)
		if nodes, err := w.tree.ReadDir(t.Context(), n.Ino, 0, 10); len(nodes) != 0 || !errors.Is(err, want) {
			t.Errorf("list %s: %v, %v", name, nodes, err)
		}
		if want == nil {
			want = iofs.ErrNotExist
		}
		if _, err := w.tree.Lookup(t.Context(), n.Ino, "x"); !errors.Is(err, want) {
			t.Errorf("look into %s: %v", name, err)
		}
	}
}

func TestNamesThatAreNoSafeFolderNamesAreRefused(t *testing.T) {
	for id, good := range map[string]bool{
		"ann-20261124-031022Z": true, "ann-20261124-031022Z-2": true, "": false, ".": false, "..": false, "../x": false, "a/b": false,
		"a\x00b": false, "latest": false, ".hidden": false, "a\nb": false, strings.Repeat("a", 129): false,
	} {
		if err := checkID(id); good != (err == nil) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestCatalogNeedsAFolder(t *testing.T) {
	key, err := remote.GenerateSigningKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewCatalog(CatalogOptions{Store: mem.New(nil), Root: key.Public(), Cache: file}); err == nil {
		t.Error("a file was taken as the cache folder")
	}
}
