package snapshot

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"iter"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// section is a table of a dump and where its rows come from.
type section struct {
	table dump.Table
	rows  idset.Set // keys of the rows that the snapshot has
	then  idset.Set // and of those that the base has
	// text makes a row's text. SQLite does that itself: handing over one value
	// a row instead of up to 26 is what makes this fast. Text columns hold
	// nothing that would have to be quoted, which dump.CheckText and checkFile saw to.
	text string
	from string // the rest of the query for all rows whose keys are in (?1, ?2]
	args []any  // from ?3 on
	by   string // and for those of one key
}

func (d *dumping) sections() []section {
	now, then := &d.content.Rows, &idset.Rows{}
	if d.base != nil {
		then = &d.base.Rows
	}
	const file = `'(%d,%d,''%s'',''%s'',%d,''%s'',%d,%d,%d,%s,%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%s,%d,%s)',
		id, path, role, state, errno, type, mode, uid, gid, quote(user), quote("group"), size,
		mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns,
		volume, inode, nlink, rdev_major, rdev_minor, quote(target), flags, quote(content)`
	return []section{
		{dump.TableVolumes, now.Volumes, then.Volumes, "'(%d,''%s'',%d,%s)', id, fstype, fsid, quote(root)",
			"FROM volumes WHERE id > ? AND id <= ? ORDER BY id", nil, "FROM volumes WHERE id = ?"},
		{dump.TablePaths, now.Paths, then.Paths, "'(%d,%d,%s)', id, parent, quote(name)",
			"FROM paths NOT INDEXED WHERE id > ? AND id <= ? ORDER BY id", nil, "FROM paths WHERE id = ?"},
		{dump.TableFiles, now.Files, then.Files, file,
			"FROM files NOT INDEXED WHERE id > ?1 AND id <= ?2 AND set_id = ?3 AND (end_run IS NULL OR gap AND first_run = ?4) ORDER BY id",
			[]any{d.content.Set, d.content.Seq}, "FROM files WHERE id = ?"},
		{dump.TableXattrs, now.Files, then.Files, "'(%d,%s,%s)', file, quote(name), quote(value)",
			"FROM xattrs WHERE file > ? AND file <= ? ORDER BY file, name", nil, "FROM xattrs WHERE file = ? ORDER BY name"},
		{dump.TableContents, now.Contents, then.Contents, "'(%d)', id",
			"FROM contents WHERE id > ? AND id <= ? ORDER BY id", nil, "FROM contents WHERE id = ?"},
		{dump.TableFileChunks, now.Contents, then.Contents, "'(%d,%d,%d,%s)', content, offset, length, quote(chunk)",
			"FROM file_chunks WHERE content > ? AND content <= ? ORDER BY content, offset", nil, "FROM file_chunks WHERE content = ? ORDER BY offset"},
		{dump.TableChunks, now.Chunks, then.Chunks, "'(%d,%s,%d)', id, quote(hash), size",
			"FROM chunks WHERE id > ? AND id <= ? ORDER BY id", nil, "FROM chunks WHERE id = ?"},
		{dump.TableBlobs, now.Blobs, then.Blobs,
			"'(%d,%s,%d,%d,%d,%s,%d,%d)', id, quote(hash), seq, size, header, quote(recipients), level, upload_ms",
			"FROM blobs NOT INDEXED WHERE id > ? AND id <= ? ORDER BY id", nil, "FROM blobs WHERE id = ?"},
		{dump.TableBlobChunks, now.Chunks, then.Chunks,
			"'(%d,%d,%d,%d,%d,%d)', chunk, blob, frame_offset, frame_length, offset, length",
			"FROM blob_chunks WHERE chunk > ? AND chunk <= ? ORDER BY chunk", nil, "FROM blob_chunks WHERE chunk = ?"},
	}
}

// query is the beginning of both: a row's key, the blob that it is about, and
// its text.
func (t *section) query() string {
	blob := "0"
	if t.table == dump.TableBlobChunks {
		blob = "blob"
	}
	return "SELECT " + t.table.Key() + ", " + blob + ", format(" + t.text + ") "
}

// rowWriter passes rows on, and of blob_chunks, for every chunk, the one place
// to read it from, by the same choice that the Contents were collected by.
type rowWriter struct {
	*dumping
	*section
	emit func(row []byte) error
	at   int64
	best *liveBlob
	text []byte
}

func (w *rowWriter) row(scan func(...any) error) error {
	var key, blob int64
	var text sql.RawBytes
	if err := scan(&key, &blob, &text); err != nil || !w.rows.Has(key) {
		return err
	}
	if w.table != dump.TableBlobChunks {
		return w.emit(text)
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
	return w.emit(w.text)
}

// rangeText is the text of the rows in a range of keys.
type rangeText struct {
	sqlite.Keys
	batches  chan *rowBatch // closed at the end
	complete bool           // valid then
}

// rowBatch is the text of some rows.
type rowBatch struct {
	text []byte
	ends []int // where in it each row ends
}

const (
	batchBytes   = 128 << 10 // at which a batch is passed on
	rangeBatches = 8         // how many a reader may be ahead; most ranges are no longer
)

// each calls f for every row and empties the batch.
func (b *rowBatch) each(f func(row []byte) error) error {
	start := 0
	for _, end := range b.ends {
		if err := f(b.text[start:end]); err != nil {
			return err
		}
		start = end
	}
	b.text, b.ends = b.text[:0], b.ends[:0]
	return nil
}

// makeText makes the text of the rows in a range.
func (d *dumping) makeText(ctx context.Context, s *sqlite.Reader, t *section, r *rangeText) error {
	defer close(r.batches)
	var b *rowBatch
	pass := func() error {
		select {
		case r.batches <- b:
			b = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w := rowWriter{dumping: d, section: t, emit: func(row []byte) error {
		if b == nil {
			if b, _ = d.batches.Get().(*rowBatch); b == nil {
				b = &rowBatch{}
			}
		}
		b.text = append(b.text, row...)
		b.ends = append(b.ends, len(b.text))
		if len(b.text) < batchBytes {
			return nil
		}
		return pass()
	}}
	err := s.Each(ctx, t.query()+t.from, append([]any{r.After, r.UpTo}, t.args...), w.row)
	if err == nil {
		err = w.flush()
	}
	if err == nil && b != nil {
		err = pass()
	}
	r.complete = err == nil
	return err
}

// owners calls f with those of files that have extended attributes.
func owners(s *sqlite.Reader, files iter.Seq[int64], f func(iter.Seq[int64]) error) error {
	p, err := s.Prepare("SELECT 1 FROM xattrs WHERE file = ? LIMIT 1")
	if err != nil {
		return err
	}
	defer p.Close()
	var failed error
	err = f(func(yield func(int64) bool) {
		for id := range files {
			has := false
			if failed = p.Each(func([]driver.Value) error { has = true; return nil }, id); failed != nil {
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
