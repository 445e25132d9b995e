package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
)

// listAbove is how many blobs a manifest names by itself, or by difference to
// a list that is stored, before a new list is stored. A name is some 100 bytes
// of JSON, so that an unchanged run's manifest stays within a few kilobytes.
const listAbove = 128

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

func objects(refs []metastore.BlobRef) []remote.Object {
	list := make([]remote.Object, 0, len(refs))
	for _, r := range refs {
		list = append(list, remote.Object{Seq: remote.Seq(r.Seq), SHA256: r.Hash, Size: r.Size})
	}
	return list
}
