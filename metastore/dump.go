package metastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// WriteDump streams the snapshot as this run sees it, as a full dump in parts
// numbered from 1. s becomes the row of snapshots; next is asked for a writer
// of each part. It reads in a transaction of its own, beside which the run may
// go on, without a temporary file and with a few bits of memory a row. The
// totals are the counts that the manifest has to sign.
func (r *Run) WriteDump(ctx context.Context, s Snapshot, next func(n int) (PartWriter, error)) (Totals, error) {
	d := &dump{run: r, out: statements{schema: dumpSchema, next: next}}
	if s.Seq != r.seq {
		return Totals{}, fmt.Errorf("a snapshot with seq %d cannot be run %d", s.Seq, r.seq)
	}
	reader, err := r.reader(ctx, d)
	if err != nil {
		return Totals{}, err
	}
	err = d.write(ctx, reader, s)
	if err = errors.Join(err, reader.close()); err != nil {
		return Totals{}, r.x.fail("write a dump", err)
	}
	return d.totals, nil
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
	out     statements
	totals  Totals
	files   bitset // ids that the snapshot shows
}

func (d *dump) write(ctx context.Context, reader *snapshotReader, s Snapshot) error {
	row, err := snapshotRow(s)
	if err != nil {
		return err
	}
	if err := d.out.row("snapshots", row); err != nil {
		return err
	}
	for _, t := range []struct {
		table string
		count *int64
		has   func(id int64) bool
		// query returns an id to ask has for and the row's text. SQLite makes
		// the text itself: handing over one value a row instead of up to 26
		// is what makes this fast. Text columns hold nothing that would have
		// to be quoted, which checkText and File.check saw to.
		query string
	}{
		{"volumes", &d.totals.Volumes, d.content.volumes.has,
			"SELECT id, format('(%d,''%s'',%d,%s)', id, fstype, fsid, quote(root)) FROM volumes ORDER BY id"},
		{"paths", &d.totals.Paths, d.content.paths.has,
			"SELECT id, format('(%d,%d,%s)', id, parent, quote(name)) FROM paths NOT INDEXED ORDER BY id"},
		{"files", nil, nil, ""},
		{"xattrs", &d.totals.Xattrs, func(id int64) bool { return d.files.has(id) },
			"SELECT file, format('(%d,%s,%s)', file, quote(name), quote(value)) FROM xattrs ORDER BY file, name"},
		{"contents", &d.totals.Contents, d.content.contents.has,
			"SELECT id, format('(%d)', id) FROM contents ORDER BY id"},
		{"file_chunks", &d.totals.FileChunks, d.content.contents.has,
			"SELECT content, format('(%d,%d,%d,%s)', content, offset, length, quote(chunk)) FROM file_chunks ORDER BY content, offset"},
		{"chunks", &d.totals.Chunks, d.content.chunks.has,
			"SELECT id, format('(%d,%s,%d)', id, quote(hash), size) FROM chunks NOT INDEXED ORDER BY id"},
		{"blobs", &d.totals.Blobs, d.content.refers,
			`SELECT id, format('(%d,%s,%d,%d,%d,%s,%d,%d)', id, quote(hash), seq, size, header, quote(recipients), level, upload_ms)
			FROM blobs NOT INDEXED ORDER BY id`},
		{"blob_chunks", nil, nil, ""},
	} {
		switch t.table {
		case "files":
			err = d.writeFiles(ctx, reader)
		case "blob_chunks":
			err = d.writeBlobChunks(ctx, reader)
		default:
			err = reader.each(ctx, t.query, nil, func(scan func(...any) error) error {
				var id int64
				var row sql.RawBytes
				if err := scan(&id, &row); err != nil || !t.has(id) {
					return err
				}
				*t.count++
				return d.out.row(t.table, row)
			})
		}
		if err != nil {
			return err
		}
	}
	return d.out.close()
}

// refers reports whether the snapshot needs a blob.
func (f *references) refers(blob int64) bool {
	b := f.live[blob]
	return b != nil && b.refers
}

func (d *dump) writeFiles(ctx context.Context, reader *snapshotReader) error {
	return reader.each(ctx, `SELECT id, path, gap, CASE WHEN content IS NULL THEN 0 ELSE size END, format(
		'(%d,%d,''%s'',''%s'',%d,''%s'',%d,%d,%d,%s,%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%s,%d,%s)',
		id, path, role, state, errno, type, mode, uid, gid, quote(user), quote("group"), size,
		mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns,
		volume, inode, nlink, rdev_major, rdev_minor, quote(target), flags, quote(content))
		FROM files NOT INDEXED WHERE set_id = ?1 AND (end_run IS NULL OR gap AND first_run = ?2) ORDER BY id`,
		[]any{d.run.set, d.run.seq}, func(scan func(...any) error) error {
			var id, path, size int64
			var gap bool
			var row sql.RawBytes
			if err := scan(&id, &path, &gap, &size, &row); err != nil || !d.content.shows(path, gap) {
				return err
			}
			d.files.add(id)
			d.totals.Files++
			d.totals.Bytes = addBytes(d.totals.Bytes, size)
			return d.out.row("files", row)
		})
}

// writeBlobChunks writes for every chunk where to read it from, by the same
// choice that the references were collected by.
func (d *dump) writeBlobChunks(ctx context.Context, reader *snapshotReader) error {
	var at int64
	var best *liveBlob
	var text []byte
	put := func() error {
		if best == nil {
			return nil
		}
		d.totals.BlobChunks++
		return d.out.row("blob_chunks", text)
	}
	err := reader.each(ctx, `SELECT chunk, blob, format('(%d,%d,%d,%d,%d,%d)', chunk, blob, frame_offset, frame_length, offset, length)
		FROM blob_chunks ORDER BY chunk`, nil, func(scan func(...any) error) error {
		var chunk, blob int64
		var row sql.RawBytes
		if err := scan(&chunk, &blob, &row); err != nil || !d.content.chunks.has(chunk) {
			return err
		}
		if chunk != at {
			if err := put(); err != nil {
				return err
			}
			at, best = chunk, nil
		}
		if b := d.content.live[blob]; b.better(best) {
			best, text = b, append(text[:0], row...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return put()
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
