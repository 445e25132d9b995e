package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
)

// RebuildIndex makes the index anew, and moves away what is in its place, once the
// new one is whole.
func (r *Revival) RebuildIndex(ctx context.Context) (made index.Rebuilt, err error) {
	if err := state.MakePrivate(filepath.Dir(r.file(state.IndexFile))); err != nil {
		return made, fmt.Errorf("make the writer's folder: %w", err)
	}
	b, err := index.Rebuild(ctx, r.file(state.IndexFile), r.Writer, index.Options{})
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for i, s := range r.snapshots {
		r.UI.Progress("", "snapshot %d of %d: loading the metadata of %s", i+1, len(r.snapshots), s.ID)
		if err := r.add(ctx, b, s); err != nil {
			return made, err
		}
	}
	live, lists, err := r.counted(ctx)
	if err != nil {
		return made, err
	}
	if err := r.moveAway(state.IndexFile); err != nil {
		return made, err
	}
	return b.Finish(ctx, live, lists)
}

func (r *Revival) add(ctx context.Context, b *index.Rebuilding, s fs.Snapshot) (err error) {
	tree, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	var v *view.View
	if tree != nil {
		defer func() { err = errors.Join(err, tree.Close()) }()
		v = tree.View()
	}
	return b.Add(ctx, index.Past{
		Seq: int64(s.Seq), Set: s.Set, SnapshotID: s.ID, Started: metastore.TimeOf(s.Started), Hash: s.Hash,
	}, v)
}

// counted returns the blobs that the newest manifest refers to or pins, and
// what the index keeps of its lists.
func (r *Revival) counted(ctx context.Context) (live []metastore.BlobRef, lists []byte, err error) {
	if len(r.snapshots) == 0 {
		return nil, nil, nil
	}
	m := r.snapshots[len(r.snapshots)-1].Manifest
	for _, l := range []remote.ObjectList{m.Blobs, m.Pins} {
		objects, err := l.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
			return remote.FetchList(ctx, r.store, r.Writer, ref)
		})
		if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, remote.ErrCorrupt) {
			r.UI.Warn("which blobs the next run may count on cannot be had, so that it uploads their contents again: %v", err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, o := range objects {
			live = append(live, metastore.BlobRef{Seq: int64(o.Seq), Hash: o.SHA256, Size: o.Size})
		}
	}
	lists, err = backup.KeptLists(m)
	return live, lists, err
}

// needIndex makes the index anew unless the one that is there goes on from
// what the store has. nil: it does.
func (r *Revival) needIndex(ctx context.Context) (*index.Rebuilt, error) {
	if r.unread != nil {
		return nil, r.unread
	}
	last, status := int64(r.next)-1, r.there
	if status != nil && status.Writer == r.Writer && (status.LastSeq == last || status.Intent != nil && status.Intent.Seq == last) {
		return nil, nil
	}
	made, err := r.RebuildIndex(ctx)
	return &made, err
}

// RefuseHealthy stops where the index is there and of use. One that has decided
// on a commit is not given up even by force: the store may have got it, or get it
// yet.
func (r *Revival) RefuseHealthy(force bool) error {
	status := r.there
	switch {
	case r.decided():
		return fmt.Errorf("the index %q is there and in the middle of committing run %d; run \"vaultik backup\" first, which finishes it",
			r.file(state.IndexFile), uint64(r.next))
	case force:
		return nil
	case r.unread != nil || status == nil:
		return r.unread
	}
	there := fmt.Sprintf("the index %q is there and in order: it belongs to writer %q and knows its runs up to %d, the store has run %d",
		r.file(state.IndexFile), status.Writer, status.LastSeq, uint64(r.next)-1)
	if status.LastSeq == int64(r.next)-1 {
		return fmt.Errorf("%s; nothing is lost, and \"vaultik backup\" goes on from it (--force makes it anew all the same, and keeps the old one)", there)
	}
	return fmt.Errorf("%s; if it is an old copy, --force makes it anew and keeps the old one; "+
		"if another machine is at work as this writer, this one must become a new writer instead", there)
}

// unfinished looks for a run that was decided on and not committed. If it was
// signed its number is taken, and only the index that has it can finish it.
func (r *Revival) unfinished(ctx context.Context) error {
	key := remote.SignatureKey(remote.ManifestKey(r.Writer, r.next))
	signature, err := stores.Fetch(ctx, r.store, key, kit.MaxSize)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("look for an unfinished run: %w", err)
	}
	r.there, r.unread = r.standing(ctx)
	if err != nil || r.decided() && bytes.Equal(signature, r.there.Intent.Signature) {
		return nil
	}
	return fmt.Errorf("run %d of writer %q was interrupted in the middle of its commit: its signature is in the store, its manifest is not, and no index that is here can finish it. "+
		"If no other machine is at work as this writer, delete the object %s from the store, and run this again", uint64(r.next), r.Writer, key)
}

// decided reports whether the index has an intent for the next run: its bytes,
// and no others, are what that run commits.
func (r *Revival) decided() bool {
	s := r.there
	return s != nil && s.Writer == r.Writer && s.Intent != nil && s.Intent.Seq == int64(r.next)
}

// firstFree is the first run that is not signed yet.
func (r *Revival) firstFree() remote.Seq {
	if r.decided() {
		return r.next + 1
	}
	return r.next
}

// standing is where the index stands; nil if there is none, or none of use.
func (r *Revival) standing(ctx context.Context) (*index.Status, error) {
	x, err := index.Open(ctx, r.file(state.IndexFile), index.Options{})
	if err == nil {
		var status index.Status
		if err = x.Verify(ctx); err == nil {
			status, err = x.Status(ctx)
		}
		if err = errors.Join(err, x.Close()); err == nil {
			return &status, nil
		}
	}
	switch {
	case errors.Is(err, iofs.ErrNotExist):
	case errors.Is(err, index.ErrNotIndex), errors.Is(err, index.ErrDamaged), errors.Is(err, index.ErrVersion):
		r.UI.Warn("%v", err)
	default:
		return nil, err
	}
	return nil, nil
}
