package fstest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
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
	index    *index.Index
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
	if n.index, err = index.Create(w.t.Context(), filepath.Join(w.t.TempDir(), "index.db"), name, index.Options{}); err != nil {
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
	run, err := n.index.Begin(ctx, index.RunInfo{
		Set: set, SnapshotID: id, Started: metastore.TimeOf(started), Recipients: seal.RecipientSet([]string{recipient.String()}),
	})
	if err != nil {
		return nil, err
	}
	if err := w.findLost(ctx, name, run); err != nil {
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
	totals, _, err := run.WriteDump(ctx, s, dump.next)
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
	if err := run.SetIntent(ctx, index.Commit{Manifest: object, Signature: signature, Hash: hash}); err != nil {
		return nil, err
	}
	w.put(remote.SignatureKey(remote.ManifestKey(name, m.Seq)), signature)
	w.put(remote.ManifestKey(name, m.Seq), object)
	n.previous = &hash
	return m, n.index.Confirm(ctx, run.Seq())
}

// findLost tells the index which blobs are not in the store as they were put
// there. Their chunks are stored again if the tree has them.
func (w *World) findLost(ctx context.Context, name string, run *index.Run) error {
	blobs, err := run.Blobs(ctx)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		object, err := w.Object(remote.BlobKey(name, remote.Seq(b.Seq), b.Hash))
		if err != nil || remote.Sum(object) != b.Hash {
			if err := run.LoseBlob(ctx, b.Seq, b.Hash); err != nil {
				return err
			}
		}
	}
	return nil
}

// Object returns the bytes of an object.
func (w *World) Object(key string) ([]byte, error) {
	r, err := w.Store.Get(context.Background(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Damage replaces an object by what change makes of its bytes; nil removes it.
func (w *World) Damage(key string, change func([]byte) []byte) {
	w.t.Helper()
	object, err := w.Object(key)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.Store.Delete(context.Background(), key); err != nil {
		w.t.Fatal(err)
	}
	if object = change(object); object != nil {
		w.put(key, object)
	}
}

// Blobs returns the keys of the blobs that a manifest names.
func (w *World) Blobs(m *remote.Manifest) (keys []string) {
	for _, b := range m.Blobs.Add {
		keys = append(keys, remote.BlobKey(m.Writer, b.Seq, b.SHA256))
	}
	return keys
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
