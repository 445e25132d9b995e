package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// healed is a writer whose first snapshot's only blob was damaged before the
// second one: of what that had, all is stored again but "gone".
type healed struct {
	*catalog
	clock         clock
	first, second *remote.Manifest
	lost          string // key of the blob
	old           *Tree
}

const many = 100

func file(i int) fstest.Entry {
	return fstest.Regular(fmt.Sprintf("/dir/%03d", i), fstest.Noise(uint64(100+i), 20_000))
}

func newHealed(t *testing.T, change func(object []byte) []byte) *healed {
	w := fstest.New(t)
	tree := []fstest.Entry{fstest.Regular("/gone", fstest.Noise(1, 5000))}
	both := fstest.Entry{Path: "/both", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular}}, Pieces: []fstest.Piece{
		{Data: fstest.Noise(100, 20_000)}, {Hole: 4096}, {Data: fstest.Noise(1, 5000)},
	}}
	for i := range many {
		tree = append(tree, file(i))
	}
	h := &healed{first: w.Snapshot("ann", "home", append(tree, both)...)}
	h.lost = w.Blobs(h.first)[0]
	if n := len(w.Blobs(h.first)); n != 1 {
		t.Fatalf("%d blobs", n)
	}
	w.Damage(h.lost, change)
	h.catalog = newCatalog(t, w, t.TempDir(), func(o *CatalogOptions) { o.Chunks.Now = h.clock.Now })
	h.refresh(t)
	var err error
	if h.old, err = h.Open(t.Context(), "ann", 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.old.Close() })
	return h
}

// heal makes the second snapshot.
func (h *healed) heal(t *testing.T) {
	var tree []fstest.Entry
	for i := range many {
		tree = append(tree, file(i))
	}
	h.second = h.Snapshot("ann", "home", tree...)
	h.refresh(t)
	h.counting.Reset()
}

func (h *healed) content(t *testing.T, path ...string) ([]byte, error) {
	t.Helper()
	n := view.Node{Ino: h.old.Root()}
	for _, name := range path {
		var err error
		if n, err = h.old.Lookup(t.Context(), n.Ino, name); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, n.Size)
	got, err := h.old.ReadAt(t.Context(), n, p, 0)
	return p[:got], err
}

// reads counts the requests for some objects.
func (h *healed) reads(want func(remote.Key) bool) (n int) {
	for _, key := range h.counting.KeysRead() {
		if k, err := remote.ParseKey(key); err == nil && want(k) {
			n++
		}
	}
	return n
}

func isDump(k remote.Key) bool { return k.Kind == remote.KindDump }

func flipped(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
}

func gone([]byte) []byte { return nil }

func TestWhatIsLostIsReadFromWhereTheNewestDumpSaysItIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   error // of what is nowhere else
	}{
		"gone":      {gone, ErrLost},
		"truncated": {func(b []byte) []byte { return b[:len(b)/2] }, remote.ErrCorrupt},
		"empty":     {func(b []byte) []byte { return b[:0] }, remote.ErrCorrupt},
		"header":    {flipped(100), seal.ErrNoIdentity},
		"nonce":     {flipped(-1), remote.ErrCorrupt},
		"all":       {func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) }, remote.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHealed(t, c.change)
			if _, err := h.content(t, "dir", "007"); !errors.Is(err, c.want) {
				t.Fatalf("before anything is stored again: %v", err)
			}
			h.heal(t)
			h.clock.add(2 * failFast)
			for i := range many {
				got, err := h.content(t, "dir", fmt.Sprintf("%03d", i))
				if err != nil || !bytes.Equal(got, file(i).Bytes()) {
					t.Fatalf("file %d: %d bytes, %v", i, len(got), err)
				}
			}
			if n := h.reads(isDump); n != len(h.second.Dumps) {
				t.Errorf("%d requests for the %d parts of the newest dump", n, len(h.second.Dumps))
			}
			for range 10 {
				if _, err := h.content(t, "gone"); !errors.Is(err, c.want) {
					t.Fatalf("what is nowhere: %v", err)
				}
				h.clock.add(2 * failFast)
			}
			if n := h.reads(isDump); n != len(h.second.Dumps) {
				t.Errorf("the dump is loaded again: %d requests", n)
			}
			// What is left of a file is served, and no more.
			n, err := h.old.Lookup(t.Context(), h.old.Root(), "both")
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 24_096)
			if got, err := h.old.ReadAt(t.Context(), n, p, 0); got != len(p) || !bytes.Equal(p[:20_000], fstest.Noise(100, 20_000)) {
				t.Errorf("the sound part of a file: %d bytes, %v", got, err)
			}
			if got, err := h.old.ReadAt(t.Context(), n, p, 24_096); got != 0 || !errors.Is(err, c.want) {
				t.Errorf("the part that is nowhere: %d bytes, %v", got, err)
			}
		})
	}
}

