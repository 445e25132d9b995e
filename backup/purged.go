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
