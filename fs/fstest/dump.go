package fstest

import (
	"context"
	"crypto/sha256"
	"io"
	"path/filepath"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// dumpWriter seals the parts of a dump and puts them into the store.
type dumpWriter struct {
	w      *World
	writer string
	seq    remote.Seq
	parts  []remote.DumpPart
}

type dumpPart struct {
	*seal.Part
	d *dumpWriter
}

func (d *dumpWriter) next(int) (dump.PartWriter, error) {
	p, err := seal.NewPart([]age.Recipient{d.w.Identity.Recipient()}, seal.Fastest)
	return &dumpPart{p, d}, err
}

// Full makes parts small, so that there are several.
func (p *dumpPart) Full() bool { return p.PlainSize() > 1<<20 }

func (p *dumpPart) Close() error {
	plain := p.PlainSize()
	object, err := p.Part.Close()
	if err != nil {
		return err
	}
	o := remote.Object{Seq: p.d.seq, SHA256: sha256.Sum256(object), Size: int64(len(object))}
	p.d.w.put(remote.DumpKey(p.d.writer, p.d.seq, o.SHA256), object)
	p.d.parts = append(p.d.parts, remote.DumpPart{Object: o, PlainSize: plain})
	return nil
}

// View builds the view of a snapshot as a catalog does, but without trusting
// or caching anything.
func (w *World) View(m *remote.Manifest) *view.View {
	w.t.Helper()
	v, err := w.view(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *World) view(ctx context.Context, m *remote.Manifest) (*view.View, error) {
	parts := make([]build.Part, len(m.Dumps))
	for i, d := range m.Dumps {
		parts[i] = build.Part{Open: func(ctx context.Context) (io.ReadCloser, error) { return w.dump(ctx, m.Writer, d) }}
	}
	want := build.Expected{ID: m.Snapshot, Writer: m.Writer, Set: m.Set, Seq: int64(m.Seq), Totals: metastore.Totals{
		Files: m.Rows.Files, Bytes: m.Totals.Bytes, Volumes: m.Rows.Volumes, Paths: m.Rows.Paths, Xattrs: m.Rows.Xattrs,
		Contents: m.Rows.Contents, FileChunks: m.Rows.FileChunks, Chunks: m.Rows.Chunks, Blobs: m.Rows.Blobs, BlobChunks: m.Rows.BlobChunks,
	}}
	at := filepath.Join(w.t.TempDir(), "view.db")
	if err := build.View(ctx, at, parts, want); err != nil {
		return nil, err
	}
	return view.Open(ctx, at)
}

// Reseal replaces a part of a snapshot's dump by the same text, encrypted
// anew, as anybody may who knows the recipient and can write to the store.
func (w *World) Reseal(m *remote.Manifest, part int) {
	w.t.Helper()
	d := m.Dumps[part]
	text, err := w.dump(context.Background(), m.Writer, d)
	if err != nil {
		w.t.Fatal(err)
	}
	defer text.Close()
	p, err := seal.NewPart([]age.Recipient{w.Identity.Recipient()}, seal.Fastest)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.Copy(p, text); err != nil {
		w.t.Fatal(err)
	}
	object, err := p.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	key := remote.DumpKey(m.Writer, d.Seq, d.SHA256)
	if err := w.Store.Delete(context.Background(), key); err != nil {
		w.t.Fatal(err)
	}
	w.put(key, object)
}

// dump opens a part of a dump.
func (w *World) dump(ctx context.Context, writer string, d remote.DumpPart) (io.ReadCloser, error) {
	r, err := w.Store.Get(ctx, remote.DumpKey(writer, d.Seq, d.SHA256), 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	object, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return seal.Open(object, []age.Identity{w.Identity}, d.PlainSize)
}
