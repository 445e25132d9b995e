package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store with snapshots, and what a check said of it.
type world struct {
	*fstest.World
	t        *testing.T
	counting *storetest.Counting
	cache    string
	findings []Finding
	progress Progress
}

func newWorld(t *testing.T) *world {
	w := &world{World: fstest.New(t), t: t, cache: t.TempDir()}
	w.counting = storetest.NewCounting(w.Store)
	return w
}

// tree has several blobs, chunks that files share, holes and hard links.
func tree() []fstest.Entry {
	linked := func(e *fstest.Entry) { e.Inode, e.Nlink = 77, 2 }
	out := []fstest.Entry{
		fstest.Regular("/home/big", fstest.Noise(1, 6<<20)),
		fstest.Regular("/home/copy", fstest.Noise(1, 6<<20)),
		fstest.Regular("/home/link one", fstest.Noise(2, 300_000)).With(linked),
		fstest.Regular("/home/link two", fstest.Noise(2, 300_000)).With(linked),
		fstest.Regular("/home/text", bytes.Repeat([]byte("text "), 100_000)),
		fstest.Regular("/home/empty", nil),
		fstest.Symlink("/home/symlink", "text"),
		{Path: "/home/sparse", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o600}}, Pieces: []fstest.Piece{
			{Hole: 1 << 20}, {Data: fstest.Noise(3, 70_000)}, {Hole: 5}, {Data: fstest.Noise(4, 1<<20)},
		}},
	}
	for i := range 20 {
		out = append(out, fstest.Regular(fmt.Sprintf("/home/small/%02d", i), fstest.Noise(uint64(100+i), 30_000)))
	}
	return out
}

