package index

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// references is what a snapshot is made of, as the run sees it at one moment.
type references struct {
	changes int64 // of the run, at that moment

	hidden, gaps idset.Set // paths below gaps, and those of the gaps
	idset.Rows             // that the snapshot shows or needs
	totals       metastore.Totals
	lost         bool // some of chunks are in no live blob of the run's recipients

	base  *base     // what a differential dump would be made against
	moved idset.Set // chunks of the base that are read from another blob now

	liveBlobs
	pinned     idset.Set // those that hold a chunk of a version that is open elsewhere
	moving     moving    // what of the snapshot is in blobs that it is to be moved out of
	refs, pins []BlobRef // sorted by seq and hash
	released   []int64   // the other live blobs
}

// shows reports whether the snapshot shows a version of the run's set that
// holds in this run.
func (f *references) shows(path int64, gap bool) bool {
	return !f.hidden.Has(path) && (gap || !f.gaps.Has(path))
}

// liveBlobs are the blobs that the index counts on.
type liveBlobs map[int64]*liveBlob

type liveBlob struct {
	id int64
	BlobRef
	current bool // encrypted to exactly the run's recipients
	retired bool // what it holds is to be moved
}

// better reports whether a chunk should rather be read from b than from o,
// which may be nil.
func (b *liveBlob) better(o *liveBlob) bool {
	switch {
	case b == nil || o == nil:
		return o == nil
	case b.current != o.current:
		return b.current
	case b.retired != o.retired:
		return o.retired
	}
	return b.id > o.id
}

// same reports whether both are the same blob, or nil.
func (b *liveBlob) same(o *liveBlob) bool {
	if b == nil || o == nil {
		return b == o
	}
	return b.id == o.id
}

// collect finds out what the snapshot consists of, once for all who ask until
// something is recorded. It reads three tables from one end to the other, which
// is faster than any join when most rows are wanted.
func (r *Run) collect(ctx context.Context) (_ *references, err error) {
	if r.references != nil && r.references.changes == r.changes {
		return r.references, nil
	}
	c := &collection{references: &references{changes: r.changes}, run: r}
	f := c.references
	if f.base, err = r.base(); err != nil {
		return nil, err
	}
	if err := r.collectGaps(ctx, f); err != nil {
		return nil, err
	}
	if f.liveBlobs, err = r.liveBlobs(ctx); err != nil {
		return nil, err
	}
	if err := r.commit(); err != nil { // readers see what is committed
		return nil, err
	}
	if c.readers, err = sqlite.OpenReaders(r.x.path); err != nil {
		return nil, err
	}
	if err := errors.Join(c.collect(ctx), c.readers.Close()); err != nil {
		return nil, err
	}
	if err := r.knownVolumes(ctx, f); err != nil {
		return nil, err
	}
	f.lost = f.Chunks.Missing(c.located) > 0
	f.sortBlobs(r.seq)
	f.totals.Volumes, f.totals.Paths, f.totals.Files = f.Volumes.Count(), f.Paths.Count(), f.Files.Count()
	f.totals.Contents, f.totals.Chunks, f.totals.Blobs = f.Contents.Count(), f.Chunks.Count(), f.Blobs.Count()
	r.references = f
	return f, nil
}

// collectGaps finds the places that the run could not look at.
func (r *Run) collectGaps(ctx context.Context, f *references) error {
	if r.gaps == 0 {
		return nil
	}
	for _, q := range []struct {
		set   *idset.Set
		query string
	}{
		{&f.gaps, "SELECT path FROM gaps WHERE run = ?"},
		{&f.hidden, `WITH RECURSIVE t (id) AS (SELECT p.id FROM gaps g JOIN paths p ON p.parent = g.path WHERE g.run = ?
			UNION SELECT p.id FROM t JOIN paths p ON p.parent = t.id) SELECT id FROM t`},
	} {
		err := r.x.db.Each(ctx, q.query, []any{r.seq}, func(scan func(...any) error) error {
			var path int64
			err := scan(&path)
			q.set.Add(path)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// knownVolumes leaves out what stands for no volume: entries of which nothing
// could be found out are on none.
func (r *Run) knownVolumes(ctx context.Context, f *references) error {
	var known idset.Set
	err := r.x.db.Each(ctx, "SELECT id FROM volumes", nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if f.Volumes.Has(id) {
			known.Add(id)
		}
		return err
	})
	f.Volumes = known
	return err
}

func (r *Run) liveBlobs(ctx context.Context) (liveBlobs, error) {
	blobs := liveBlobs{}
	return blobs, r.x.db.Each(ctx, "SELECT id, seq, hash, size, recipients = ?, retired IS NOT NULL FROM blobs WHERE end_run IS NULL", []any{r.recipients[:]},
		func(scan func(...any) error) error {
			b := &liveBlob{}
			var hash sql.RawBytes
			err := scan(&b.id, &b.Seq, &hash, &b.Size, &b.current, &b.retired)
			copy(b.Hash[:], hash)
			blobs[b.id] = b
			return err
		})
}

func (f *references) sortBlobs(seq int64) {
	for _, b := range f.liveBlobs {
		f.Live.Add(b.id)
		switch {
		case f.Blobs.Has(b.id):
			f.refs = append(f.refs, b.BlobRef)
		case f.pinned.Has(b.id) || b.Seq == seq:
			f.pins = append(f.pins, b.BlobRef)
		default:
			f.released = append(f.released, b.id)
		}
	}
	order := func(a, b BlobRef) int {
		if a.Seq != b.Seq {
			return int(a.Seq - b.Seq)
		}
		return strings.Compare(string(a.Hash[:]), string(b.Hash[:]))
	}
	slices.SortFunc(f.refs, order)
	slices.SortFunc(f.pins, order)
	slices.Sort(f.released)
}

// References returns the blobs that the manifest has to name: refs are those
// that the snapshot needs, as the dump says; pins what else the index wants
// kept: blobs outside refs that hold a chunk of a version that is open in any
// set, or that were uploaded under this seq. Both are sorted by seq and hash.
// After a SetIntent, the index counts on these blobs and no others.
func (r *Run) References(ctx context.Context) (refs, pins []BlobRef, err error) {
	err = r.read(ctx, "collect the snapshot's blobs", func(*Index) error {
		f, err := r.collect(ctx)
		if err == nil {
			refs, pins = slices.Clone(f.refs), slices.Clone(f.pins)
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
		if err != nil || !f.lost {
			return err
		}
		err = x.db.Each(ctx, `SELECT `+versionColumns+` FROM files f WHERE f.set_id = ? AND f.end_run IS NULL AND f.content IS NOT NULL AND EXISTS (
			SELECT 1 FROM file_chunks c WHERE c.content = f.content AND c.chunk IS NOT NULL AND NOT EXISTS (
				SELECT 1 FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE l.chunk = c.chunk AND b.end_run IS NULL AND (b.recipients = ? OR ?)))
			ORDER BY f.id`, []any{r.set, r.recipients[:], r.spread}, func(scan func(...any) error) error {
			var v Version
			err := scanVersion(scan, &v)
			if f.shows(v.Path, false) {
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
