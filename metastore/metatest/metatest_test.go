package metatest_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

func TestATreeWrittenDownCanBeLookedAt(t *testing.T) {
	piece := view.Extent{
		Length: 5, Chunk: [32]byte{1}, Blob: view.BlobInfo{Hash: [32]byte{2}, Seq: 1, Size: 1000, Header: 200},
		FrameOffset: 20, FrameLength: 14,
	}
	hole := view.Extent{Length: 1 << 20, Hole: true}
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{
		metatest.File("/home/ann/note", hole, piece),
		metatest.File("/home/ann/empty"),
		metatest.Symlink("/home/link", "ann"),
	}})
	home, err := v.Lookup(t.Context(), v.Root(), "home")
	if err != nil || home.Role != metastore.RoleParent || home.Type != metastore.Directory {
		t.Fatalf("the directory above is %+v, %v", home, err)
	}
	entries, err := v.ReadDir(t.Context(), home.Ino, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, n := range entries {
		names = append(names, n.Name)
	}
	if diff := cmp.Diff([]string{"link", "ann"}, names); diff != "" {
		t.Error(diff)
	}
	note, err := v.Lookup(t.Context(), entries[1].Ino, "note")
	if err != nil || note.Size != 1<<20+5 || note.Blocks != 1 {
		t.Fatalf("note is %+v, %v", note, err)
	}
	extents, err := v.Extents(t.Context(), note, 0, note.Size)
	if err != nil {
		t.Fatal(err)
	}
	piece.Offset, piece.ChunkSize = 1<<20, 5
	if diff := cmp.Diff([]view.Extent{hole, piece}, extents); diff != "" {
		t.Error(diff)
	}
	if _, err := v.Lookup(t.Context(), home.Ino, "bob"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown name: %v", err)
	}
}
