package fstest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

const (
	sharedFrame = 256 << 10 // small chunks share a frame until it holds so much
	blobSize    = 4 << 20
)

// World is a store with keys and writers.
type World struct {
	Store    *mem.Store
	Identity *age.X25519Identity
	Root     remote.SigningKey
	Start    time.Time // of the first snapshot; each is an hour after the one before

	t       testing.TB
	writers map[string]*writer
	taken   int
}

type writer struct {
	index    *metastore.Index
	signer   remote.SigningKey
	previous *remote.Hash
}

// New returns a world with an empty store.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{
		Store: mem.New(nil), Start: time.Date(2026, 11, 24, 3, 10, 22, 0, time.UTC),
		t: t, writers: make(map[string]*writer),
	}
	var err error
	if w.Identity, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if w.Root, err = remote.GenerateSigningKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *World) writer(name string) *writer {
	w.t.Helper()
	if known, ok := w.writers[name]; ok {
		return known
	}
	var n writer
	var err error
	if n.index, err = metastore.CreateIndex(w.t.Context(), filepath.Join(w.t.TempDir(), "index.db"), name, metastore.Options{}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { n.index.Close() })
	if n.signer, err = remote.GenerateSigningKey(rand.Reader); err != nil {
		w.t.Fatal(err)
	}
	c := remote.Certificate{N: 1, Key: n.signer.Public(), Role: remote.RoleWriter, Writer: name, From: 1}
	w.put(remote.SignerKey(name, 1), n.signer.Public().File())
	w.put(remote.SignatureKey(remote.SignerKey(name, 1)), remote.SignCertificate(w.Root, c))
	w.writers[name] = &n
	return &n
}

func (w *World) put(key string, body []byte) {
	w.t.Helper()
	if err := w.Store.Put(context.Background(), key, body); err != nil {
		w.t.Fatal(err)
	}
}

// Snapshot commits a snapshot of the tree and returns its manifest. What an
// earlier snapshot of the set had and tree has not is gone.
func (w *World) Snapshot(name, set string, tree ...Entry) *remote.Manifest {
	w.t.Helper()
	m, err := w.snapshot(w.t.Context(), name, set, complete(tree))
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *World) snapshot(ctx context.Context, name, set string, tree []Entry) (*remote.Manifest, error) {
	n := w.writer(name)
	started := w.Start.Add(time.Duration(w.taken) * time.Hour)
	w.taken++
	id := fmt.Sprintf("%s-%s", name, started.Format("20060102-150405Z"))
	recipient := w.Identity.Recipient()
	run, err := n.index.Begin(ctx, metastore.RunInfo{
		Set: set, SnapshotID: id, Started: metastore.TimeOf(started), Recipients: seal.RecipientSet([]string{recipient.String()}),
	})
	if err != nil {
		return nil, err
	}
	if err := w.record(ctx, name, run, tree); err != nil {
		return nil, err
	}
	s := metastore.Snapshot{
		Seq: run.Seq(), ID: id, Writer: name, Set: set, Hostname: name,
		Started: metastore.TimeOf(started), Finished: metastore.TimeOf(started.Add(time.Minute)),
		Version: "test", Roots: []string{"/"},
		Chunking: metastore.Chunking{Algorithm: "literal", Min: 1, Avg: 1 << 20, Max: blob.MaxChunk, Secret: make([]byte, 32)},
	}
	dump := dumpWriter{w: w, writer: name, seq: remote.Seq(run.Seq())}
	totals, err := run.WriteDump(ctx, s, dump.next)
	if err != nil {
		return nil, err
	}
	refs, pins, err := run.References(ctx)
	if err != nil {
		return nil, err
	}
	m := &remote.Manifest{
		Format: remote.FormatVersion, Type: remote.TypeManifest, Writer: name, Seq: remote.Seq(run.Seq()), Previous: n.previous,
		Snapshot: id, Set: set, Started: started.Format(time.RFC3339), Finished: started.Add(time.Minute).Format(time.RFC3339), Version: "test",
		Totals: remote.Totals{Files: totals.Files, Bytes: totals.Bytes},
		Rows: remote.Rows{
			Volumes: totals.Volumes, Paths: totals.Paths, Files: totals.Files, Xattrs: totals.Xattrs, Contents: totals.Contents,
			FileChunks: totals.FileChunks, Chunks: totals.Chunks, Blobs: totals.Blobs, BlobChunks: totals.BlobChunks,
		},
		Dumps: dump.parts, Blobs: objects(refs), Pins: objects(pins),
		Recipients: []string{seal.Fingerprint(recipient.String())},
		Parameters: remote.Parameters{Chunker: "literal", ChunkMin: 1, ChunkAvg: 1 << 20, ChunkMax: blob.MaxChunk},
	}
	object, err := m.Encode()
	if err != nil {
		return nil, err
	}
	hash := remote.Sum(object)
	signature := n.signer.Sign(object, remote.ManifestComment(name, m.Seq))
	if err := run.SetIntent(ctx, object, signature, hash, nil); err != nil {
		return nil, err
	}
	w.put(remote.SignatureKey(remote.ManifestKey(name, m.Seq)), signature)
	w.put(remote.ManifestKey(name, m.Seq), object)
	n.previous = &hash
	return m, n.index.Confirm(ctx, run.Seq())
}

