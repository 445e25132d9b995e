package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// What to do about ErrStoreLost and ErrCloned.
const (
	startAnew = "move the config and the state folder away and start a new writer here: " +
		"\"vaultik init --store URL --root KEY --recipient KEY PATH…\", all as that config has them"
	wrongStore = "look whether this is the right store and whether it is complete; if the snapshot is gone for good, " + startAnew
	newWriter  = "if this machine or its state folder was brought back from an old copy, \"vaultik index rebuild --force --identity KIT\" " +
		"brings the index up to date; if it is a copy of another machine that goes on as this writer, or without the recovery kit, " + startAnew
)

// settle brings index and store together before a run: an intent on file is
// sent again and confirmed, what an interrupted run left in the index is
// undone, and an index that is not the one the store knows is refused.
func (w *writer) settle(ctx context.Context) error {
	status, err := w.Index.Status(ctx)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	if status.Writer != w.Writer {
		return fmt.Errorf("the index belongs to writer %q, not to %q", status.Writer, w.Writer)
	}
	switch {
	case status.Intent != nil:
		w.intent = intent{
			seq:      remote.Seq(status.Intent.Seq),
			manifest: status.Intent.Manifest, signature: status.Intent.Signature,
		}
		if err := w.publish(ctx); err != nil {
			return fmt.Errorf("finish the interrupted commit of run %d: %w", status.Intent.Seq, err)
		}
		w.problem(Notice, "", fmt.Errorf("the commit of run %d had been interrupted and is finished now", status.Intent.Seq))
		status.LastSeq, status.LastManifest = status.Intent.Seq, status.Intent.Hash
		w.intent = intent{}
	case status.Interrupted != 0:
		if err := w.Index.Rollback(ctx); err != nil {
			return fmt.Errorf("undo the interrupted run %d: %w", status.Interrupted, err)
		}
	}
	last := remote.Seq(status.LastSeq)
	manifests, err := w.compareSeq(ctx, last)
	if err == nil && manifests == nil {
		err = w.compareNext(ctx, last)
	}
	if err != nil || last == 0 {
		return err
	}
	if err := w.compareManifest(ctx, last, status.LastManifest); err != nil || manifests == nil {
		return err
	}
	return w.learnPurged(ctx, manifests)
}

// compareSeq makes sure that the index's newest run is the store's newest. The
// signature counts for what is taken, the manifest for what is there. It
// returns the manifests that are, nil if the writer may not list them.
func (w *writer) compareSeq(ctx context.Context, last remote.Seq) (manifests map[remote.Seq]bool, err error) {
	var taken, newest remote.Seq
	manifests = map[remote.Seq]bool{}
	for info, err := range w.Store.List(ctx, remote.MetadataPrefix(w.Writer)) {
		if errors.Is(err, remote.ErrDenied) {
			w.unverified("list its objects")
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the writer's snapshots: %w", err)
		}
		key, err := remote.ParseKey(info.Key)
		if err != nil || key.Kind != remote.KindManifest {
			continue // not an object of ours, or only an attempt's
		}
		taken = max(taken, key.Seq)
		if !key.Signature {
			newest = max(newest, key.Seq)
			manifests[key.Seq] = true
		}
	}
	if taken > last {
		return nil, fmt.Errorf("%w: the store holds run %d of writer %q, the index knows nothing after run %d; %s",
			ErrCloned, taken, w.Writer, last, newWriter)
	}
	if newest == last {
		return manifests, nil
	}
	// Put a moment ago, by this process perhaps: a listing may lag behind.
	switch _, err := w.Store.Stat(ctx, remote.ManifestKey(w.Writer, last)); {
	case err == nil:
		manifests[last] = true
		return manifests, nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, remote.ErrDenied):
		return nil, fmt.Errorf("look at the newest manifest: %w", err)
	}
	return nil, fmt.Errorf("%w: the index has committed run %d of writer %q, the newest in the store is %d; "+
		wrongStore, ErrStoreLost, last, w.Writer, newest)
}

// compareNext makes sure that nobody has taken the next run's number. It is all
// that a writer can do who may not list; if it may not look either, the commit
// will tell.
func (w *writer) compareNext(ctx context.Context, last remote.Seq) error {
	key := remote.SignatureKey(remote.ManifestKey(w.Writer, last+1))
	_, err := w.Store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, remote.ErrDenied):
		w.unverified("look at its objects")
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", key, err)
	}
	return fmt.Errorf("%w: the store holds run %d of writer %q, the index knows nothing after run %d; %s",
		ErrCloned, last+1, w.Writer, last, newWriter)
}

