package index

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// collect finds out what the snapshot consists of, once for all who ask until
// something is recorded.
func (r *Run) collect(ctx context.Context) (_ *snapshot.Contents, err error) {
	if r.references != nil && r.collected == r.changes {
		return r.references, nil
	}
	s := snapshot.Run{DB: r.x.db, Path: r.x.path, Seq: r.seq, Set: r.set, Recipients: r.recipients, Spread: r.spread, Gaps: r.gaps > 0,
		LastFile: r.x.last.files, LastContent: r.x.last.contents, LastChunk: r.x.last.chunks, Commit: r.commit}
	if s.Base, err = r.base(); err != nil {
		return nil, err
	}
	f, err := snapshot.Collect(ctx, s)
	if err != nil {
		return nil, err
	}
	r.references, r.collected = f, r.changes
	return f, nil
}

// References returns the blobs that the manifest has to name: refs are those
// that the snapshot needs, as the dump says; pins what else the index wants
// kept: blobs outside refs that hold a chunk of a version that is open in any
// set, or that were uploaded under this seq. Both are sorted by seq and hash.
// After a SetIntent, the index counts on these blobs and no others.
func (r *Run) References(ctx context.Context) (refs, pins []metastore.BlobRef, err error) {
	err = r.read(ctx, "collect the snapshot's blobs", func(*Index) error {
		f, err := r.collect(ctx)
		if err == nil {
			refs, pins = slices.Clone(f.Refs), slices.Clone(f.Pins)
		}
		return err
	})
	return refs, pins, err
}

// MissingFile is a file that the snapshot shows but of which a chunk is in no
// blob that the index counts on and the run's recipients can read; if the run is
// spread, in no blob that the index counts on.
type MissingFile struct {
	Path       int64
	Components []string       // its name and its ancestors', from "/" down; "/" itself has none
	File       metastore.File // without Xattrs
}

// Missing returns the files whose content the snapshot could not give back.
func (r *Run) Missing(ctx context.Context) (files []MissingFile, err error) {
	err = r.read(ctx, "look for missing chunks", func(x *Index) error {
		f, err := r.collect(ctx)
		if err != nil || !f.Lost {
			return err
		}
		err = x.db.Each(ctx, `SELECT `+versionColumns+` FROM files f WHERE f.set_id = ? AND f.end_run IS NULL AND f.content IS NOT NULL AND EXISTS (
			SELECT 1 FROM file_chunks c WHERE c.content = f.content AND c.chunk IS NOT NULL AND NOT EXISTS (
				SELECT 1 FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE l.chunk = c.chunk AND b.end_run IS NULL AND (b.recipients = ? OR ?)))
			ORDER BY f.id`, []any{r.set, r.recipients[:], r.spread}, func(scan func(...any) error) error {
			var v Version
			err := scanVersion(scan, &v)
			if f.Shows(v.Path, false) {
				files = append(files, MissingFile{Path: v.Path, File: v.File})
			}
			return err
		})
		for i := 0; err == nil && i < len(files); i++ {
			files[i].Components, err = x.components(ctx, files[i].Path)
		}
		return err
	})
	return files, err
}

// components are the names on the way from "/" to a path.
func (x *Index) components(ctx context.Context, path int64) (names []string, err error) {
	err = x.db.Each(ctx, `WITH RECURSIVE t (parent, name) AS (SELECT parent, name FROM paths WHERE id = ?
		UNION ALL SELECT p.parent, p.name FROM t JOIN paths p ON p.id = t.parent)
		SELECT name FROM t WHERE parent <> 0`, []any{path}, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	slices.Reverse(names)
	return names, err
}

// Moves names chunks of this run's snapshot that are to be uploaded again, so
// that the blobs they are in need not be kept. They are read from the source and
// given to AddBlob; which cannot be, stay where they are, and nothing is
// missing. Blobs are emptied one after the other, beginning behind the blob
// after (0 for the first), as long as what is needed of them has no more than
// limit bytes; but always one. last is the last of them, 0 if there is none.
//
// The moves are in the order of paths and offsets.
func (r *Run) Moves(ctx context.Context, out snapshot.MoveOut, after, limit int64) (moves []snapshot.Move, last int64, err error) {
	err = r.read(ctx, "look for chunks to be moved", func(*Index) error {
		f, err := r.collect(ctx)
		if err != nil {
			return err
		}
		moves, last, err = f.Moves(ctx, out, after, limit)
		return err
	})
	return moves, last, err
}

// Former returns how many bytes of blobs that only former recipients can read
// this run's snapshot needs. It is 0 unless the run is spread.
func (r *Run) Former(ctx context.Context) (bytes int64, err error) {
	err = r.read(ctx, "look for blobs of former recipients", func(*Index) error {
		f, err := r.collect(ctx)
		if err != nil {
			return err
		}
		bytes = f.Former()
		return nil
	})
	return bytes, err
}

// WriteDump streams the snapshot as this run sees it, in parts numbered from 1.
// s becomes the row of snapshots; next is asked for a writer of each part. It
// reads in a transaction of its own, beside which the run may go on, without a
// temporary file and with a few bits of memory a row. The totals are the counts
// that the manifest has to sign.
//
// kind is what the parts hold: everything, or the difference to the set's base.
// It is the latter if DropBase has not taken the base away, and the difference
// is worth it.
func (r *Run) WriteDump(ctx context.Context, s metastore.Snapshot, next func(n int) (dump.PartWriter, error)) (t metastore.Totals, kind dump.PartKind, err error) {
	if s.Seq != r.seq {
		return metastore.Totals{}, dump.Full, fmt.Errorf("a snapshot with seq %d cannot be run %d", s.Seq, r.seq)
	}
	f, rs, err := r.readers(ctx)
	if err != nil {
		return metastore.Totals{}, dump.Full, err
	}
	if f.Differential() {
		kind = dump.Differential
	}
	err = f.WriteDump(ctx, rs, s, kind, next)
	if err = errors.Join(err, rs.Close()); err != nil {
		return metastore.Totals{}, dump.Full, r.x.fail("write a dump", err)
	}
	return f.Totals, kind, nil
}

// readers collects what the dump consists of and begins to read at exactly that
// state, on connections of its own.
func (r *Run) readers(ctx context.Context) (f *snapshot.Contents, rs sqlite.Readers, err error) {
	err = r.write(ctx, "begin a dump", func(x *Index) error {
		if f, err = r.collect(ctx); err != nil {
			return err
		}
		if err := r.commit(); err != nil {
			return err
		}
		rs, err = sqlite.OpenReaders(x.path)
		return err
	})
	return f, rs, err
}