func (w *world) catalog() *fs.Catalog {
	w.t.Helper()
	c, err := fs.NewCatalog(fs.CatalogOptions{Store: w.counting, Root: w.Root.Public(), Identities: []age.Identity{w.Identity}, Cache: w.cache})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := c.Refresh(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if len(c.Problems()) > 0 {
		w.t.Fatal(c.Problems())
	}
	return c
}

// check checks all snapshots.
func (w *world) check(change ...func(*checker)) Result {
	w.t.Helper()
	c := w.catalog()
	defer c.Close()
	w.counting.Reset()
	checker := newChecker(w.options(c))
	for _, f := range change {
		f(checker)
	}
	r, err := checker.run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.counted(r)
	return r
}

func (w *world) options(c *fs.Catalog) Options {
	w.findings = nil
	return Options{
		Catalog: c, Snapshots: c.Snapshots(),
		Report: func(f Finding) { w.findings = append(w.findings, f) }, Progress: func(p Progress) { w.progress = p },
	}
}

// counted compares the result's counts with what was reported.
func (w *world) counted(r Result) {
	w.t.Helper()
	var n [4]int64
	for _, f := range w.findings {
		if f.Err == nil {
			w.t.Errorf("%s %s: no reason", f.Kind, f.Key)
		}
		switch {
		case f.Kind == KindDump:
			n[0]++
		case f.Kind == KindBlob:
			n[1]++
		case f.Healed:
			n[2]++
		default:
			n[3]++
		}
	}
	if got := [4]int64{r.BadDumps, r.BadBlobs, r.Healed, r.Damaged}; got != n {
		w.t.Errorf("counted %v, reported %v", got, n)
	}
	if p := w.progress; p.Snapshots != p.AllSnapshots || p.Blobs != p.AllBlobs {
		w.t.Errorf("it ends at %+v", p)
	}
}

// files returns the paths of findings by snapshot, those that are healed with a
// mark in front.
func (w *world) files() map[string][]string {
	out := make(map[string][]string)
	for _, f := range w.findings {
		if f.Kind != KindFile {
			continue
		}
		path := f.Path
		if f.Healed {
			path = "+" + path
		}
		out[f.Snapshot.ID] = append(out[f.Snapshot.ID], path)
	}
	return sorted(out)
}

func sorted(m map[string][]string) map[string][]string {
	for _, paths := range m {
		slices.Sort(paths)
	}
	return m
}

// unreadable reads every file of every snapshot and returns those that fail, as
// files does: nothing but reading decides what is damaged.
func (w *world) unreadable() map[string][]string {
	w.t.Helper()
	c := w.catalog()
	defer c.Close()
	out := make(map[string][]string)
	for _, s := range c.Snapshots() {
		t, err := c.OpenSnapshot(w.t.Context(), s)
		if err != nil {
			w.t.Fatal(err)
		}
		p := paths{tree: t}
		for after := uint64(0); ; {
			nodes, err := t.After(w.t.Context(), after, 100)
			if err != nil {
				w.t.Fatal(err)
			}
			if len(nodes) == 0 {
				break
			}
			for i := range nodes {
				n := &nodes[i]
				after = n.Cookie
				if n.Type != metastore.Regular {
					continue
				}
				if _, err := t.ReadAt(w.t.Context(), *n, make([]byte, n.Size), 0); err != nil && !errors.Is(err, io.EOF) {
					path, err := p.of(w.t.Context(), n)
					if err != nil {
						w.t.Fatal(err)
					}
					out[s.ID] = append(out[s.ID], path)
				}
			}
		}
		if err := t.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	return sorted(out)
}

func (w *world) kinds(kind Kind) (n int) {
	for _, f := range w.findings {
		if f.Kind == kind {
			n++
		}
	}
	return n
}

// blobReads counts the requests for each blob.
func (w *world) blobReads() map[string]int {
	times := make(map[string]int)
	for _, key := range w.counting.KeysRead() {
		if k, err := remote.ParseKey(key); err == nil && k.Kind == remote.KindBlob {
			times[key]++
		}
	}
	return times
}

func TestASoundStoreIsReadOnce(t *testing.T) {
	w := newWorld(t)
	w.Snapshot("ann", "home", tree()...)
	w.Snapshot("ann", "home", append(tree(), fstest.Regular("/home/new", fstest.Noise(9, 1<<20)))...)
	w.Snapshot("ann", "etc", fstest.Regular("/etc/passwd", []byte("root:x:0:0::/:/bin/sh\n")))
	w.Snapshot("bob", "home", tree()...)
	blobs, stored := 0, int64(0)
	for _, writer := range []string{"ann", "bob"} {
		for info, err := range w.Store.List(t.Context(), remote.BlobsPrefix(writer)) {
			if err != nil {
				t.Fatal(err)
			}
			blobs++
			stored += info.Size
		}
	}
	for round := range 2 { // the second one finds the views in the cache folder
		r := w.check()
		if len(w.findings) > 0 || !r.Clean() {
			t.Errorf("findings: %v", w.findings)
		}
		times := w.blobReads()
		if len(times) != blobs || r.Blobs != (Tally{int64(blobs), stored}) {
			t.Errorf("%d of %d blobs were read, %+v, stored are %d bytes", len(times), blobs, r.Blobs, stored)
		}
		for key, n := range times {
			if n != 1 {
				t.Errorf("%s was read %d times", key, n)
			}
		}
		if r.Snapshots != 4 || r.Chunks.Count < 60 || r.Chunks.Bytes < 14<<20 || r.Dumps.Count < 4 {
			t.Errorf("round %d: %+v", round, r)
		}
	}
	// In pieces, as blobs that are too big for memory are.
	if r := w.check(func(c *checker) { c.whole = 1000 }); len(w.findings) > 0 || r.Chunks.Bytes < 14<<20 || r.Blobs.Bytes < stored {
		t.Errorf("%+v, %v", r, w.findings)
	}
}

func flip(at func(size int) int) func([]byte) []byte {
	return func(b []byte) []byte { b[at(len(b))] ^= 1; return b }
}

// Whatever is done to a blob, the files that are reported are those that cannot
// be read, all of them and no others.
func TestTheFilesThatCannotBeReadAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		none   bool // no file suffers
		some   bool // not all of the blob's files do
	}{
		"gone":      {change: func([]byte) []byte { return nil }},
		"empty":     {change: func(b []byte) []byte { return b[:0] }},
		"truncated": {change: func(b []byte) []byte { return b[:len(b)-1] }},
		"half":      {change: func(b []byte) []byte { return b[:len(b)/2] }},
		"longer":    {change: func(b []byte) []byte { return append(b, 0) }, none: true},
		"version":   {change: flip(func(int) int { return 5 })},
		"recipient": {change: flip(func(int) int { return 60 })},
		"mac":       {change: flip(func(int) int { return 190 })},
		"nonce":     {change: flip(func(int) int { return 210 })},
		"first":     {change: flip(func(int) int { return 230 }), some: true},
		"body":      {change: flip(func(size int) int { return size / 3 }), some: true},
		"later":     {change: flip(func(size int) int { return size / 2 }), some: true},
		"contents":  {change: flip(func(size int) int { return size - 60 })}, // in the last piece, which vouches for the size
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !c.some {
				t.Skip("much data")
			}
			w := newWorld(t)
			first := w.Snapshot("ann", "home", tree()...)
			w.Snapshot("ann", "etc", fstest.Regular("/etc/passwd", []byte("root")), fstest.Regular("/etc/copy", fstest.Noise(1, 6<<20)))
			w.Snapshot("bob", "home", tree()...)
			w.Damage(w.Blobs(first)[0], c.change)
			want := w.unreadable()
			if n := len(want[first.Snapshot]); (n == 0) != c.none || c.some && n > 5 {
				t.Fatalf("%d files cannot be read: %q", n, want)
			}
			for _, change := range []func(*checker){func(*checker) {}, func(c *checker) { c.whole = 1000 }} {
				w.check(change)
				if d := cmp.Diff(want, w.files()); d != "" {
					t.Errorf("(-cannot be read +reported)\n%s", d)
				}
			}
			w.check()
			if n := w.kinds(KindBlob); n != 1 || w.findings[0].Key != w.Blobs(first)[0] {
				t.Errorf("%d blobs are reported: %v", n, w.findings)
			}
			for _, f := range w.findings {
				if lost := errors.Is(f.Err, fs.ErrLost); lost != (name == "gone") {
					t.Errorf("%v", f.Err)
				}
				if f.Kind == KindFile && f.Bytes == 0 {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// A table of contents that is longer than a piece can be damaged where nothing
// else is: readers do not need it.
func TestABlobWithoutContentsIsReadAsItsSnapshotsSay(t *testing.T) {
	w := newWorld(t)
	e := fstest.Entry{Path: "/pieces", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}}
	for i := range 6000 {
		e.Pieces = append(e.Pieces, fstest.Piece{Data: fmt.Appendf(nil, "piece %d", i)})
	}
	m := w.Snapshot("ann", "home", e)
	if n := len(w.Blobs(m)); n != 1 {
		t.Fatalf("%d blobs", n)
	}
	w.Damage(w.Blobs(m)[0], flip(func(size int) int { return size - 110_000 }))
	want := w.unreadable()
	if len(want) > 0 {
		t.Fatalf("it is more than the table: %d files", len(want[m.Snapshot]))
	}
	r := w.check()
	if d := cmp.Diff(want, w.files()); d != "" {
		t.Errorf("(-cannot be read +reported)\n%.1000s", d)
	}
	if w.kinds(KindBlob) != 1 || !r.Clean() {
		t.Errorf("%v, %+v", w.findings, r)
	}
}

func TestBlobsThatChangedPlacesAreFound(t *testing.T) {
	w := newWorld(t)
	m := w.Snapshot("ann", "home", tree()...)
	blobs := w.Blobs(m)
	var objects [2][]byte
	for i := range objects {
		var err error
		if objects[i], err = w.Object(blobs[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range objects {
		w.Damage(blobs[i], func([]byte) []byte { return objects[1-i] })
	}
	want := w.unreadable()
	if len(want[m.Snapshot]) < 3 {
		t.Fatal(want)
	}
	w.check()
	if d := cmp.Diff(want, w.files()); d != "" || w.kinds(KindBlob) != 2 {
		t.Errorf("%d blobs, (-cannot be read +reported)\n%s", w.kinds(KindBlob), d)
	}
}

func TestWhatALaterRunStoredAgainIsHealed(t *testing.T) {
	w := newWorld(t)
	first := w.Snapshot("ann", "home", append(tree(), fstest.Regular("/home/a/vanished", fstest.Noise(50, 100)))...)
	for _, key := range w.Blobs(first) {
		w.Damage(key, func([]byte) []byte { return nil })
	}
	second := w.Snapshot("ann", "home", tree()...)
	if d := cmp.Diff(map[string][]string{first.Snapshot: {"/home/a/vanished"}}, w.unreadable()); d != "" {
		t.Fatalf("cannot be read: %s", d)
	}
	r := w.check()
	files := w.files()
	if r.Damaged != 1 || !slices.Contains(files[first.Snapshot], "/home/a/vanished") || r.Healed != 26 || len(files) != 1 {
		t.Errorf("%+v, %v", r, files)
	}
	// And is not if that is damaged, too.
	for _, key := range w.Blobs(second) {
		w.Damage(key, func([]byte) []byte { return nil })
	}
	want := w.unreadable()
	if w.check(); len(want) != 2 {
		t.Errorf("%d snapshots", len(want))
	}
	if d := cmp.Diff(want, w.files()); d != "" {
		t.Errorf("(-cannot be read +reported)\n%s", d)
	}
}

// Snapshots that are not to be checked may have what those that are have lost.
func TestAPartOfTheSnapshotsCanBeChecked(t *testing.T) {
	w := newWorld(t)
	first := w.Snapshot("ann", "home", tree()...)
	w.Damage(w.Blobs(first)[0], func([]byte) []byte { return nil })
	w.Snapshot("ann", "home", tree()...)
	r := w.check(func(c *checker) { c.Snapshots = c.Snapshots[:1]; c.progress.AllSnapshots = 1 })
	if r.Damaged != 0 || r.Healed == 0 || r.Snapshots != 1 {
		t.Errorf("%+v", r)
	}
}

func TestADumpThatIsBadDoesNotKeepTheOthersFromBeingChecked(t *testing.T) {
	for name, cached := range map[string]bool{"for the first time": false, "with its view in the cache": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.Snapshot("ann", "home", tree()...)
			second := w.Snapshot("ann", "etc", fstest.Regular("/etc/passwd", []byte("root")))
			w.Snapshot("bob", "etc", fstest.Regular("/etc/passwd", []byte("bob")))
			if cached {
				w.check()
			}
			key := remote.DumpKey("ann", first.Seq, first.Dumps[0].SHA256)
			w.Damage(key, flip(func(size int) int { return size / 2 }))
			w.Damage(w.Blobs(second)[0], func([]byte) []byte { return nil })
			r := w.check()
			if d := cmp.Diff(map[string][]string{second.Snapshot: {"/etc/passwd"}}, w.files()); d != "" {
				t.Error(d)
			}
			if w.kinds(KindDump) != 1 || r.BadDumps != 1 || r.Clean() || r.Snapshots != map[bool]int{false: 2, true: 3}[cached] {
				t.Errorf("%+v: %v", r, w.findings)
			}
			for _, f := range w.findings {
				if f.Kind == KindDump && (f.Snapshot.ID != first.Snapshot || !errors.Is(f.Err, remote.ErrCorrupt)) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// swap makes the first a of a text b, and the first b a.
func swap(a, b string) func(string) string {
	return func(s string) string {
		s = replaceOnce(s, a, "\x00")
		return replaceOnce(replaceOnce(s, b, a), "\x00", b)
	}
}

func replaceOnce(s, a, b string) string {
	return string(bytes.Replace([]byte(s), []byte(a), []byte(b), 1))
}

// A signature does not make it true.
func TestADumpThatLiesIsFound(t *testing.T) {
	one, two := fstest.Noise(1, 1000), fstest.Noise(2, 1000)
	hash := func(data []byte) string { return fmt.Sprintf("X'%X'", [32]byte(remote.Sum(data))) }
	for name, c := range map[string]struct {
		text     func(string) string
		manifest func(*remote.Manifest)
		files    []string
		dumps    int
	}{
		"two chunks' places are swapped": {text: swap(hash(one), hash(two)), files: []string{"/d/one", "/d/two"}},
		"a chunk that is in no blob":     {text: func(s string) string { return replaceOnce(s, hash(one), hash([]byte("other"))) }, files: []string{"/d/one"}},
		"a blob that is not signed":      {manifest: func(m *remote.Manifest) { m.Blobs.Add = nil }, dumps: 1},
		"a blob of another size":         {manifest: func(m *remote.Manifest) { m.Blobs.Add[0].Size++ }, files: []string{"/d/one", "/d/two", "/e"}, dumps: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.Snapshot("ann", "home", fstest.Regular("/d/one", one), fstest.Regular("/d/two", two), fstest.Regular("/e", fstest.Noise(3, 1<<20)))
			m.Blobs.Add = slices.Clone(m.Blobs.Add)
			w.Forge(m, c.text, c.manifest)
			r := w.check()
			want := map[string][]string{}
			if c.files != nil {
				want[m.Snapshot] = c.files
			}
			if d := cmp.Diff(want, w.files()); d != "" || w.kinds(KindDump) != c.dumps || r.Clean() {
				t.Errorf("%v (-want +got)\n%s", w.findings, d)
			}
			if c.text != nil {
				if d := cmp.Diff(w.unreadable(), w.files()); d != "" {
					t.Errorf("(-cannot be read +reported)\n%s", d)
				}
			}
		})
	}
}

func TestFilesThatNeedLostBlobsAreListedWithoutReadingOne(t *testing.T) {
	w := newWorld(t)
	first := w.Snapshot("ann", "home", tree()...)
	second := w.Snapshot("ann", "home", append(tree(), fstest.Regular("/home/new", fstest.Noise(9, 1000)))...)
	w.Snapshot("ann", "etc", fstest.Regular("/etc/passwd", []byte("root")))
	w.Snapshot("bob", "home", tree()...)
	lost := w.Blobs(first)[0]
	w.Damage(lost, func([]byte) []byte { return nil })
	want := w.unreadable()
	w.cache = t.TempDir()
	list := func(keys ...string) Result {
		c := w.catalog()
		defer c.Close()
		w.counting.Reset()
		r, err := Damaged(t.Context(), w.options(c), keys)
		if err != nil {
			t.Fatal(err)
		}
		w.counted(r)
		return r
	}
	r := list(lost, remote.BlobKey("ann", 99, remote.Hash{1}))
	if d := cmp.Diff(want, w.files()); d != "" || len(want) != 2 || r.Snapshots != 2 {
		t.Errorf("%+v (-cannot be read +reported)\n%s", r, d)
	}
	if n := w.blobReads(); len(n) > 0 {
		t.Errorf("blobs were read: %v", n)
	}
	for _, key := range w.counting.KeysRead() {
		k, err := remote.ParseKey(key)
		if err == nil && k.Kind == remote.KindDump && (k.Writer == "bob") {
			t.Errorf("a dump was read that has nothing to do with it: %s", key)
		}
	}
	// Of what is stored again they are told, too.
	third := w.Snapshot("ann", "home", tree()...)
	list(lost)
	files := w.files()
	for _, id := range []string{first.Snapshot, second.Snapshot} {
		if len(files[id]) != len(want[id]) || slices.ContainsFunc(files[id], func(path string) bool { return path[0] != '+' }) {
			t.Errorf("%s: %v", id, files[id])
		}
	}
	if files[third.Snapshot] != nil {
		t.Errorf("the new snapshot: %v", files[third.Snapshot])
	}
	list()
	if len(w.findings) > 0 {
		t.Errorf("without a lost blob: %v", w.findings)
	}
	if keys := slices.Collect(maps.Keys(files)); len(keys) != 2 {
		t.Errorf("snapshots %v", keys)
	}
}

// A store that cannot be reached is no damage.
func TestWhatEndsACheckIsNoFinding(t *testing.T) {
	w := newWorld(t)
	w.Snapshot("ann", "home", tree()...)
	c := w.catalog()
	defer c.Close()
	faulty := storetest.NewFaulty(w.Store)
	faulty.Script(storetest.Fault{Op: storetest.OpGet, Every: true, Kind: storetest.Fail, Err: remote.ErrNoStore})
	o := w.options(c)
	o.Store = faulty
	if _, err := Run(t.Context(), o); !errors.Is(err, remote.ErrNoStore) || len(w.findings) > 0 {
		t.Errorf("%v, %v", err, w.findings)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, w.options(c)); !errors.Is(err, context.Canceled) || len(w.findings) > 0 {
		t.Errorf("%v, %v", err, w.findings)
	}
}
