package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"git.eeqj.de/sneak/vaultik/metastore/index/clean"
)

// RunRef names a committed run whose snapshot is kept.
type RunRef struct {
	Seq      int64
	Snapshot string
	Set      string
	Manifest [32]byte // SHA-256 of the manifest's object
}

// Runs returns the runs whose snapshots are kept, as far as the index knows,
// in their order.
func (x *Index) Runs(ctx context.Context) (runs []RunRef, err error) {
	err = x.look(ctx, "its runs", func() error {
		return x.db.Each(ctx, `SELECT r.seq, r.snapshot, s.name, r.hash FROM runs r JOIN sets s ON s.id = r.set_id
			WHERE r.state = 'committed' ORDER BY r.seq`, nil, func(scan func(...any) error) error {
			var r RunRef
			var hash sql.RawBytes
			err := scan(&r.Seq, &r.Snapshot, &r.Set, &hash)
			copy(r.Manifest[:], hash)
			runs = append(runs, r)
			return err
		})
	})
	return runs, err
}

// Forget says that the snapshots of these runs were purged. What only they
// needed is for [Index.Clean] to delete. Their numbers and snapshot ids are
// never used again. Runs that were forgotten before are let pass.
//
// A set that has no other snapshots is closed, and its name returned: nothing
// of it is open any more, so from the next commit on nothing is pinned for it,
// and should it be backed up again, it begins anew.
//
// The newest run cannot be forgotten, for the next one refers to what it does.
func (x *Index) Forget(ctx context.Context, seqs []int64) (closed []string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	closed, err = x.forget(ctx, seqs)
	return closed, x.fail("forget purged runs", errors.Join(err, x.finish()))
}

func (x *Index) forget(ctx context.Context, seqs []int64) (closed []string, err error) {
	s, err := x.idle(ctx)
	if err != nil || len(seqs) == 0 {
		return nil, err
	}
	return closed, x.db.Whole(func() error {
		var forgotten int64
		for _, seq := range seqs {
			if seq < 1 || seq >= s.LastSeq {
				return fmt.Errorf("run %d is not one before the newest, which is %d", seq, s.LastSeq)
			}
			if _, _, err := x.db.Exec("INSERT INTO forgotten SELECT seq, snapshot FROM runs WHERE seq = ?", seq); err != nil {
				return err
			}
			_, n, err := x.db.Exec("DELETE FROM runs WHERE seq = ?", seq)
			if err != nil {
				return err
			}
			forgotten += n
			if _, _, err := x.db.Exec("DELETE FROM gaps WHERE run = ?", seq); err != nil {
				return err
			}
		}
		if forgotten == 0 {
			return nil
		}
		if closed, err = x.closeSets(ctx); err != nil {
			return err
		}
		return x.soil()
	})
}

// closeSets removes the sets that have no runs. Their versions stay until they
// are cleaned away; without their set they are open no more.
func (x *Index) closeSets(ctx context.Context) (closed []string, err error) {
	const without = "NOT IN (SELECT set_id FROM runs)"
	err = x.db.Each(ctx, "SELECT name FROM sets WHERE id "+without+" ORDER BY name", nil, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		closed = append(closed, name)
		return err
	})
	for _, query := range []string{
		"DELETE FROM marks WHERE set_id " + without,
		"DELETE FROM bases WHERE set_id " + without,
		"DELETE FROM sets WHERE id " + without,
	} {
		if err == nil {
			_, _, err = x.db.Exec(query)
		}
	}
	return closed, err
}

// Clean deletes rows that neither a snapshot that is kept, nor what is open, nor
// a base dump needs, and retires blobs that are mostly dead: those of which less
// than a quarter is needed by a snapshot that is kept or by what is open. A
// retired blob is counted on as before, but its chunks count as not stored, and
// [Run.Moves] names those that are to be uploaded again.
//
// It looks at every row, but only after a Forget, until nothing is left to do;
// otherwise it does nothing. A crash takes nothing back and leaves nothing
// half done: what is deleted was needed by nobody, row by row.
//
// The space is used again by later rows; the file does not shrink.
func (x *Index) Clean(ctx context.Context, limit clean.Limits) (done clean.Done, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, err := x.idle(ctx)
	if err == nil {
		done, err = clean.Run(ctx, clean.Index{DB: x.db, Path: x.path, Run: s.LastSeq,
			Files: x.last.files, Contents: x.last.contents, Chunks: x.last.chunks}, limit)
	}
	return done, x.fail("clean up", errors.Join(err, x.finish()))
}

// soil notes that there may be rows that nothing needs any more.
func (x *Index) soil() error {
	_, _, err := x.db.Exec("INSERT OR IGNORE INTO settings VALUES ('unclean', '')")
	return err
}

// idle reads the status, and fails with ErrPending unless the last run is
// finished.
func (x *Index) idle(ctx context.Context) (Status, error) {
	if x.run != nil {
		return Status{}, fmt.Errorf("%w: run %d is in progress", ErrPending, x.run.seq)
	}
	s, err := x.status(ctx)
	switch {
	case err != nil:
		return Status{}, err
	case s.Intent != nil:
		return Status{}, fmt.Errorf("%w: run %d has an intent and must be confirmed", ErrPending, s.Intent.Seq)
	case s.Interrupted != 0:
		return Status{}, fmt.Errorf("%w: run %d was interrupted and must be rolled back", ErrPending, s.Interrupted)
	}
	return s, nil
}