// A lost blob is asked for once a minute, not for each chunk that it had.
func TestWhatIsElsewhereIsFetchedThereAtOnce(t *testing.T) {
	h := newHealed(t, gone)
	h.heal(t)
	lost := func(k remote.Key) bool { return k.String() == h.lost }
	for i := range many {
		if _, err := h.content(t, "dir", fmt.Sprintf("%03d", i)); err != nil {
			t.Fatal(err)
		}
	}
	h.old.ahead.work.Wait()
	if err := h.Catalog.chunks.fetches.Wait(); err != nil {
		t.Fatal(err)
	}
	// The first one, and what was fetched ahead before it failed.
	if n := h.reads(lost); n > 6 {
		t.Errorf("%d requests for a blob that is gone", n)
	}
}

func TestWhileNothingFailsNothingElseIsLookedAt(t *testing.T) {
	h := newHealed(t, func(b []byte) []byte { return b })
	h.heal(t)
	for i := range many {
		if _, err := h.content(t, "dir", fmt.Sprintf("%03d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.reads(isDump); n != 0 || h.old.elsewhere.doubts.Load() {
		t.Errorf("%d requests for dumps", n)
	}
}

func TestManyReadersOfLostChunksLoadOneDump(t *testing.T) {
	h := newHealed(t, gone)
	h.heal(t)
	var readers sync.WaitGroup
	for i := range many {
		n, err := h.old.Lookup(t.Context(), h.old.Root(), "dir")
		if err == nil {
			n, err = h.old.Lookup(t.Context(), n.Ino, fmt.Sprintf("%03d", i))
		}
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			p := make([]byte, n.Size)
			if _, err := h.old.ReadAt(context.Background(), n, p, 0); err != nil || !bytes.Equal(p, file(i).Bytes()) {
				t.Errorf("file %d: %v", i, err)
			}
		})
	}
	readers.Wait()
	if n := h.reads(isDump); n != len(h.second.Dumps) {
		t.Errorf("%d requests for the %d parts of the newest dump", n, len(h.second.Dumps))
	}
}

func TestADumpThatCannotBeLoadedIsNotLoadedForEachChunk(t *testing.T) {
	h := newHealed(t, gone)
	h.heal(t)
	d := h.second.Dumps[0]
	key := remote.DumpKey("ann", d.Seq, d.SHA256)
	object, err := h.Object(key)
	if err != nil {
		t.Fatal(err)
	}
	h.Damage(key, flipped(-1))
	asked := func() int { return h.reads(func(k remote.Key) bool { return k.String() == key }) }
	for i := range many {
		if _, err := h.content(t, "dir", fmt.Sprintf("%03d", i)); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
	}
	if n := asked(); n != 1 {
		t.Errorf("it was asked for %d times", n)
	}
	h.Damage(key, func([]byte) []byte { return object })
	h.clock.add(doubtFor)
	if got, err := h.content(t, "dir", "003"); err != nil || !bytes.Equal(got, file(3).Bytes()) {
		t.Errorf("when it can be loaded again: %d bytes, %v", len(got), err)
	}
}

// Whoever else has the same content is another machine, which may be in
// somebody else's hands.
func TestOtherWritersAreNotAsked(t *testing.T) {
	h := newHealed(t, gone)
	var tree []fstest.Entry
	for i := range many {
		tree = append(tree, file(i))
	}
	h.Snapshot("bob", "home", tree...)
	h.refresh(t)
	h.counting.Reset()
	if _, err := h.content(t, "dir", "007"); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if slices.ContainsFunc(h.counting.KeysRead(), func(key string) bool { return key[:4] == "bob/" }) {
		t.Error("another writer's objects were read")
	}
}

// Bytes that are not what the hash says are never served, wherever they are.
func TestTheOtherPlaceIsNotTrustedEither(t *testing.T) {
	h := newHealed(t, gone)
	h.heal(t)
	for _, key := range h.Blobs(h.second) {
		h.Damage(key, func(b []byte) []byte { return bytes.Repeat([]byte{1}, len(b)) })
	}
	if got, err := h.content(t, "dir", "007"); len(got) > 0 || !errors.Is(err, ErrLost) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// And what is stored once more is found.
	h.heal(t)
	h.clock.add(2 * time.Minute)
	if got, err := h.content(t, "dir", "007"); err != nil || !bytes.Equal(got, file(7).Bytes()) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A set that was not backed up since may have what another one's run stored.
func TestTheNewestSnapshotOfEverySetIsAsked(t *testing.T) {
	h := newHealed(t, gone)
	h.Snapshot("ann", "etc", file(7))
	h.Snapshot("ann", "var", file(8))
	h.refresh(t)
	h.counting.Reset()
	for _, i := range []int{7, 8} {
		if got, err := h.content(t, "dir", fmt.Sprintf("%03d", i)); err != nil || !bytes.Equal(got, file(i).Bytes()) {
			t.Errorf("file %d: %d bytes, %v", i, len(got), err)
		}
	}
	if _, err := h.content(t, "dir", "009"); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if n := h.counting.Count(storetest.OpPut).Calls; n != 0 {
		t.Errorf("%d puts", n)
	}
}
