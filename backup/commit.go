package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// snapshotID is the writer's name and the time, with a number if it was used.
func (w *writer) snapshotID(ctx context.Context) (string, error) {
	base := w.Writer + "-" + w.result.Started.UTC().Format("20060102-150405Z")
	for id, n := base, 2; ; id, n = fmt.Sprintf("%s-%d", base, n), n+1 {
		used, err := w.Index.SnapshotIDUsed(ctx, id)
		if err != nil {
			return "", fmt.Errorf("read the index: %w", err)
		}
		if !used {
			return id, nil
		}
	}
}

// commit uploads the dump and the lists and stores the intent. Until it
// returns nothing has happened that a reader could see.
func (w *writer) commit(ctx context.Context) error {
	w.result.Finished = w.Now()
	m := &remote.Manifest{
		Format: remote.FormatVersion, Requires: []string{}, Type: remote.TypeManifest,
		Writer: w.Writer, Seq: w.seq(), Snapshot: w.snapshot, Set: w.set.Name, Tags: w.tags(),
		Started: rfc3339(w.result.Started), Finished: rfc3339(w.result.Finished), Version: w.Version,
		Dumps: []remote.DumpPart{}, PinnedDumps: []remote.Object{}, Recipients: w.fingerprints(),
		Parameters: remote.Parameters{
			Chunker:  w.Chunking.Algorithm,
			ChunkMin: int64(w.Chunking.Min), ChunkAvg: int64(w.Chunking.Avg), ChunkMax: int64(w.Chunking.Max),
		},
	}
	status, err := w.Index.Status(ctx)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	if status.LastSeq > 0 {
		previous := remote.Hash(status.LastManifest)
		m.Previous = &previous
	}
	commit := index.Commit{}
	if err := w.dump(ctx, m, &commit); err != nil {
		return err
	}
	lists, err := w.references(ctx, m)
	if err != nil {
		return err
	}
	if err := w.check(ctx, m); err != nil {
		return err
	}
	object, err := m.Encode()
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	w.intent = intent{seq: m.Seq, manifest: object}
	w.intent.signature = w.Signer.Sign(object, remote.ManifestComment(m.Writer, m.Seq))
	w.summarise(m, remote.Sum(object))
	commit.Manifest, commit.Signature, commit.Hash, commit.Lists = object, w.intent.signature, remote.Sum(object), lists
	if err := w.run.SetIntent(ctx, commit); err != nil {
		return fmt.Errorf("store the intent in the index: %w", err)
	}
	return nil
}

// putNamed puts an object that is named by its hash.
func (w *writer) putNamed(ctx context.Context, key string, object []byte) error {
	if err := w.Store.Put(ctx, key, object); err != nil && !errors.Is(err, remote.ErrExists) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	w.tally.metadata.Add(int64(len(object)))
	return nil
}

// check looks whether every dump part and list that the manifest names is
// there: nothing may be missing once the manifest is.
func (w *writer) check(ctx context.Context, m *remote.Manifest) error {
	sizes := map[string]int64{}
	for _, d := range m.Dumps {
		sizes[remote.DumpKey(m.Writer, d.Seq, d.SHA256)] = d.Size
	}
	for _, d := range m.PinnedDumps {
		sizes[remote.DumpKey(m.Writer, d.Seq, d.SHA256)] = d.Size
	}
	for _, l := range []*remote.ListRef{m.Blobs.List, m.Pins.List} {
		if l != nil {
			sizes[remote.ListKey(m.Writer, l.Seq, l.SHA256)] = l.Size
		}
	}
	for key, size := range sizes {
		there, err := w.exists(ctx, key, size)
		if err != nil {
			return fmt.Errorf("look at %s: %w", key, err)
		}
		if !there {
			return fmt.Errorf("%s was uploaded but is not in the store as it was sent; run the backup again", key)
		}
	}
	return nil
}

// summarise completes the result.
func (w *writer) summarise(m *remote.Manifest, hash remote.Hash) {
	t, r := &w.tally, &w.result
	r.Snapshot, r.Seq, r.Manifest = m.Snapshot, m.Seq, hash
	r.Entries, r.Bytes = m.Totals.Files, m.Totals.Bytes
	r.Changed, r.Removed = t.changed.Load(), t.removed.Load()
	r.Read, r.NewBytes, r.Stored = t.read.Load(), t.fresh.Load(), t.stored.Load()
	r.Metadata, r.Blobs, r.Moved = t.metadata.Load(), int(t.blobs.Load()), t.moved.Load()
}

func (w *writer) fingerprints() []string {
	var prints []string
	for _, r := range w.Recipients {
		prints = append(prints, seal.Fingerprint(r))
	}
	slices.Sort(prints)
	return slices.Compact(prints)
}

// tags are the set's, as manifests list them.
func (w *writer) tags() []string {
	return slices.Compact(slices.Sorted(slices.Values(w.set.Tags)))
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// intent is a commit decided on: these bytes and no others become the
// snapshot.
type intent struct {
	seq                 remote.Seq
	manifest, signature []byte
}

// publish puts the signature and then the manifest. The manifest's arrival is
// the commit; only then does the index count the run.
func (w *writer) publish(ctx context.Context) error {
	key := remote.ManifestKey(w.Writer, w.intent.seq)
	if err := w.putOnce(ctx, remote.SignatureKey(key), w.intent.signature); err != nil {
		return err
	}
	if err := w.putOnce(ctx, key, w.intent.manifest); err != nil {
		return err
	}
	// The snapshot exists now; being told to stop must not leave the index
	// behind the store, though it could catch up.
	if err := w.Index.Confirm(context.WithoutCancel(ctx), int64(w.intent.seq)); err != nil {
		return fmt.Errorf("the snapshot is in the store, but the index could not be told: %w", err)
	}
	return nil
}

// putOnce puts an object whose key decides between two runs with one seq. If
// it is there already with the same bytes, an earlier try's answer was lost.
func (w *writer) putOnce(ctx context.Context, key string, body []byte) error {
	err := w.Store.Put(ctx, key, body)
	if err == nil {
		return nil
	}
	if !errors.Is(err, remote.ErrExists) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	there, err := get(ctx, w.Store, key, int64(len(body))+1)
	switch {
	case errors.Is(err, remote.ErrDenied):
		// May write but not look: with the intent on file, this is ours
		// unless the index was cloned, which a reader's check of the chain
		// brings to light.
		w.unverified("read its objects")
		return nil
	case err != nil:
		return fmt.Errorf("compare %s with what is there: %w", key, err)
	case !bytes.Equal(there, body):
		return fmt.Errorf("%w: %s is there with other content; %s", ErrCloned, key, newWriter)
	}
	return nil
}

// unverified notes, once, that credentials which may only write left the run
// without the comparisons that follow an upload.
func (w *writer) unverified(what string) {
	if w.result.Unverified {
		return
	}
	w.result.Unverified = true
	w.problem(Notice, "", fmt.Errorf("the store's credentials do not let this writer %s: "+
		"a blob that goes missing is not noticed here", what))
}

// get reads an object of at most limit bytes.
func get(ctx context.Context, s remote.Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r, limit))
	return body, errors.Join(err, r.Close())
}

// exists reports whether an object of that size is there.
func (w *writer) exists(ctx context.Context, key string, size int64) (bool, error) {
	info, err := w.Store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, remote.ErrDenied):
		w.unverified("look at its objects")
		return true, nil
	case err != nil:
		return false, err
	}
	return info.Size == size, nil
}
