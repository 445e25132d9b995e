package metastore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/mattn/go-sqlite3"
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
func (r *Run) WriteDump(ctx context.Context, s Snapshot, next func(n int) (PartWriter, error)) (t Totals, kind PartKind, err error) {
	d := &dump{run: r, out: statements{schema: dumpSchema, next: next}}
	if s.Seq != r.seq {
		return Totals{}, Full, fmt.Errorf("a snapshot with seq %d cannot be run %d", s.Seq, r.seq)
	}
	reader, err := r.reader(ctx, d)
	if err != nil {
		return Totals{}, Full, err
	}
	if d.content.differential() {
		d.base, d.out.kind = d.content.base, Differential
	}
	err = d.write(ctx, reader, s)
	if err = errors.Join(err, reader.close()); err != nil {
		return Totals{}, Full, r.x.fail("write a dump", err)
	}
	return d.content.totals, d.out.kind, nil
}

// reader collects what the dump consists of and begins to read at exactly that
// state, on a connection of its own.
func (r *Run) reader(ctx context.Context, d *dump) (s *snapshotReader, err error) {
	err = r.write(ctx, "begin a dump", func(x *Index) error {
		if err := r.commit(); err != nil {
			return err
		}
		if d.content, err = r.collect(ctx); err != nil {
			return err
		}
		s, err = openReader(x.path)
		return err
	})
	return s, err
}

// snapshotReader reads one state of a database, whatever is written meanwhile.
type snapshotReader struct {
	conn *sqlite3.SQLiteConn
}

func openReader(path string) (*snapshotReader, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(location(path, "mode=ro&_busy_timeout=2000&_cache_size=-8192"))
	if err != nil {
		return nil, err
	}
	s := &snapshotReader{c.(*sqlite3.SQLiteConn)}
	// The state is fixed by the first read.
	if _, err := s.conn.Exec("BEGIN; SELECT count(*) FROM sets", nil); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the transaction as well.
func (s *snapshotReader) close() error { return s.conn.Close() }

func (s *snapshotReader) each(ctx context.Context, query string, args []any, f func(scan func(...any) error) error) error {
	p, err := prepare(s.conn, query)
	if err != nil {
		return err
	}
	return errors.Join(p.eachScan(ctx, args, f), p.stmt.Close())
}

// dump is a dump in the making.
type dump struct {
	run     *Run
	content *references
	base    *base // nil for a full dump
	out     statements
}

func (d *dump) write(ctx context.Context, reader *snapshotReader, s Snapshot) error {
	sections := d.sections()
	if d.base != nil {
		if err := d.out.delete(TableSnapshots, slices.Values([]int64{d.base.Run})); err != nil {
			return err
		}
		for i := range sections {
			if err := d.delete(reader, &sections[i]); err != nil {
				return err
			}
		}
	}
	row, err := snapshotRow(s)
	if err != nil {
		return err
	}
	if err := d.out.row(TableSnapshots.String(), row); err != nil {
		return err
	}
	for i := range sections {
		if err := d.insert(ctx, reader, &sections[i]); err != nil {
			return err
		}
	}
	return d.out.close()
}

// delete writes which rows of the base the snapshot has not, or has otherwise.
func (d *dump) delete(reader *snapshotReader, t *section) error {
	gone := t.then.without(t.rows)
	switch t.table {
	case TableXattrs:
		return reader.owners(gone, func(owners iter.Seq[int64]) error { return d.out.delete(t.table, owners) })
	case TableBlobChunks:
		gone = both(gone, d.content.moved.without(nil))
	}
	return d.out.delete(t.table, gone)
}

// insert writes the rows of a table: all, or those that the base has not.
func (d *dump) insert(ctx context.Context, reader *snapshotReader, t *section) error {
	w := rowWriter{dump: d, section: t}
	query := "SELECT " + t.table.Key() + ", " + w.more() + ", format(" + t.text + ") "
	if d.base == nil {
		if err := reader.each(ctx, query+t.from, t.args, w.row); err != nil {
			return err
		}
		return w.flush()
	}
	p, err := prepare(reader.conn, query+t.by)
	if err != nil {
		return err
	}
	defer p.stmt.Close()
	keys := t.rows.without(t.then)
	if t.table == TableBlobChunks {
		keys = both(keys, d.content.moved.without(nil))
	}
	for key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.eachScan(ctx, []any{key}, w.row); err != nil {
			return err
		}
	}
	return w.flush()
}

func snapshotRow(s Snapshot) ([]byte, error) {
	var lists [3][]byte
	for i, l := range [][]string{s.Roots, s.Excludes, s.Tags} {
		var err error
		if lists[i], err = list(l); err != nil {
			return nil, err
		}
	}
	c := s.Chunking
	return appendRow(nil,
		s.Seq, s.ID, s.Writer, s.Set, []byte(s.Hostname),
		s.Started.Sec, int64(s.Started.Nsec), s.Finished.Sec, int64(s.Finished.Nsec), s.Version, s.Revision,
		lists[0], lists[1], lists[2],
		c.Algorithm, int64(c.Min), int64(c.Avg), int64(c.Max), c.Secret,
		s.NewFiles, s.NewBytes, s.StoredBytes)
}
