package index

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// RunInfo describes a run that begins.
type RunInfo struct {
	Set        string
	SnapshotID string // never used before, see [Index.SnapshotIDUsed]
	Started    metastore.Time
	Recipients [32]byte // the recipient set that this run encrypts to

	// Spread makes do, after a change of recipients, with blobs that only the
	// former ones can read, until [Run.Moves] has got to them. Otherwise all
	// that they hold counts as not stored.
	Spread bool
}

// Run records one backup of one set. Its methods may be called from several
// goroutines. Changes are committed in batches, and seen by the Run's own
// reads at once.
//
// An error of a method that writes leaves the Run of no use but for Rollback;
// the others then return that error.
type Run struct {
	x          *Index
	seq        int64
	set        int64
	recipients [32]byte
	spread     bool

	// All of the following is guarded by the index's mutex.
	failed     error // the first error that left rows half done
	over       bool
	foreign    bool               // some live blobs are not encrypted to exactly recipients
	gaps       int                // recorded so far
	changes    int64              // counts what may alter references
	references *snapshot.Contents // what the snapshot consisted of at so many changes as
	collected  int64
	lastID     int64 // the content that was asked for last, most likely recorded next,
	lastSize   int64 // and its bytes
	fresh      freshChunks
	known      filter // nil until it is worth it
	vain       int64  // lookups of chunks that were not there, while known is nil
	held       *bulks
}

// Begin begins the run after the newest committed one. It fails with
// ErrPending while another run is not finished.
func (x *Index) Begin(ctx context.Context, info RunInfo) (*Run, error) {
	if info.Set == "" || info.SnapshotID == "" || !utf8.ValidString(info.Set+info.SnapshotID) {
		return nil, x.fail("begin a run", fmt.Errorf("set %q and snapshot %q need names in UTF-8", info.Set, info.SnapshotID))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r, err := x.begin(ctx, info)
	if err != nil {
		return nil, x.fail("begin a run", errors.Join(err, x.finish()))
	}
	x.run = r
	return r, nil
}

func (x *Index) begin(ctx context.Context, info RunInfo) (*Run, error) {
	s, err := x.idle(ctx)
	if err != nil {
		return nil, err
	}
	r := &Run{x: x, seq: s.LastSeq + 1, recipients: info.Recipients, spread: info.Spread, held: newBulks()}
	return r, x.db.Whole(func() error {
		found, err := x.db.Row("SELECT id FROM sets WHERE name = ?", []any{info.Set}, &r.set)
		if err == nil && !found {
			r.set, _, err = x.db.Exec("INSERT INTO sets (name) VALUES (?)", info.Set)
		}
		if err != nil {
			return err
		}
		if err := r.compareRecipients(); err != nil {
			return err
		}
		_, _, err = x.db.Exec(`INSERT INTO runs (seq, set_id, snapshot, started_s, started_ns, recipients, first_content, state)
			VALUES (?, ?, ?, ?, ?, ?, ?, 'running')`,
			r.seq, r.set, info.SnapshotID, info.Started.Sec, info.Started.Nsec, r.recipients[:], x.last.contents+1)
		return err
	})
}

// compareRecipients finds out whether data has to be uploaded anew because
// the recipients are not those of earlier runs, of this set or another, whose
// blobs it may share. If so, the set's marks are dropped: unchanged directories,
// too, may hold files that have to be read again.
func (r *Run) compareRecipients() error {
	x := r.x
	if r.spread {
		return nil
	}
	_, err := x.db.Row("SELECT EXISTS (SELECT 1 FROM blobs WHERE end_run IS NULL AND recipients <> ?)", []any{r.recipients[:]}, &r.foreign)
	if err != nil || !r.foreign {
		return err
	}
	_, _, err = x.db.Exec("DELETE FROM marks WHERE set_id = ?", r.set)
	return err
}

// Seq is the run's number, under which it uploads.
func (r *Run) Seq() int64 { return r.seq }

// read runs f, which changes nothing, in the run's transaction.
func (r *Run) read(ctx context.Context, what string, f func(x *Index) error) error {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return err
	}
	if err := r.x.db.Flush(r.held.all()...); err != nil {
		r.failed = r.x.fail(what, err)
		return r.failed
	}
	return r.x.fail(what, f(r.x))
}

// write runs f in the run's transaction and commits it once it is big enough.
func (r *Run) write(ctx context.Context, what string, f func(x *Index) error) error {
	return r.add(ctx, what, func(x *Index) error {
		if err := x.db.Flush(r.held.all()...); err != nil {
			return err
		}
		return f(x)
	})
}

