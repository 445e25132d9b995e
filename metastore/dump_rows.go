package metastore

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"iter"
)

// section is a table of a dump and where its rows come from.
type section struct {
	table Table
	rows  bitset // keys of the rows that the snapshot has
	then  bitset // and of those that the base has
	// text makes a row's text. SQLite does that itself: handing over one value
	// a row instead of up to 26 is what makes this fast. Text columns hold
	// nothing that would have to be quoted, which checkText and File.check saw to.
	text string
	from string // the rest of the query for all rows
	args []any
	by   string // and for those of one key
}

func (d *dump) sections() []section {
	now, then := &d.content.dumpedRows, &dumpedRows{}
	if d.base != nil {
		then = &d.base.dumpedRows
	}
	const file = `'(%d,%d,''%s'',''%s'',%d,''%s'',%d,%d,%d,%s,%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%s,%d,%s)',
		id, path, role, state, errno, type, mode, uid, gid, quote(user), quote("group"), size,
		mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns,
		volume, inode, nlink, rdev_major, rdev_minor, quote(target), flags, quote(content)`
	return []section{
		{TableVolumes, now.volumes, then.volumes, "'(%d,''%s'',%d,%s)', id, fstype, fsid, quote(root)",
			"FROM volumes ORDER BY id", nil, "FROM volumes WHERE id = ?"},
		{TablePaths, now.paths, then.paths, "'(%d,%d,%s)', id, parent, quote(name)",
			"FROM paths NOT INDEXED ORDER BY id", nil, "FROM paths WHERE id = ?"},
		{TableFiles, now.files, then.files, file,
			"FROM files NOT INDEXED WHERE set_id = ?1 AND (end_run IS NULL OR gap AND first_run = ?2) ORDER BY id",
			[]any{d.run.set, d.run.seq}, "FROM files WHERE id = ?"},
		{TableXattrs, now.files, then.files, "'(%d,%s,%s)', file, quote(name), quote(value)",
			"FROM xattrs ORDER BY file, name", nil, "FROM xattrs WHERE file = ? ORDER BY name"},
		{TableContents, now.contents, then.contents, "'(%d)', id",
			"FROM contents ORDER BY id", nil, "FROM contents WHERE id = ?"},
		{TableFileChunks, now.contents, then.contents, "'(%d,%d,%d,%s)', content, offset, length, quote(chunk)",
			"FROM file_chunks ORDER BY content, offset", nil, "FROM file_chunks WHERE content = ? ORDER BY offset"},
		{TableChunks, now.chunks, then.chunks, "'(%d,%s,%d)', id, quote(hash), size",
			"FROM chunks NOT INDEXED ORDER BY id", nil, "FROM chunks WHERE id = ?"},
		{TableBlobs, now.blobs, then.blobs,
			"'(%d,%s,%d,%d,%d,%s,%d,%d)', id, quote(hash), seq, size, header, quote(recipients), level, upload_ms",
			"FROM blobs NOT INDEXED ORDER BY id", nil, "FROM blobs WHERE id = ?"},
		{TableBlobChunks, now.chunks, then.chunks,
			"'(%d,%d,%d,%d,%d,%d)', chunk, blob, frame_offset, frame_length, offset, length",
			"FROM blob_chunks ORDER BY chunk", nil, "FROM blob_chunks WHERE chunk = ?"},
	}
}

// rowWriter passes rows on, and of blob_chunks, for every chunk, the one place
// to read it from, by the same choice that the references were collected by.
type rowWriter struct {
	*dump
	*section
	at   int64
	best *liveBlob
	text []byte
}

// more is the column that the choice goes by.
func (w *rowWriter) more() string {
	if w.table == TableBlobChunks {
		return "blob"
	}
	return "0"
}

func (w *rowWriter) row(scan func(...any) error) error {
	var key, blob int64
	var text sql.RawBytes
	if err := scan(&key, &blob, &text); err != nil || !w.rows.has(key) {
		return err
	}
	if w.table != TableBlobChunks {
		return w.out.row(w.table.String(), text)
	}
	if key != w.at {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = key
	}
	if b := w.content.liveBlobs[blob]; b.better(w.best) {
		w.best, w.text = b, append(w.text[:0], text...)
	}
	return nil
}

// flush writes what was chosen for the last chunk.
func (w *rowWriter) flush() error {
	if w.best == nil {
		return nil
	}
	w.best = nil
	return w.out.row(w.table.String(), w.text)
}

// owners calls f with those of files that have extended attributes.
func (s *snapshotReader) owners(files iter.Seq[int64], f func(iter.Seq[int64]) error) error {
	p, err := prepare(s.conn, "SELECT 1 FROM xattrs WHERE file = ? LIMIT 1")
	if err != nil {
		return err
	}
	defer p.stmt.Close()
	var failed error
	err = f(func(yield func(int64) bool) {
		for id := range files {
			has := false
			if failed = p.each(func([]driver.Value) error { has = true; return nil }, id); failed != nil {
				return
			}
			if has && !yield(id) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// both yields what a yields, then what b does.
func both(a, b iter.Seq[int64]) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for _, s := range [...]iter.Seq[int64]{a, b} {
			for v := range s {
				if !yield(v) {
					return
				}
			}
		}
	}
}
