package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// listAbove is how many blobs a manifest names by itself, or by difference to
// a list that is stored, before a new list is stored. A name is some 100 bytes
// of JSON, so that an unchanged run's manifest stays within a few kilobytes.
const listAbove = 128

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

// references fills in which blobs the snapshot needs and which others the
// index still wants, and returns what the next run needs to know of the lists.
func (w *writer) references(ctx context.Context, m *remote.Manifest) ([]byte, error) {
	refs, pins, err := w.run.References(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect the snapshot's blobs: %w", err)
	}
	if w.result.Former, err = w.run.Former(ctx); err != nil {
		return nil, fmt.Errorf("collect the snapshot's blobs: %w", err)
	}
	known, err := w.knownLists(ctx)
	if err != nil {
		return nil, err
	}
	if m.Blobs, err = w.list(ctx, m, objects(refs), &known); err != nil {
		return nil, err
	}
	if m.Pins, err = w.list(ctx, m, objects(pins), &known); err != nil {
		return nil, err
	}
	return KeptLists(m)
}

// KeptLists is what the index keeps of a manifest's blob lists, for the next
// run to name them again.
func KeptLists(m *remote.Manifest) ([]byte, error) {
	var keep []remote.ListRef
	for _, l := range []*remote.ListRef{m.Blobs.List, m.Pins.List} {
		if l != nil && !slices.Contains(keep, *l) {
			keep = append(keep, *l)
		}
	}
	return json.Marshal(keep)
}

// storedList is a list in the store and what it names.
type storedList struct {
	ref     remote.ListRef
	objects []remote.Object
}

// knownLists fetches the lists that the newest manifest names: the only ones
// that are sure to stay. One that cannot be had is done without.
func (w *writer) knownLists(ctx context.Context) ([]storedList, error) {
	saved, err := w.Index.LastLists(ctx)
	if err != nil || len(saved) == 0 {
		return nil, err
	}
	var refs []remote.ListRef
	if err := json.Unmarshal(saved, &refs); err != nil {
		return nil, fmt.Errorf("the index's note of blob lists is damaged: %w", err)
	}
	var known []storedList
	for _, ref := range refs {
		objects, err := remote.FetchList(ctx, w.Store, w.Writer, ref)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			known = append(known, storedList{ref, objects})
		}
	}
	return known, nil
}

// list says want as a difference to a list, a new one where the differences
// to those that are there have grown too long.
func (w *writer) list(ctx context.Context, m *remote.Manifest, want []remote.Object, known *[]storedList) (remote.ObjectList, error) {
	best := remote.Diff(nil, nil, want)
	for _, l := range *known {
		if d := remote.Diff(&l.ref, l.objects, want); len(d.Add)+len(d.Drop) < len(best.Add)+len(best.Drop) {
			best = d
		}
	}
	if len(best.Add)+len(best.Drop) <= listAbove {
		return best, nil
	}
	body, plain := remote.EncodeList(want)
	ref := remote.ListRef{
		Object:    remote.Object{Seq: m.Seq, SHA256: remote.Sum(body), Size: int64(len(body))},
		PlainSize: plain, Count: int64(len(want)),
	}
	if err := w.putNamed(ctx, remote.ListKey(m.Writer, ref.Seq, ref.SHA256), body); err != nil {
		return remote.ObjectList{}, err
	}
	*known = append(*known, storedList{ref, want})
	return remote.Diff(&ref, want, want), nil
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

func objects(refs []metastore.BlobRef) []remote.Object {
	list := make([]remote.Object, 0, len(refs))
	for _, r := range refs {
		list = append(list, remote.Object{Seq: remote.Seq(r.Seq), SHA256: r.Hash, Size: r.Size})
	}
	return list
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
