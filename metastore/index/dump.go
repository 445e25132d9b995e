package index

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

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
	d := &dumping{run: r}
	if s.Seq != r.seq {
		return metastore.Totals{}, dump.Full, fmt.Errorf("a snapshot with seq %d cannot be run %d", s.Seq, r.seq)
	}
	rs, err := r.readers(ctx, d)
	if err != nil {
		return metastore.Totals{}, dump.Full, err
	}
	if d.content.differential() {
		d.base, kind = d.content.base, dump.Differential
	}
	d.out = dump.NewWriter(kind, next)
	err = d.write(ctx, rs, s)
	if err = errors.Join(err, rs.Close()); err != nil {
		return metastore.Totals{}, dump.Full, r.x.fail("write a dump", err)
	}
	return d.content.totals, kind, nil
}

// readers collects what the dump consists of and begins to read at exactly that
// state, on connections of its own.
func (r *Run) readers(ctx context.Context, d *dumping) (rs sqlite.Readers, err error) {
	err = r.write(ctx, "begin a dump", func(x *Index) error {
		if d.content, err = r.collect(ctx); err != nil {
			return err
		}
		if err := r.commit(); err != nil {
			return err
		}
		rs, err = sqlite.OpenReaders(x.path)
		return err
	})
	return rs, err
}

// dumping is a dump in the making.
type dumping struct {
	run     *Run
	content *references
	base    *base // nil for a full dump
	out     *dump.Writer
	batches sync.Pool // of *rowBatch
}

func (d *dumping) write(ctx context.Context, rs sqlite.Readers, s metastore.Snapshot) error {
	sections := d.sections()
	if d.base != nil {
		if err := d.out.Delete(dump.TableSnapshots, slices.Values([]int64{d.base.Run})); err != nil {
			return err
		}
		for i := range sections {
			if err := d.delete(rs[0], &sections[i]); err != nil {
				return err
			}
		}
	}
	if err := d.out.Snapshot(s); err != nil {
		return err
	}
	for i := range sections {
		insert := d.insertAll
		if d.base != nil {
			insert = d.insert
		}
		if err := insert(ctx, rs, &sections[i]); err != nil {
			return err
		}
	}
	return d.out.Close()
}

// delete writes which rows of the base the snapshot has not, or has otherwise.
func (d *dumping) delete(reader *sqlite.Reader, t *section) error {
	gone := t.then.Without(t.rows)
	switch t.table {
	case dump.TableXattrs:
		return owners(reader, gone, func(owners iter.Seq[int64]) error { return d.out.Delete(t.table, owners) })
	case dump.TableBlobChunks:
		gone = both(gone, d.content.moved.Without(nil))
	}
	return d.out.Delete(t.table, gone)
}

// insert writes the rows of a table that the base has not.
func (d *dumping) insert(ctx context.Context, rs sqlite.Readers, t *section) error {
	w := rowWriter{dumping: d, section: t, emit: func(row []byte) error { return d.out.Row(t.table, row) }}
	p, err := rs[0].Prepare(t.query() + t.by)
	if err != nil {
		return err
	}
	defer p.Close()
	keys := t.rows.Without(t.then)
	if t.table == dump.TableBlobChunks {
		keys = both(keys, d.content.moved.Without(nil))
	}
	for key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.EachScan(ctx, []any{key}, w.row); err != nil {
			return err
		}
	}
	return w.flush()
}

// insertAll writes all rows of a table. Their text is made range by range, of
// several ranges at once, and written in order.
func (d *dumping) insertAll(ctx context.Context, rs sqlite.Readers, t *section) error {
	g, ctx := errgroup.WithContext(ctx)
	ordered, ranges := make(chan *rangeText, len(rs)), make(chan *rangeText)
	g.Go(func() error {
		defer close(ordered)
		defer close(ranges)
		for k := range t.rows.Ranges() {
			r := &rangeText{Keys: k, batches: make(chan *rowBatch, rangeBatches)}
			for _, ch := range []chan *rangeText{ordered, ranges} {
				select {
				case ch <- r:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for _, s := range rs {
		g.Go(func() error {
			for r := range ranges {
				if err := d.makeText(ctx, s, t, r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for r := range ordered {
			for {
				var b *rowBatch
				select {
				case b = <-r.batches:
				case <-ctx.Done(): // then nobody may have taken the range
					return ctx.Err()
				}
				if b == nil {
					break
				}
				if err := b.each(func(row []byte) error { return d.out.Row(t.table, row) }); err != nil {
					return err
				}
				d.batches.Put(b)
			}
			if !r.complete {
				return ctx.Err() // who could not complete it says why
			}
		}
		return nil
	})
	return g.Wait()
}
