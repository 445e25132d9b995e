package metastore

import (
	"database/sql/driver"
	"errors"
)

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

// relate looks for rows, each fine by itself, that refer to nothing or to
// something else than they say, and sums up contents.
func (b *builder) relate() error {
	for _, check := range []func() error{b.relatePieces, b.relatePlaces, b.relateXattrs} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func unrelated(t Table, key int64, wrong string) error {
	return bad("%s with %s %d: %s", t, t.Key(), key, wrong)
}

// relatePieces goes through the pieces of all contents.
func (b *builder) relatePieces() error {
	pieces, contents, chunks := b.pieces.cursor(b.ctx), b.contents.cursor(b.ctx), b.chunks.reader()
	var size packedRow // of the content at hand
	for {
		r, err := pieces.next()
		if err != nil {
			return err
		}
		if r == nil || r.first != size.first {
			if size.first != 0 {
				if _, err := b.sizes.put(&size); err != nil {
					return err
				}
			}
			if r == nil {
				return b.sizes.finish()
			}
			size = packedRow{packedKey: packedKey{first: r.first}}
			if content, err := contents.reach(r.first); err != nil {
				return err
			} else if content == nil {
				return unrelated(TableFileChunks, r.first, "its content does not exist")
			}
		}
		length, chunk := r.n[0], r.n[1]
		size.n[0] += length // tile has seen to it that this is below 2^63
		if chunk == 0 {
			continue
		}
		size.n[1] += (length + blockSize - 1) / blockSize
		c, found, err := chunks.get(packedKey{first: chunk})
		if err != nil {
			return err
		}
		if !found || c.n[0] != length {
			return unrelated(TableFileChunks, r.first, "its chunk does not exist or has another size")
		}
	}
}

// relatePlaces goes through the places of all chunks.
//
// An age payload is a nonce and pieces of 64 KiB, the last of which may be
// shorter, with a tag each.
func (b *builder) relatePlaces() error {
	places, chunks := b.places.cursor(b.ctx), b.chunks.cursor(b.ctx)
	get, err := prepare(b.conn, "SELECT size, header FROM main.blobs WHERE id = ?")
	if err != nil {
		return err
	}
	defer get.stmt.Close()
	var blob, plain int64 // looked up last, and the size of its payload
	for {
		r, err := places.next()
		if err != nil || r == nil {
			return err
		}
		c, err := chunks.reach(r.first)
		if err != nil {
			return err
		}
		if c == nil || c.n[0] != r.n[4] {
			return unrelated(TableBlobChunks, r.first, "its chunk does not exist or has another size")
		}
		if r.n[0] != blob {
			blob, plain = r.n[0], 0
			if err := get.each(func(row []driver.Value) error {
				sealed := row[0].(int64) - row[1].(int64) - ageNonce
				plain = sealed - agePieceTag*((sealed+agePiece-1)/agePiece)
				return nil
			}, blob); err != nil {
				return err
			}
		}
		if r.n[1]+r.n[2] > plain {
			return unrelated(TableBlobChunks, r.first, "its blob does not exist or ends before the frame does")
		}
	}
}

// relateXattrs goes through all files with extended attributes.
func (b *builder) relateXattrs() error {
	files := b.fileIDs.cursor(b.ctx)
	s, err := prepare(b.conn, "SELECT DISTINCT file FROM main.xattrs ORDER BY file")
	if err != nil {
		return err
	}
	err = s.each(func(row []driver.Value) error {
		id := row[0].(int64)
		file, err := files.reach(id)
		if err == nil && file == nil {
			err = unrelated(TableXattrs, id, "its file does not exist")
		}
		return err
	})
	return errors.Join(err, s.stmt.Close())
}
