package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// A rebuilt index goes on behind the newest run, even if nothing but its
// manifests is left of the writer.
func TestAnIndexIsRebuiltFromRunsAlone(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "index.db")
	b, err := Rebuild(ctx, path, "host", Options{})
	if err != nil {
		t.Fatal(err)
	}
	hash := [32]byte{7}
	for _, p := range []Past{
		{Seq: 3, Set: "home", SnapshotID: "host-3", Started: metastore.Time{Sec: 1000}},
		{Seq: 9, Set: "etc", SnapshotID: "host-9", Started: metastore.Time{Sec: 2000}, Hash: hash},
	} {
		if err := b.Add(ctx, p, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add(ctx, Past{Seq: 9, Set: "etc", SnapshotID: "host-9-2"}, nil); err == nil {
		t.Error("a run was added twice")
	}
	made, err := b.Finish(ctx, []metastore.BlobRef{{Seq: 3, Size: 100}}, []byte("lists"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Rebuilt{Runs: 2}, made); d != "" {
		t.Errorf("what was made (-want +got):\n%s", d)
	}
	if err := b.Close(); err != nil {
		t.Errorf("close a finished one: %v", err)
	}
	x, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Verify(ctx); err != nil {
		t.Error(err)
	}
	s, err := x.Status(ctx)
	if err != nil || s.LastSeq != 9 || s.LastManifest != hash || s.Writer != "host" || s.Intent != nil || s.Interrupted != 0 {
		t.Errorf("it stands at %+v, %v", s, err)
	}
	if lists, err := x.LastLists(ctx); err != nil || string(lists) != "lists" {
		t.Errorf("its lists are %q, %v", lists, err)
	}
	if used, err := x.SnapshotIDUsed(ctx, "host-3"); err != nil || !used {
		t.Errorf("the id of run 3 may be used again: %v", err)
	}
}

// An index that came to be there is not replaced, and what a rebuild leaves
// when it is given up or killed is removed.
func TestARebuildReplacesNothing(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "index.db")
	killed, err := Rebuild(ctx, path, "host", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer killed.x.Close()
	b, err := Rebuild(ctx, path, "host", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(ctx, nil, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("finish: %v, want fs.ErrExist", err)
	}
	if b, err = Rebuild(ctx, path, "host", Options{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if text, _ := os.ReadFile(path); string(text) != "somebody else's" {
		t.Errorf("the file that was there is now %q", text)
	}
}

// What closing the database left in its log is part of the index: without it
// there is none.
func TestARebuildWithoutItsLogIsNone(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "index.db")
	b, err := Rebuild(ctx, path, "host", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Add(ctx, Past{Seq: 1, Set: "home", SnapshotID: "host-1"}, nil); err != nil {
		t.Fatal(err)
	}
	beside, err := sqlite.OpenReader(path + rebuildSuffix) // keeps the log from being brought in
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	if _, err := b.Finish(ctx, nil, nil); err == nil {
		t.Error("an index came to be of which the log is lost")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is an index: %v", err)
	}
}