// compareManifest makes sure that the newest manifest in the store is the one
// that this index committed: not every store keeps two clones from creating
// the same key.
func (w *writer) compareManifest(ctx context.Context, last remote.Seq, hash remote.Hash) error {
	key := remote.ManifestKey(w.Writer, last)
	object, err := get(ctx, w.Store, key, remote.MaxManifest+1)
	switch {
	case errors.Is(err, remote.ErrDenied):
		w.unverified("read its objects")
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s, the manifest of the index's newest run; "+wrongStore, ErrStoreLost, key)
	case err != nil:
		return fmt.Errorf("read the newest manifest: %w", err)
	case remote.Sum(object) != hash:
		return fmt.Errorf("%w: %s is not what this index committed; %s", ErrCloned, key, newWriter)
	}
	return nil
}

const (
	// tombstones is how many are read at once; they are small.
	tombstones = 16
	// learnAtOnce is how many purged snapshots a run learns of; the next run
	// goes on.
	learnAtOnce = 4096
	// gapsNamed is how many snapshots a message names.
	gapsNamed = 8
)

// learnPurged compares the snapshots that the index keeps with a listing of
// the manifests. One that is gone was purged if a tombstone says so, which
// somebody signed who may; the index forgets it then. One that is gone without
// is told, and kept.
func (w *writer) learnPurged(ctx context.Context, manifests map[remote.Seq]bool) error {
	runs, err := w.Index.Runs(ctx)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	var gone []index.RunRef
	for _, r := range runs {
		if !manifests[remote.Seq(r.Seq)] && len(gone) < learnAtOnce {
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	purged, unexplained, err := w.explain(ctx, gone)
	if errors.Is(err, remote.ErrDenied) {
		w.unverified("read its tombstones")
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for tombstones of snapshots that are gone: %w", err)
	}
	if len(unexplained) > 0 {
		names := unexplained[:min(len(unexplained), gapsNamed)]
		w.problem(Notice, "", fmt.Errorf("%d snapshots are gone from the store, and no valid tombstone says that they were purged: %s; "+
			"nothing of this writer can be pruned until \"vaultik snapshot purge --missing SEQ\" says that they are gone for good",
			len(unexplained), strings.Join(names, ", ")))
	}
	closed, err := w.Index.Forget(ctx, purged)
	if err != nil {
		return err
	}
	w.result.Forgotten, w.result.Closed = len(purged), closed
	return nil
}

// explain sorts snapshots whose manifests were not listed by whether they were
// purged. Those that are there all the same are in neither.
func (w *writer) explain(ctx context.Context, gone []index.RunRef) (purged []int64, unexplained []string, err error) {
	signers, err := remote.LoadSigners(ctx, w.Store, w.Root, w.Writer)
	if err != nil {
		return nil, nil, err
	}
	why := make([]error, len(gone))
	there := make([]bool, len(gone))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(tombstones)
	for i, r := range gone {
		g.Go(func() (err error) {
			if why[i], err = w.tombstone(ctx, signers, r); err != nil || why[i] == nil {
				return err
			}
			// A listing may lag behind.
			_, err = w.Store.Stat(ctx, remote.ManifestKey(w.Writer, remote.Seq(r.Seq)))
			there[i] = err == nil
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i, r := range gone {
		switch {
		case why[i] == nil:
			purged = append(purged, r.Seq)
		case !there[i]:
			unexplained = append(unexplained, fmt.Sprintf("%s (run %d)%s", r.Snapshot, r.Seq, because(why[i])))
		}
	}
	return purged, unexplained, nil
}

// because is what is wrong with a tombstone; that there is none goes without
// saying.
func because(why error) string {
	if errors.Is(why, fs.ErrNotExist) {
		return ""
	}
	return ": " + why.Error()
}

// tombstone reads the tombstone of a run. why is nil if it says that exactly
// this run was purged, by somebody who may; err is the store's.
func (w *writer) tombstone(ctx context.Context, signers remote.Signers, r index.RunRef) (why, err error) {
	object, err := get(ctx, w.Store, remote.TombstoneKey(w.Writer, remote.Seq(r.Seq)), remote.MaxTombstone+1)
	if errors.Is(err, fs.ErrNotExist) {
		return err, nil
	}
	if err != nil {
		return nil, err
	}
	t, err := remote.DecodeTombstone(object)
	if err != nil {
		return err, nil
	}
	if t.Seq != remote.Seq(r.Seq) || t.Manifest != r.Manifest {
		return errors.New("its tombstone is another snapshot's"), nil
	}
	_, err = t.Verify(signers)
	return err, nil
}