func objects(refs []metastore.BlobRef) remote.ObjectList {
	var l remote.ObjectList
	for _, r := range refs {
		l.Add = append(l.Add, remote.Object{Seq: remote.Seq(r.Seq), SHA256: r.Hash, Size: r.Size})
	}
	slices.SortFunc(l.Add, func(a, b remote.Object) int {
		if a.Seq != b.Seq {
			return int(a.Seq) - int(b.Seq)
		}
		return slices.Compare(a.SHA256[:], b.SHA256[:])
	})
	return l
}

// record writes the tree into the run and its new chunks into blobs.
func (w *World) record(ctx context.Context, name string, run *metastore.Run, tree []Entry) error {
	p := packer{w: w, writer: name, run: run}
	volume, err := run.Volume(ctx, "ext4", 1, "/")
	if err != nil {
		return err
	}
	paths := make(map[string]int64)
	var sorted []string // parents first
	for _, e := range tree {
		sorted = append(sorted, e.Path)
	}
	slices.Sort(sorted)
	for _, at := range sorted {
		parent, base := paths[path.Dir(at)], path.Base(at)
		if at == "/" {
			parent, base = 0, ""
		}
		if paths[at], err = run.Path(ctx, parent, base); err != nil {
			return err
		}
	}
	linked := make(map[uint64]int64) // contents by inode
	for _, e := range tree {
		f := e.File
		f.Volume = volume
		switch id, ok := linked[e.Inode]; {
		case ok && e.Nlink > 1 && e.Type == metastore.Regular:
			f.Content = id
		case len(e.Pieces) > 0, e.Type == metastore.Regular && e.Size == 0 && e.State == metastore.StateComplete:
			if f.Content, err = p.content(ctx, e.Pieces); err != nil {
				return err
			}
			linked[e.Inode] = f.Content
		}
		if _, err := run.Record(ctx, paths[e.Path], f, false); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	for at, id := range paths {
		open, err := run.Children(ctx, id)
		if err != nil {
			return err
		}
		for _, v := range open {
			if _, ok := paths[path.Join(at, v.Name)]; !ok {
				if _, err := run.Close(ctx, v.Path); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(p.flush(), p.upload(ctx))
}

// packer puts chunks into frames and frames into blobs.
type packer struct {
	w      *World
	writer string
	run    *metastore.Run

	frame []byte
	tiles []blob.FrameChunk
	blob  *blob.Writer
	ids   map[remote.Hash]int64 // of the chunks in blob and in frame
}

func (p *packer) content(ctx context.Context, pieces []Piece) (int64, error) {
	var chunks []metastore.ContentChunk
	at := int64(0)
	for _, piece := range pieces {
		if len(piece.Data) == 0 {
			chunks = append(chunks, metastore.ContentChunk{Offset: at, Length: piece.Hole})
			at += piece.Hole
			continue
		}
		id, err := p.chunk(ctx, piece)
		if err != nil {
			return 0, err
		}
		chunks = append(chunks, metastore.ContentChunk{Offset: at, Length: int64(len(piece.Data)), Chunk: id})
		at += int64(len(piece.Data))
	}
	return p.run.Content(ctx, chunks, 0)
}

func (p *packer) chunk(ctx context.Context, piece Piece) (int64, error) {
	h := remote.Sum(piece.Data)
	id, stored, err := p.run.Chunk(ctx, h, int64(len(piece.Data)))
	if _, packed := p.ids[h]; err != nil || stored || packed || piece.Lost {
		return id, err
	}
	if len(p.frame)+len(piece.Data) > sharedFrame {
		if err := p.flush(); err != nil {
			return 0, err
		}
		if p.blob != nil && p.blob.Size() > blobSize {
			if err := p.upload(ctx); err != nil {
				return 0, err
			}
		}
	}
	if p.ids == nil {
		p.ids = make(map[remote.Hash]int64)
	}
	p.ids[h] = id
	p.frame = append(p.frame, piece.Data...)
	p.tiles = append(p.tiles, blob.FrameChunk{ID: h, Length: int64(len(piece.Data))})
	return id, nil
}

// flush ends the frame.
func (p *packer) flush() (err error) {
	if len(p.frame) == 0 {
		return nil
	}
	if p.blob == nil {
		if p.blob, err = blob.NewWriter([]age.Recipient{p.w.Identity.Recipient()}); err != nil {
			return err
		}
	}
	err = p.blob.Add(blob.Compress(nil, p.frame, seal.Fastest), len(p.frame), p.tiles)
	p.frame, p.tiles = nil, nil
	return err
}

// upload ends the blob.
func (p *packer) upload(ctx context.Context) error {
	if p.blob == nil {
		return nil
	}
	b, err := p.blob.Close()
	if err != nil {
		return err
	}
	p.w.put(remote.BlobKey(p.writer, remote.Seq(p.run.Seq()), b.Hash), b.Object)
	var chunks []metastore.BlobChunk
	for _, c := range b.Chunks {
		chunks = append(chunks, metastore.BlobChunk{
			Chunk: p.ids[c.ID], FrameOffset: c.FrameOffset, FrameLength: c.FrameLength, Offset: c.Offset, Length: c.Length,
		})
	}
	err = p.run.AddBlob(ctx, metastore.Blob{Hash: b.Hash, Size: int64(len(b.Object)), Header: b.Header}, chunks)
	p.blob, p.ids = nil, nil
	return err
}

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

func (d *dumpWriter) next(int) (metastore.PartWriter, error) {
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
func (w *World) View(m *remote.Manifest) *metastore.View {
	w.t.Helper()
	v, err := w.view(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *World) view(ctx context.Context, m *remote.Manifest) (*metastore.View, error) {
	parts := make([]metastore.Part, len(m.Dumps))
	for i, d := range m.Dumps {
		parts[i] = metastore.Part{Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := w.Store.Get(ctx, remote.DumpKey(m.Writer, d.Seq, d.SHA256), 0, -1)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			object, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			return seal.Open(object, []age.Identity{w.Identity}, d.PlainSize)
		}}
	}
	want := metastore.Expected{ID: m.Snapshot, Writer: m.Writer, Set: m.Set, Seq: int64(m.Seq), Totals: metastore.Totals{
		Files: m.Rows.Files, Bytes: m.Totals.Bytes, Volumes: m.Rows.Volumes, Paths: m.Rows.Paths, Xattrs: m.Rows.Xattrs,
		Contents: m.Rows.Contents, FileChunks: m.Rows.FileChunks, Chunks: m.Rows.Chunks, Blobs: m.Rows.Blobs, BlobChunks: m.Rows.BlobChunks,
	}}
	at := filepath.Join(w.t.TempDir(), "view.db")
	if err := metastore.BuildView(ctx, at, parts, want); err != nil {
		return nil, err
	}
	return metastore.OpenView(ctx, at)
}

// Forget puts a tombstone for a snapshot and deletes its manifest.
func (w *World) Forget(m *remote.Manifest) {
	w.t.Helper()
	object, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	tombstone, err := remote.NewTombstone(m.Writer, m.Seq, remote.Sum(object), m.Previous, w.Start).Sign(w.writers[m.Writer].signer)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(remote.TombstoneKey(m.Writer, m.Seq), tombstone)
	if err := w.Store.Delete(context.Background(), remote.ManifestKey(m.Writer, m.Seq)); err != nil {
		w.t.Fatal(err)
	}
}

// Copy puts an object of another store into this one.
func (w *World) Copy(from remote.Store, key, as string) {
	w.t.Helper()
	r, err := from.Get(context.Background(), key, 0, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(as, body)
}
