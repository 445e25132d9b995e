package view_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Asked for many contents at once, a view says what it says of each: also of
// one that has pieces on many pages, and of what is lost.
func TestPiecesAreTheExtentsOfManyFiles(t *testing.T) {
	place := func(n int) view.Extent {
		x := view.Extent{Length: 10, Chunk: [32]byte{byte(n), byte(n >> 8), 1}}
		x.Blob = view.BlobInfo{Hash: [32]byte{byte(n % 3), 2}, Seq: 1, Size: 1 << 20, Header: 200}
		x.FrameOffset, x.FrameLength = int64(100*n), 50
		return x
	}
	var long []view.Extent
	for n := range 3000 {
		long = append(long, place(n), view.Extent{Length: 4096, Hole: true})
	}
	lost := view.Extent{Length: 10, Chunk: [32]byte{255, 255}, Lost: true}
	v := metatest.View(t, metatest.Tree{Entries: []metatest.Entry{
		metatest.File("/a", place(5000)), metatest.File("/empty"), metatest.File("/long", long...),
		metatest.File("/lost", place(1), lost), metatest.File("/z", place(5000), place(6000)),
	}})
	ctx := t.Context()
	nodes, err := v.ReadDir(ctx, v.Root(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	want, got := make(map[int64][]view.Extent), make(map[int64][]view.Extent)
	var contents []int64
	for _, n := range nodes {
		contents = append(contents, n.Content)
		extents, err := v.Extents(ctx, n, 0, n.Size)
		if err != nil {
			t.Fatal(err)
		}
		if len(extents) > 0 {
			want[n.Content] = extents
		}
	}
	err = v.Pieces(ctx, contents, func(p view.Piece) error {
		if known := p.BlobID != 0; known != (!p.Hole && !p.Lost) {
			return fmt.Errorf("piece %+v", p)
		}
		if p.BlobID != 0 {
			if p.Blob, err = v.Blob(ctx, p.BlobID); err != nil {
				return err
			}
		}
		got[p.Content] = append(got[p.Content], p.Extent)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-extents +pieces):\n%.2000s", d)
	}
}
