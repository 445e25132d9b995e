package view_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

// manyFiles is a tree of 100,000 files of one piece each, 100 to a directory.
func manyFiles() metatest.Tree {
	tree := metatest.Tree{}
	blob := view.BlobInfo{Hash: [32]byte{1}, Seq: 1, Size: 1 << 30, Header: 1659}
	for i := range 100_000 {
		x := view.Extent{Length: 5000, Blob: blob, FrameOffset: int64(i) * 3000, FrameLength: 3000}
		x.Chunk[0], x.Chunk[1], x.Chunk[2] = byte(i), byte(i>>8), byte(i>>16)
		f := metatest.File(fmt.Sprintf("/home/ann/project-%03d/source-file-%d.go", i/100, i), x)
		f.User, f.Group = "ann", "users"
		f.MTime = metastore.Time{Sec: 1767323045 + int64(i), Nsec: int32(i)}
		f.CTime, f.BTime = f.MTime, f.MTime
		tree.Entries = append(tree.Entries, f)
	}
	return tree
}

func BenchmarkBuildViewOf100kFiles(b *testing.B) {
	text, want := metatest.Dump(manyFiles())
	path := filepath.Join(b.TempDir(), "view")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := build.View(b.Context(), path, metatest.Parts(string(text)), want); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	v := metatest.View(b, manyFiles())
	ctx := context.Background()
	dir := v.Root()
	for _, name := range []string{"home", "ann", "project-500"} {
		n, err := v.Lookup(ctx, dir, name)
		if err != nil {
			b.Fatal(err)
		}
		dir = n.Ino
	}
	file, err := v.Lookup(ctx, dir, "source-file-50050.go")
	if err != nil {
		b.Fatal(err)
	}
	var files []view.Node // here and there
	for slot := uint64(1); slot < 101_000; slot += 1009 {
		nodes, err := v.After(ctx, slot, 1)
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, nodes...)
	}
	runtime.GC()
	b.Run("Node", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Node(ctx, file.Ino); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("NodeAnywhere", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if _, err := v.Node(ctx, 1+i*7919%100_000); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Lookup(ctx, dir, "source-file-50050.go"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ReadDirOf100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if nodes, err := v.ReadDir(ctx, dir, 0, 200); err != nil || len(nodes) != 100 {
				b.Fatal(len(nodes), err)
			}
		}
	})
	b.Run("Extents", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Extents(ctx, file, 0, file.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ExtentsAnywhere", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i += 37 {
			f := files[i%len(files)]
			if _, err := v.Extents(ctx, f, 0, f.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
}
