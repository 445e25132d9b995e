package metastore

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

// references is what a snapshot is made of, as the run sees it at one moment.
type references struct {
	changes int64 // of the run, at that moment

	hidden, gaps bitset // paths below gaps, and those of the gaps
	dumpedRows          // that the snapshot shows or needs
	totals       Totals
	lost         bool // some of chunks are in no live blob of the run's recipients

	base  *base  // what a differential dump would be made against
	moved bitset // chunks of the base that are read from another blob now

	liveBlobs
	refs, pins []BlobRef // sorted by seq and hash
	released   []int64   // the other live blobs
}

// shows reports whether the snapshot shows a version of the run's set that
// holds in this run.
func (f *references) shows(path int64, gap bool) bool {
	return !f.hidden.has(path) && (gap || !f.gaps.has(path))
}

// liveBlobs are the blobs that the index counts on.
type liveBlobs map[int64]*liveBlob

type liveBlob struct {
	id int64
	BlobRef
	current bool // encrypted to exactly the run's recipients
	refers  bool // the snapshot has a chunk in it
	pinned  bool // a version that is open elsewhere has
}

// better reports whether a chunk should rather be read from b than from o,
// which may be nil.
func (b *liveBlob) better(o *liveBlob) bool {
	switch {
	case b == nil || o == nil:
		return o == nil
	case b.current != o.current:
		return b.current
	}
	return b.id > o.id
}

