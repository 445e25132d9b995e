package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

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

// Anybody can encrypt to a recipient. What was not signed is not looked into,
// however well it decrypts and loads.
func TestADumpInAnothersPlaceIsRefused(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	w.Reseal(m, 0)
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	if _, err := c.Open(t.Context(), "ann", m.Seq); !errors.Is(err, remote.ErrCorrupt) || !strings.Contains(err.Error(), "signs") {
		t.Errorf("the same dump, encrypted anew: %v", err)
	}
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

// What a killed process was building stays behind, and goes after a day.
func TestLeftoversOfKilledBuildersGo(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	cache := t.TempDir()
	c := newCatalog(t, w, cache, nil)
	c.refresh(t)
	dead := filepath.Join(cache, "views", "dead.db.tmp-1")
	live := filepath.Join(cache, "views", "live.db.tmp-2")
	for _, path := range []string{dead, live} {
		if err := os.WriteFile(path, []byte("half a view"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(dead, old, old); err != nil {
		t.Fatal(err)
	}
	tree, err := c.Open(t.Context(), "ann", m.Seq)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("a leftover is still there:", err)
	}
	if _, err := os.Stat(live); err != nil {
		t.Error("another process may be writing it:", err)
	}
}

func TestWhoStopsWaitingForATreeDoesNotStopTheLoading(t *testing.T) {
	w := fstest.New(t)
	m := w.Snapshot("ann", "home", hello("hello")...)
	c := newCatalog(t, w, t.TempDir(), nil)
	c.refresh(t)
	gate := storetest.NewGate(t)
	c.faulty.OnCall = func(_ int, op, key string) {
		if op == storetest.OpGet && strings.HasSuffix(key, ".age") {
			gate.Pass()
		}
	}
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.Open(ctx, "ann", m.Seq)
		left <- err
	}()
	gate.Await(t)
	leave()
	if err := storetest.Within(t, left); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gate.Open()
	tree, err := c.Open(t.Context(), "ann", m.Seq)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got := read(t, tree, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}
