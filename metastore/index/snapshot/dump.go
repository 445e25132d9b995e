package snapshot

import (
	"context"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// WriteDump streams the snapshot, read by rs, in parts: whole, or the difference
// to its base. s becomes the row of snapshots; next is asked for a writer of
// each part.
func (f *Contents) WriteDump(ctx context.Context, rs sqlite.Readers, s metastore.Snapshot, kind dump.PartKind, next func(n int) (dump.PartWriter, error)) error {
	d := &dumping{content: f, out: dump.NewWriter(kind, next)}
	if kind == dump.Differential {
		d.base = f.Base
	}
	return d.write(ctx, rs, s)
}

// dumping is a dump in the making.
type dumping struct {
	content *Contents
	base    *Base // nil for a full dump
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

// smallDump is up to how many bytes a full dump is made every time: nothing is
// saved by anything smaller, since the age header alone takes two kilobytes.
const smallDump = 16 << 10

// Differential decides whether the dump shall be a differential one. It is as
// long as the difference is small, and all differences to one base together
// have taken less space than a new full dump would: the rule by which neither
// many small ones nor one large one ever cost more than twice the best plan.
func (f *Contents) Differential() bool {
	b := f.Base
	if b == nil || b.FullSize <= smallDump || b.DiffSize >= b.FullSize {
		return false
	}
	changed, all := int64(0), int64(0)
	now, then := f.Rows.Sets(), b.Rows.Sets()
	for i := range now[:len(now)-1] { // not live: no rows of a dump
		changed += now[i].Missing(*then[i]) + then[i].Missing(*now[i])
		all += now[i].Count()
	}
	return changed < all/2
}
