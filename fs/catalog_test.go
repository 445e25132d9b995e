package fs

import (
	"context"
	"crypto/rand"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/seal"
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

func TestATreeIsLoadedOnceAndKept(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	cache := t.TempDir()
	c := newCatalog(t, w, cache, nil)
	c.refresh(t)
	c.counting.Reset()
	var openers sync.WaitGroup
	for range 16 {
		openers.Go(func() {
			tree, err := c.Open(context.Background(), "ann", m.Seq)
			if err != nil {
				t.Error(err)
				return
			}
			if got := read(t, tree, "hello"); got != "hello" {
				t.Errorf("got %q", got)
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	openers.Wait()
	count := 0
	for _, key := range c.counting.KeysRead() {
		if k, err := remote.ParseKey(key); err == nil && k.Kind == remote.KindDump {
			count++
		}
	}
	if count != len(m.Dumps) {
		t.Errorf("the dump's %d parts were fetched %d times", len(m.Dumps), count)
	}
	i, err := os.Stat(filepath.Join(cache, "views"))
	if err != nil || i.Mode().Perm() != 0o700 {
		t.Error("the folder of views:", i.Mode(), err)
	}

	again := newCatalog(t, w, cache, func(o *CatalogOptions) { o.Identities = nil })
	again.refresh(t)
	tree, err := again.Open(t.Context(), "ann", m.Seq)
	if err != nil {
		t.Fatal("a view that is there needs no dump:", err)
	}
	defer tree.Close()
	if n, err := tree.Lookup(t.Context(), tree.Root(), "hello"); err != nil || n.Size != 5 {
		t.Error(n, err)
	}
}

func TestADamagedViewIsBuiltAnew(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	cache := t.TempDir()
	for _, damage := range []func(path string) error{
		func(path string) error { return nil }, // builds it first
		func(path string) error { return os.Truncate(path, 100) },
		func(path string) error { return os.WriteFile(path, []byte("not a database"), 0o600) },
	} {
		files, err := filepath.Glob(filepath.Join(cache, "views", "*.db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
		}
		c := newCatalog(t, w, cache, nil)
		c.refresh(t)
		tree, err := c.Open(t.Context(), "ann", m.Seq)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, tree, "hello"); got != "hello" {
			t.Errorf("got %q", got)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestADumpThatIsNotWhatWasSignedIsRefused(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	cache := t.TempDir()
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		fault storetest.Fault
		ids   []age.Identity
		want  error
	}{
		{"a flipped bit", storetest.Fault{Kind: storetest.Flip, At: 300}, []age.Identity{w.Identity}, remote.ErrCorrupt},
		{"cut off", storetest.Fault{Kind: storetest.Break, At: 300, Err: remote.ErrCorrupt}, []age.Identity{w.Identity}, remote.ErrCorrupt},
		{"an outage", storetest.Fault{Kind: storetest.Fail}, []age.Identity{w.Identity}, storetest.ErrInjected},
		{"the wrong key", storetest.Fault{Kind: storetest.Fail, Call: 1000}, []age.Identity{stranger}, seal.ErrNoIdentity},
	} {
		catalog := newCatalog(t, w, cache, func(o *CatalogOptions) { o.Identities = c.ids })
		catalog.refresh(t)
		c.fault.Op, c.fault.Key, c.fault.Every = storetest.OpGet, `\.db\.zst\.age$`, true
		catalog.faulty.Script(c.fault)
		if _, err := catalog.Open(t.Context(), "ann", m.Seq); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if files, err := os.ReadDir(filepath.Join(cache, "views")); len(files) != 0 || err != nil {
			t.Errorf("%s: files are left: %v %v", c.name, files, err)
		}
	}
	healed := newCatalog(t, w, cache, nil)
	healed.refresh(t)
	tree, err := healed.Open(t.Context(), "ann", m.Seq)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
}

func TestTheFolderOfViewsIsBoundedAndOpenOnesStayReadable(t *testing.T) {
	w := fstest.New(t)
	for _, text := range []string{"1", "2", "3"} {
		w.Snapshot("ann", "home", hello(text)...)
	}
	cache := t.TempDir()
	c := newCatalog(t, w, cache, func(o *CatalogOptions) { o.ViewBytes, o.OpenTrees = 1, 1 })
	c.refresh(t)
	var trees []*Tree
	for seq := range remote.Seq(3) {
		tree, err := c.Open(t.Context(), "ann", seq+1)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	if files, err := os.ReadDir(filepath.Join(cache, "views")); len(files) != 1 || err != nil {
		t.Errorf("views in the folder: %v %v", files, err)
	}
	for i, tree := range trees {
		if got := read(t, tree, "hello"); got != string(rune('1'+i)) {
			t.Errorf("snapshot %d says %q", i+1, got)
		}
	}
	for _, tree := range trees {
		if err := errors.Join(tree.Close(), tree.Close()); err != nil { // twice is once
			t.Error(err)
		}
	}
	if n := len(c.open.trees); n != 1 {
		t.Errorf("%d trees are open that nobody uses", n)
	}
	if _, err := c.Open(t.Context(), "ann", 9); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
}

func TestWhoStopsWaitingForATreeDoesNotStopTheLoading(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	reached, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.faulty.OnCall = func(_ int, op, key string) {
		if op == storetest.OpGet && strings.HasSuffix(key, ".age") {
			once.Do(func() { close(reached) })
			<-resume
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := c.Open(ctx, "ann", m.Seq)
		left <- err
	}()
	<-reached
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(resume)
	tree, err := c.Open(t.Context(), "ann", m.Seq)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got := read(t, tree, "hello"); got != "hello" {
		t.Errorf("got %q", got)
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
