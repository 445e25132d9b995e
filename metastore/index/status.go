package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
)

// Status says where an index stands. At most one of Interrupted and Intent is
// set: such a run has to be rolled back, or confirmed, before the next begins.
type Status struct {
	Writer       string
	LastSeq      int64    // newest committed run, 0 if there is none
	LastManifest [32]byte // SHA-256 of its manifest's object
	Interrupted  int64    // run that is neither committed nor has an intent, 0 if there is none
	Intent       *Intent
}

// Intent is a commit that was decided on, but of which it is not known whether
// the store has it: exactly these bytes have to be sent, again if need be.
type Intent struct {
	Seq                 int64
	Manifest, Signature []byte
	Hash                [32]byte // SHA-256 of Manifest
}

// damage makes what SQLite says about a broken file, and sets of ids that are
// none, an ErrDamaged.
func damage(err error) error {
	var e sqlite3.Error
	var rows *idset.Error
	if errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB) || errors.As(err, &rows) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// fail puts an index's path before an error of one of its methods.
func (x *Index) fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("index %q: %s: %w", x.path, doing, damage(err))
}

// look runs f, which only reads. Unless a run is in progress, no transaction
// stays open behind it.
func (x *Index) look(ctx context.Context, what string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	err := f()
	err = errors.Join(err, x.finish())
	return x.fail("read "+what, err)
}

// Status reads where the index stands.
func (x *Index) Status(ctx context.Context) (s Status, err error) {
	err = x.look(ctx, "its status", func() error {
		s, err = x.status(ctx)
		return err
	})
	return s, err
}

func (x *Index) status(ctx context.Context) (Status, error) {
	s := Status{Writer: x.writer}
	err := x.db.Each(ctx, `SELECT seq, state, manifest, signature, hash FROM runs
		WHERE state <> 'committed' OR seq = (SELECT max(seq) FROM runs WHERE state = 'committed')`, nil,
		func(scan func(...any) error) error {
			var seq int64
			var state string
			var manifest, signature, hash []byte
			if err := scan(&seq, &state, &manifest, &signature, &hash); err != nil {
				return err
			}
			switch state {
			case "committed":
				s.LastSeq = seq
				copy(s.LastManifest[:], hash)
			case "intent":
				s.Intent = &Intent{Seq: seq, Manifest: manifest, Signature: signature}
				copy(s.Intent.Hash[:], hash)
			default:
				s.Interrupted = seq
			}
			return nil
		})
	return s, err
}

// Rollback undoes the run that a crash left without an intent: files, gaps and
// marks are as the last commit saw them. Blobs that the run uploaded stay
// known, with their chunks, so that the next run, which gets the same seq,
// need not upload them again; blobs that it found lost stay lost. Without such
// a run it does nothing. ErrPending: the run has an intent, and the store may
// have it.
func (x *Index) Rollback(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.fail("roll back", x.rollback(ctx))
}

func (x *Index) rollback(ctx context.Context) error {
	if x.run != nil {
		return fmt.Errorf("%w: run %d is in progress", ErrPending, x.run.seq)
	}
	s, err := x.status(ctx)
	if err = errors.Join(err, x.db.Abort()); err != nil {
		return err
	}
	switch {
	case s.Intent != nil:
		return fmt.Errorf("%w: run %d has an intent", ErrPending, s.Intent.Seq)
	case s.Interrupted == 0:
		return nil
	}
	return x.undo(s.Interrupted)
}

// undo takes back a run. The versions that stand for gaps are never reopened:
// theirs was one run only.
func (x *Index) undo(seq int64) error {
	return x.db.Whole(func() error {
		for _, query := range []string{
			"DELETE FROM xattrs WHERE file IN (SELECT id FROM files WHERE first_run = ?1)",
			"DELETE FROM files WHERE first_run = ?1",
			"UPDATE files SET end_run = NULL WHERE end_run = ?1 AND NOT gap",
			"DELETE FROM gaps WHERE run = ?1",
			"DELETE FROM marks WHERE run = ?1",
			"DELETE FROM file_chunks WHERE content >= (SELECT first_content FROM runs WHERE seq = ?1)",
			"DELETE FROM contents WHERE id >= (SELECT first_content FROM runs WHERE seq = ?1)",
			"DELETE FROM runs WHERE seq = ?1",
		} {
			if _, _, err := x.db.Exec(query, seq); err != nil {
				return err
			}
		}
		return nil
	})
}

// Confirm makes a run committed: its manifest is in the store. When Confirm
// returns, that survives a power cut. Confirming the newest committed run
// again does nothing.
func (x *Index) Confirm(ctx context.Context, seq int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.fail("confirm", x.confirm(ctx, seq))
}

func (x *Index) confirm(ctx context.Context, seq int64) error {
	s, err := x.status(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.LastSeq == seq && seq != 0:
		return x.finish()
	case s.Intent == nil || s.Intent.Seq != seq:
		return errors.Join(fmt.Errorf("run %d has no intent", seq), x.finish())
	}
	return x.db.Durably(func() error {
		_, _, err := x.db.Exec("UPDATE runs SET state = 'committed', manifest = NULL, signature = NULL WHERE seq = ?", seq)
		if err == nil {
			_, _, err = x.db.Exec("UPDATE runs SET lists = NULL WHERE seq < ? AND lists IS NOT NULL", seq)
		}
		return err
	})
}

// finish ends a transaction that only read, unless it is a run's.
func (x *Index) finish() error {
	if x.run != nil {
		return nil
	}
	return x.db.Abort()
}

// SnapshotIDUsed reports whether a run of this index has, or had, a snapshot
// of that name.
func (x *Index) SnapshotIDUsed(ctx context.Context, id string) (used bool, err error) {
	err = x.look(ctx, "its snapshots", func() error {
		used, err = x.db.Row("SELECT 1 FROM runs WHERE snapshot = ?1 UNION ALL SELECT 1 FROM forgotten WHERE snapshot = ?1 LIMIT 1",
			[]any{id}, new(int64))
		return err
	})
	return used, err
}

// LastLists returns what the newest committed run gave to [Run.SetIntent] for
// the next one; nil if there is no such run.
func (x *Index) LastLists(ctx context.Context) (lists []byte, err error) {
	err = x.look(ctx, "its lists", func() error {
		_, err = x.db.Row("SELECT lists FROM runs WHERE state = 'committed' ORDER BY seq DESC LIMIT 1", nil, &lists)
		return err
	})
	return lists, err
}