// add is write for an f that reads no table of which rows are held back.
func (r *Run) add(ctx context.Context, what string, f func(x *Index) error) error {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return err
	}
	err := f(r.x)
	if err == nil && r.x.db.Changed+int64(len(r.fresh)) >= r.x.db.Batch {
		err = r.commit()
	}
	if err != nil {
		r.failed = r.x.fail(what, err)
	}
	return r.failed
}

// commit writes what is held back and ends the transaction.
func (r *Run) commit() error {
	if err := r.fresh.write(r.x, r.held); err != nil {
		return err
	}
	if err := r.x.db.Flush(r.held.all()...); err != nil {
		return err
	}
	return r.x.db.Commit()
}

func (r *Run) usable(ctx context.Context) error {
	switch {
	case r.over:
		return r.x.fail("use run", fmt.Errorf("%w: %d", ErrRunOver, r.seq))
	case r.failed != nil:
		return r.failed
	}
	return ctx.Err()
}

// Commit is what a run commits.
type Commit struct {
	Manifest, Signature []byte   // the exact bytes of the objects
	Hash                [32]byte // SHA-256 of Manifest
	Lists               []byte   // kept for the next run's [Index.LastLists]
	Base                []byte   // of a full dump: how manifests name its parts, kept for [Run.Bases]
	DumpSize            int64    // bytes of the objects of the dump that the run wrote
}

// SetIntent stores the manifest and its signature before they are uploaded,
// and ends the run: it can be confirmed, and not be rolled back any more. When
// SetIntent returns, that survives a power cut, together with all that the run
// recorded.
//
// Blobs that [Run.References] did not name are not counted on any more from
// here on. So SetIntent fails if anything was recorded since the manifest's
// references were collected.
func (r *Run) SetIntent(ctx context.Context, c Commit) error {
	return r.write(ctx, "store the intent", func(x *Index) error {
		refs := r.references
		if refs == nil || r.collected != r.changes {
			return errors.New("the run went on after its references were collected for the manifest")
		}
		if err := r.commit(); err != nil {
			return err
		}
		err := x.db.Durably(func() error {
			// Nothing can begin between here and Confirm, so this is the
			// same as letting go of them then.
			for _, id := range refs.Released {
				if _, _, err := x.db.Exec("UPDATE blobs SET end_run = ? WHERE id = ?", r.seq+1, id); err != nil {
					return err
				}
			}
			if err := r.setBase(refs, c); err != nil {
				return err
			}
			_, _, err := x.db.Exec("UPDATE runs SET state = 'intent', manifest = ?, signature = ?, hash = ?, lists = ? WHERE seq = ?",
				c.Manifest, c.Signature, c.Hash[:], c.Lists, r.seq)
			return err
		})
		if err != nil {
			return err
		}
		r.end()
		return nil
	})
}

// Rollback gives the run up, as [Index.Rollback] does for an interrupted one.
// After SetIntent it fails with ErrRunOver; after a Rollback it does nothing.
func (r *Run) Rollback(ctx context.Context) error {
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	if r.over {
		s, err := r.x.status(ctx)
		if err = errors.Join(err, r.x.finish()); err != nil {
			return r.x.fail("roll back", err)
		}
		if s.LastSeq >= r.seq || s.Intent != nil && s.Intent.Seq == r.seq {
			return r.x.fail("roll back", fmt.Errorf("%w: %d", ErrRunOver, r.seq))
		}
		return nil
	}
	if err := r.x.db.Abort(); err != nil {
		return r.x.fail("roll back", err)
	}
	if err := r.x.undo(r.seq); err != nil {
		return r.x.fail("roll back", err)
	}
	r.end()
	return nil
}

func (r *Run) end() {
	r.over = true
	r.references = nil
	r.x.run = nil
}

// bulks are the tables that a run adds many rows to.
type bulks struct {
	paths, files, contents, fileChunks, blobChunks, chunks, prefixes sqlite.Bulk
}

func newBulks() *bulks {
	return &bulks{
		paths:      sqlite.NewBulk("paths", 3, " ON CONFLICT DO NOTHING"),
		files:      sqlite.NewBulk("files (id, set_id, path, first_run, end_run, gap, recheck, xattrs, "+fileColumns+")", 32, ""),
		contents:   sqlite.NewBulk("contents", 2, ""),
		fileChunks: sqlite.NewBulk("file_chunks", 4, ""),
		blobChunks: sqlite.NewBulk("blob_chunks", 6, " ON CONFLICT DO NOTHING"),
		chunks:     sqlite.NewBulk("chunks", 3, ""),
		prefixes:   sqlite.NewBulk("prefixes", 2, ""),
	}
}

func (b *bulks) all() []*sqlite.Bulk {
	return []*sqlite.Bulk{&b.paths, &b.files, &b.contents, &b.fileChunks, &b.blobChunks, &b.chunks, &b.prefixes}
}
