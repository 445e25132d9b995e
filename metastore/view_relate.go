package metastore

import (
	"database/sql/driver"
	"errors"
	"fmt"
)

// relations are what must not be found among rows that are each fine by
// themselves. Each query yields the key of an offending row.
//
// The last: an age payload is a nonce and pieces of 64 KiB, the last of which
// may be shorter, with a tag each.
var relations = []struct {
	table Table
	query string
	wrong string
}{
	{TableFileChunks, `SELECT content FROM stage.sizes WHERE content NOT IN (SELECT id FROM stage.contents) LIMIT 1`,
		"its content does not exist"},
	{TableFileChunks, `SELECT content FROM main.file_chunks f LEFT JOIN main.chunks c ON c.id = f.chunk
		WHERE f.chunk IS NOT NULL AND c.size IS NOT f.length LIMIT 1`,
		"its chunk does not exist or has another size"},
	{TableXattrs, `SELECT file FROM main.xattrs WHERE file NOT IN (SELECT id FROM stage.files) LIMIT 1`,
		"its file does not exist"},
	{TableBlobChunks, `SELECT l.chunk FROM main.blob_chunks l LEFT JOIN main.chunks c ON c.id = l.chunk
		WHERE c.size IS NOT l.length LIMIT 1`,
		"its chunk does not exist or has another size"},
	{TableBlobChunks, fmt.Sprintf(`SELECT l.chunk FROM main.blob_chunks l
		LEFT JOIN (SELECT id, size - header - %[1]d AS sealed FROM main.blobs) b ON b.id = l.blob
		WHERE b.id IS NULL OR l.frame_offset + l.frame_length > b.sealed - %[3]d * ((b.sealed + %[2]d - 1) / %[2]d) LIMIT 1`,
		ageNonce, agePiece, agePieceTag),
		"its blob does not exist or ends before the frame does"},
	{TableFiles, `SELECT f.id FROM stage.files f LEFT JOIN stage.contents c ON c.id = f.content
		WHERE f.content IS NOT NULL AND c.id IS NULL LIMIT 1`,
		"its content does not exist"},
}

// compare says in which number a dump differs from what was signed.
func (t Totals) compare(signed Totals) error {
	for _, n := range []struct {
		what      string
		got, want int64
	}{
		{"files", t.Files, signed.Files},
		{"bytes", t.Bytes, signed.Bytes},
		{"volumes", t.Volumes, signed.Volumes},
		{"paths", t.Paths, signed.Paths},
		{"xattrs", t.Xattrs, signed.Xattrs},
		{"contents", t.Contents, signed.Contents},
		{"file_chunks", t.FileChunks, signed.FileChunks},
		{"chunks", t.Chunks, signed.Chunks},
		{"blobs", t.Blobs, signed.Blobs},
		{"blob_chunks", t.BlobChunks, signed.BlobChunks},
	} {
		if n.got != n.want {
			return bad("it has %d %s, signed were %d", n.got, n.what, n.want)
		}
	}
	return nil
}

// relate sums up contents and looks for rows that refer to nothing.
func (b *builder) relate() error {
	if _, err := b.conn.ExecContext(b.ctx, fmt.Sprintf(`INSERT INTO stage.sizes
		SELECT content, sum(length), sum(CASE WHEN chunk IS NULL THEN 0 ELSE (length + %d - 1) / %[1]d END)
		FROM main.file_chunks GROUP BY content`, blockSize), nil); err != nil {
		return err
	}
	for _, r := range relations {
		s, err := prepare(b.conn, r.query)
		if err != nil {
			return err
		}
		err = s.each(func(row []driver.Value) error {
			return bad("%s with %s %d: %s", r.table, r.table.Key(), row[0], r.wrong)
		})
		if err = errors.Join(err, s.stmt.Close(), b.ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
