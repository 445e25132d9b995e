package index

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

const (
	benchFolders = 1000
	benchFiles   = 100 // in each
)

type discard struct{ bytes int64 }

func (d *discard) Write(b []byte) (int, error) { d.bytes += int64(len(b)); return len(b), nil }
func (d *discard) Full() bool                  { return false }
func (d *discard) Close() error                { return nil }

var _ io.Writer = (*discard)(nil)

// fill records 100,000 files with a chunk each.
func fill(b *testing.B, r *Run) {
	b.Helper()
	ctx := b.Context()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	_, err := r.Record(ctx, 1, folder(), false)
	check(err)
	var rows []BlobChunk
	n := uint64(0)
	for d := range benchFolders {
		dir, err := r.Directory(ctx, 1, fmt.Sprintf("folder-%d", d))
		check(err)
		_, err = r.Record(ctx, dir.Path, folder(), false)
		check(err)
		names := make([]string, benchFiles)
		for i := range names {
			names[i] = fmt.Sprintf("a file called %d", i)
		}
		paths, err := r.NewPaths(ctx, dir.Path, names)
		check(err)
		for _, path := range paths {
			n++
			chunk, _, err := r.Chunk(ctx, sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)), 5000)
			check(err)
			f := file(n)
			f.Size = 5000
			f.Content, err = r.Content(ctx, []ContentChunk{{0, 5000, chunk}}, 0)
			check(err)
			err = r.RecordNew(ctx, path, f, false)
			check(err)
			rows = append(rows, BlobChunk{chunk, 100, 50, 0, 5000})
		}
		check(r.SetMark(ctx, dir.Path, [16]byte{1}))
		if d%60 == 59 || d == benchFolders-1 {
			check(r.AddBlob(ctx, Blob{Hash: sha256.Sum256(fmt.Append(nil, d)), Size: 32 << 20, Header: 1659}, rows))
			rows = rows[:0]
		}
	}
}

func BenchmarkRecord100kFiles(b *testing.B) {
	for b.Loop() {
		fill(b, begin(b, newIndex(b, Options{}), "home"))
	}
}

func BenchmarkUnchangedDirectory(b *testing.B) {
	x := newIndex(b, Options{})
	r := begin(b, x, "home")
	fill(b, r)
	commit(b, r)
	r = begin(b, x, "home")
	i := 0
	for b.Loop() {
		d, err := r.Directory(b.Context(), 1, fmt.Sprintf("folder-%d", i%benchFolders))
		if err != nil || !d.Marked {
			b.Fatal(d, err)
		}
		i++
	}
}

func BenchmarkChildrenOf100(b *testing.B) {
	x := newIndex(b, Options{})
	r := begin(b, x, "home")
	fill(b, r)
	dir := at(b, r, "/folder-5")
	for b.Loop() {
		if v, err := r.Children(b.Context(), dir, "", LastName); len(v) != benchFiles || err != nil {
			b.Fatal(len(v), err)
		}
	}
}

func BenchmarkReferencesOf100kFiles(b *testing.B) {
	r := begin(b, newIndex(b, Options{}), "home")
	fill(b, r)
	for b.Loop() {
		r.references = nil
		if _, _, err := r.References(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDumpOf100kFiles(b *testing.B) {
	r := begin(b, newIndex(b, Options{}), "home")
	fill(b, r)
	if _, _, err := r.References(b.Context()); err != nil {
		b.Fatal(err)
	}
	var peak uint64
	for b.Loop() {
		d := &discard{}
		if _, _, err := r.WriteDump(b.Context(), metastore.Snapshot{Seq: r.Seq()}, func(int) (dump.PartWriter, error) { return d, nil }); err != nil {
			b.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
		b.SetBytes(d.bytes)
	}
	b.ReportMetric(float64(peak)/1e6, "heap-MB")
}
