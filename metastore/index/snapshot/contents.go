// Package snapshot finds out what the snapshot of a run of an index is made of,
// and which blobs it needs, and writes its dump.
//
//	Collect    the large tables, each from one end to the other → Contents
//	WriteDump  these rows as text, or the difference to those of a base dump
//	Moves      chunks that are in blobs better done without
//
// It reads on connections of its own, as many as there are cores, and what it
// keeps is some bits a row. It writes nothing into the index.
package snapshot

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

// Contents is what a snapshot is made of, as the run sees it at one moment.
type Contents struct {
	Run
	hidden, gaps idset.Set // paths below gaps, and those of the gaps
	idset.Rows             // that the snapshot shows or needs
	Totals       metastore.Totals
	Lost         bool // some of Chunks are in no live blob of the run's recipients

	moved idset.Set // chunks of the base that are read from another blob now

	liveBlobs
	pinned     idset.Set           // those that hold a chunk of a version that is open elsewhere
	moving     moving              // what of the snapshot is in blobs that it is to be moved out of
	Refs, Pins []metastore.BlobRef // what the manifest has to name, sorted by seq and hash
	Released   []int64             // the other live blobs, by id
}

// Shows reports whether the snapshot shows a version of the run's set that
// holds in this run.
func (f *Contents) Shows(path int64, gap bool) bool {
	return !f.hidden.Has(path) && (gap || !f.gaps.Has(path))
}

// liveBlobs are the blobs that the index counts on.
type liveBlobs map[int64]*liveBlob

type liveBlob struct {
	id int64
	metastore.BlobRef
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

// Run is a run whose snapshot is collected, and where it is recorded.
type Run struct {
	DB         *sqlite.Writer // read by the one who collects, and written by nobody meanwhile
	Path       string         // of its database
	Seq, Set   int64
	Recipients [32]byte
	Spread     bool // blobs of former recipients will do
	Gaps       bool // there are places that the run could not look at

	LastFile, LastContent, LastChunk int64 // ids given out last

	Base   *Base        // what a differential dump would be made against, nil if there is none
	Commit func() error // makes what was recorded be seen by readers
}

// Base is an earlier full dump of the set that the run's recipients can read.
type Base struct {
	Run                int64
	FullSize, DiffSize int64 // bytes of its objects, and of those of all differences to it
	idset.Rows
}

// Collect finds out what the snapshot consists of. It reads three tables from
// one end to the other, which is faster than any join when most rows are wanted.
func Collect(ctx context.Context, r Run) (_ *Contents, err error) {
	c := &collection{Contents: &Contents{Run: r}}
	f := c.Contents
	if err := r.collectGaps(ctx, f); err != nil {
		return nil, err
	}
	if f.liveBlobs, err = r.findBlobs(ctx); err != nil {
		return nil, err
	}
	if err := r.Commit(); err != nil { // readers see what is committed
		return nil, err
	}
	if c.readers, err = sqlite.OpenReaders(r.Path); err != nil {
		return nil, err
	}
	if err := errors.Join(c.collect(ctx), c.readers.Close()); err != nil {
		return nil, err
	}
	if err := r.knownVolumes(ctx, f); err != nil {
		return nil, err
	}
	f.Lost = f.Chunks.Missing(c.located) > 0
	f.sortBlobs(r.Seq)
	f.Totals.Volumes, f.Totals.Paths, f.Totals.Files = f.Volumes.Count(), f.Paths.Count(), f.Files.Count()
	f.Totals.Contents, f.Totals.Chunks, f.Totals.Blobs = f.Contents.Count(), f.Chunks.Count(), f.Blobs.Count()
	return f, nil
}

// collectGaps finds the places that the run could not look at.
func (r *Run) collectGaps(ctx context.Context, f *Contents) error {
	if !r.Gaps {
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
		err := r.DB.Each(ctx, q.query, []any{r.Seq}, func(scan func(...any) error) error {
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
func (r *Run) knownVolumes(ctx context.Context, f *Contents) error {
	var known idset.Set
	err := r.DB.Each(ctx, "SELECT id FROM volumes", nil, func(scan func(...any) error) error {
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

// findBlobs lists the blobs that the index counts on.
func (r *Run) findBlobs(ctx context.Context) (liveBlobs, error) {
	blobs := liveBlobs{}
	return blobs, r.DB.Each(ctx, "SELECT id, seq, hash, size, recipients = ?, retired IS NOT NULL FROM blobs WHERE end_run IS NULL", []any{r.Recipients[:]},
		func(scan func(...any) error) error {
			b := &liveBlob{}
			var hash sql.RawBytes
			err := scan(&b.id, &b.Seq, &hash, &b.Size, &b.current, &b.retired)
			copy(b.Hash[:], hash)
			blobs[b.id] = b
			return err
		})
}

func (f *Contents) sortBlobs(seq int64) {
	for _, b := range f.liveBlobs {
		f.Live.Add(b.id)
		switch {
		case f.Blobs.Has(b.id):
			f.Refs = append(f.Refs, b.BlobRef)
		case f.pinned.Has(b.id) || b.Seq == seq:
			f.Pins = append(f.Pins, b.BlobRef)
		default:
			f.Released = append(f.Released, b.id)
		}
	}
	order := func(a, b metastore.BlobRef) int {
		if a.Seq != b.Seq {
			return int(a.Seq - b.Seq)
		}
		return strings.Compare(string(a.Hash[:]), string(b.Hash[:]))
	}
	slices.SortFunc(f.Refs, order)
	slices.SortFunc(f.Pins, order)
	slices.Sort(f.Released)
}