// collect finds out what the snapshot consists of, once for all who ask until
// something is recorded. It reads five tables from one end to the other, which
// is faster than any join when most rows are wanted.
func (r *Run) collect(ctx context.Context) (*references, error) {
	if r.references != nil && r.references.changes == r.changes {
		return r.references, nil
	}
	f := &references{changes: r.changes}
	var err error
	if f.base, err = r.base(); err != nil {
		return nil, err
	}
	open, err := r.collectFiles(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := r.knownVolumes(ctx, f); err != nil {
		return nil, err
	}
	var openChunks bitset
	err = r.x.each(ctx, "SELECT content, coalesce(chunk, 0) FROM file_chunks", nil, func(scan func(...any) error) error {
		var content, chunk int64
		if err := scan(&content, &chunk); err != nil {
			return err
		}
		if f.contents.has(content) {
			f.totals.FileChunks++
			if chunk != 0 {
				f.chunks.add(chunk)
			}
		}
		if chunk != 0 && open.has(content) {
			openChunks.add(chunk)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if f.liveBlobs, err = r.liveBlobs(ctx); err != nil {
		return nil, err
	}
	located, err := r.collectBlobs(ctx, f, openChunks)
	if err != nil {
		return nil, err
	}
	for i, word := range f.chunks {
		f.lost = f.lost || i >= len(located) && word != 0 || i < len(located) && word&^located[i] != 0
	}
	f.sortBlobs(r.seq)
	f.totals.Volumes, f.totals.Paths, f.totals.Files = f.volumes.count(), f.paths.count(), f.files.count()
	f.totals.Contents, f.totals.Chunks, f.totals.Blobs = f.contents.count(), f.chunks.count(), f.blobs.count()
	r.references = f
	return f, nil
}

// collectFiles finds what the snapshot shows, and the contents of all other
// open versions: of other sets, and below gaps.
func (r *Run) collectFiles(ctx context.Context, f *references) (open bitset, err error) {
	if r.gaps > 0 {
		for _, q := range []struct {
			set   *bitset
			query string
		}{
			{&f.gaps, "SELECT path FROM gaps WHERE run = ?"},
			{&f.hidden, `WITH RECURSIVE t (id) AS (SELECT p.id FROM gaps g JOIN paths p ON p.parent = g.path WHERE g.run = ?
				UNION SELECT p.id FROM t JOIN paths p ON p.parent = t.id) SELECT id FROM t`},
		} {
			err := r.x.each(ctx, q.query, []any{r.seq}, func(scan func(...any) error) error {
				var path int64
				err := scan(&path)
				q.set.add(path)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return open, r.x.each(ctx, `SELECT id, set_id = ?1 OR gap, path, gap, volume, coalesce(content, 0), size, xattrs FROM files NOT INDEXED
		WHERE end_run IS NULL OR gap AND first_run = ?2`, []any{r.set, r.seq}, func(scan func(...any) error) error {
		var ours, gap bool
		var id, path, volume, content, size, xattrs int64
		if err := scan(&id, &ours, &path, &gap, &volume, &content, &size, &xattrs); err != nil {
			return err
		}
		switch {
		case ours && f.shows(path, gap):
			f.files.add(id)
			f.paths.add(path)
			f.volumes.add(volume)
			f.totals.Xattrs += xattrs
			if content != 0 {
				f.contents.add(content)
				f.totals.Bytes = addBytes(f.totals.Bytes, size)
			}
		case content != 0:
			open.add(content)
		}
		return nil
	})
}

// knownVolumes leaves out what stands for no volume: entries of which nothing
// could be found out are on none.
func (r *Run) knownVolumes(ctx context.Context, f *references) error {
	var known bitset
	err := r.x.each(ctx, "SELECT id FROM volumes", nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if f.volumes.has(id) {
			known.add(id)
		}
		return err
	})
	f.volumes = known
	return err
}

func (r *Run) liveBlobs(ctx context.Context) (liveBlobs, error) {
	blobs := liveBlobs{}
	return blobs, r.x.each(ctx, "SELECT id, seq, hash, size, recipients = ? FROM blobs WHERE end_run IS NULL", []any{r.recipients[:]},
		func(scan func(...any) error) error {
			b := &liveBlob{}
			var hash sql.RawBytes
			err := scan(&b.id, &b.Seq, &hash, &b.Size, &b.current)
			copy(b.Hash[:], hash)
			blobs[b.id] = b
			return err
		})
}

// collectBlobs chooses for every chunk the blob to read it from, and returns
// the chunks for which there is one that the run's recipients can read.
func (r *Run) collectBlobs(ctx context.Context, f *references, openChunks bitset) (located bitset, err error) {
	var at int64
	var best, before *liveBlob
	choose := func() {
		if f.base != nil && before != best && f.base.chunks.has(at) && f.chunks.has(at) {
			f.moved.add(at)
		}
		if best == nil {
			return
		}
		if best.current {
			located.add(at)
		}
		if f.chunks.has(at) {
			f.totals.BlobChunks++
			best.refers = true
		}
		best.pinned = best.pinned || openChunks.has(at)
	}
	// Blobs that are not counted on any more, but were when the base was made.
	ended := map[int64]bool{}
	if f.base != nil {
		err := r.x.each(ctx, "SELECT id, recipients = ? FROM blobs WHERE end_run > ?", []any{r.recipients[:], f.base.Run}, func(scan func(...any) error) error {
			var id int64
			var current bool
			err := scan(&id, &current)
			ended[id] = current
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	err = r.x.each(ctx, "SELECT chunk, blob FROM blob_chunks ORDER BY chunk", nil, func(scan func(...any) error) error {
		var chunk, blob int64
		if err := scan(&chunk, &blob); err != nil {
			return err
		}
		if chunk != at {
			choose()
			at, best, before = chunk, nil, nil
		}
		b := f.liveBlobs[blob]
		if b.better(best) {
			best = b
		}
		// A base is encrypted as this run is, so it chose by the same rule.
		if f.base != nil && f.base.live.has(blob) {
			if b == nil {
				b = &liveBlob{id: blob, current: ended[blob]}
			}
			if b.better(before) {
				before = b
			}
		}
		return nil
	})
	choose()
	return located, err
}

func (f *references) sortBlobs(seq int64) {
	for _, b := range f.liveBlobs {
		f.live.add(b.id)
		switch {
		case b.refers:
			f.blobs.add(b.id)
			f.refs = append(f.refs, b.BlobRef)
		case b.pinned || b.Seq == seq:
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
// blob that the index counts on and the run's recipients can read.
type MissingFile struct {
	Path       int64
	Components []string // its name and its ancestors', from "/" down; "/" itself has none
	File       File     // without Xattrs
}

// Missing returns the files whose content the snapshot could not give back.
func (r *Run) Missing(ctx context.Context) (files []MissingFile, err error) {
	err = r.read(ctx, "look for missing chunks", func(x *Index) error {
		f, err := r.collect(ctx)
		if err != nil || !f.lost {
			return err
		}
		err = x.each(ctx, `SELECT `+versionColumns+` FROM files f WHERE f.set_id = ? AND f.end_run IS NULL AND f.content IS NOT NULL AND EXISTS (
			SELECT 1 FROM file_chunks c WHERE c.content = f.content AND c.chunk IS NOT NULL AND NOT EXISTS (
				SELECT 1 FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE l.chunk = c.chunk AND b.end_run IS NULL AND b.recipients = ?))
			ORDER BY f.id`, []any{r.set, r.recipients[:]}, func(scan func(...any) error) error {
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
func (s *session) components(ctx context.Context, path int64) (names []string, err error) {
	err = s.each(ctx, `WITH RECURSIVE t (parent, name) AS (SELECT parent, name FROM paths WHERE id = ?
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
