package index

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// ContentChunk is a piece of a file.
type ContentChunk struct {
	Offset, Length int64 // bytes in the file
	Chunk          int64 // of chunks; 0 is a hole
}

// Blob describes a blob that arrived in the store.
type Blob struct {
	Hash     [32]byte // SHA-256 of the object
	Size     int64    // bytes of the object
	Header   int64    // bytes of the age header
	Level    int      // of compression
	UploadMS int64    // how long the upload took
}

// BlobChunk says where in a blob a chunk is.
type BlobChunk struct {
	Chunk                    int64 // of chunks
	FrameOffset, FrameLength int64 // bytes in the decrypted stream
	Offset, Length           int64 // bytes in the decompressed frame
}

// Chunk finds or makes the row of a chunk. stored tells that it need not be
// uploaded: a blob that the index counts on holds it, encrypted to exactly
// this run's recipients unless the run is spread, and not retired.
func (r *Run) Chunk(ctx context.Context, hash [32]byte, size int64) (id int64, stored bool, err error) {
	if size <= 0 {
		return 0, false, fmt.Errorf("a chunk cannot have %d bytes", size)
	}
	err = r.add(ctx, "look up a chunk", func(x *Index) error {
		known := size
		c, held := r.fresh[hash]
		if held {
			id, known = c.id, c.size
		} else {
			unknown, err := r.unknown(ctx, &hash)
			if err != nil {
				return err
			}
			found := false
			if !unknown {
				found, err = x.db.Row(`SELECT c.id, c.size, EXISTS (
				SELECT 1 FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE l.chunk = c.id AND b.end_run IS NULL AND b.retired IS NULL AND (b.recipients = ?1 OR ?4))
				FROM prefixes p JOIN chunks c ON c.id = p.chunk WHERE p.prefix = ?2 AND c.hash = ?3`,
					[]any{r.recipients[:], metastore.Prefix(hash), hash[:], r.spread}, &id, &known, &stored)
				if err != nil {
					return err
				}
			}
			if !found {
				id = next(&x.last.chunks)
				r.fresh.add(hash, freshChunk{id, size})
				if r.known != nil {
					r.known.add(&hash)
				} else {
					r.vain++
				}
			}
		}
		if known != size {
			return fmt.Errorf("%w: chunk %x has %d bytes there, not %d", ErrDamaged, hash, known, size)
		}
		return nil
	})
	return id, stored, err
}

// freshChunks are chunks that have an id and no row yet. They are written
// many at a time and sorted, so that each page of prefixes is met once a time
// and not once a chunk.
type freshChunks map[[32]byte]freshChunk

type freshChunk struct{ id, size int64 }

func (f *freshChunks) add(hash [32]byte, c freshChunk) {
	if *f == nil {
		*f = freshChunks{}
	}
	(*f)[hash] = c
}

// write makes rows of the chunks.
func (f freshChunks) write(x *Index, held *bulks) error {
	if len(f) == 0 {
		return nil
	}
	type row struct {
		freshChunk
		hash [32]byte
	}
	rows := make([]row, 0, len(f))
	for hash, c := range f {
		rows = append(rows, row{c, hash})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.id, b.id) })
	for i := range rows {
		if err := x.db.Add(&held.chunks, rows[i].id, rows[i].hash[:], rows[i].size); err != nil {
			return err
		}
	}
	if err := x.db.Flush(&held.chunks); err != nil { // they refer to rows, which move
		return err
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	for i := range rows {
		if err := x.db.Add(&held.prefixes, metastore.Prefix(rows[i].hash), rows[i].id); err != nil {
			return err
		}
	}
	clear(f)
	return x.db.Flush(&held.prefixes) // chunks are looked up any time
}

// Content finds or makes the content that consists of chunks, which tile it
// from offset 0; none of them is the empty content. Their ids and lengths have
// to be what Chunk was told and said. Only like, if it is not 0, is compared:
// what the file had before, most likely.
func (r *Run) Content(ctx context.Context, chunks []ContentChunk, like int64) (id int64, err error) {
	var size int64
	for _, c := range chunks {
		if c.Offset != size || c.Length <= 0 {
			return 0, fmt.Errorf("a piece of %d bytes at %d does not continue content that ends at %d", c.Length, c.Offset, size)
		}
		size += c.Length
	}
	err = r.add(ctx, "record content", func(x *Index) error {
		if like != 0 {
			if err := x.db.Flush(&r.held.contents, &r.held.fileChunks); err != nil {
				return err
			}
			same, err := x.sameContent(ctx, like, chunks, size)
			if err != nil {
				return err
			}
			if same {
				id, r.lastID, r.lastSize = like, like, size
				return nil
			}
		}
		id = next(&x.last.contents)
		if err := x.db.Add(&r.held.contents, id, size); err != nil {
			return err
		}
		for _, c := range chunks {
			chunk := sql.NullInt64{Int64: c.Chunk, Valid: c.Chunk != 0}
			if err := x.db.Add(&r.held.fileChunks, id, c.Offset, c.Length, chunk); err != nil {
				return err
			}
		}
		r.lastID, r.lastSize = id, size
		return nil
	})
	return id, err
}

func (x *Index) sameContent(ctx context.Context, id int64, chunks []ContentChunk, size int64) (bool, error) {
	var known int64
	found, err := x.db.Row("SELECT size FROM contents WHERE id = ?", []any{id}, &known)
	if err != nil || !found || known != size {
		return false, err
	}
	i, same := 0, true
	err = x.db.Each(ctx, "SELECT offset, length, chunk FROM file_chunks WHERE content = ? ORDER BY offset", []any{id},
		func(scan func(...any) error) error {
			var c ContentChunk
			var chunk sql.NullInt64
			if err := scan(&c.Offset, &c.Length, &chunk); err != nil {
				return err
			}
			c.Chunk = chunk.Int64
			same = same && i < len(chunks) && c == chunks[i]
			i++
			return nil
		})
	return same && i == len(chunks), err
}

// AddBlob records a blob that arrived in the store under this run's seq, with
// the chunks that it holds. When AddBlob returns, that survives the end of the
// process, and a rollback. A power cut may undo it, which only means that the
// chunks are uploaded once more and the blob is deleted by a later prune.
func (r *Run) AddBlob(ctx context.Context, b Blob, chunks []BlobChunk) error {
	return r.write(ctx, "record a blob", func(x *Index) error {
		var id int64
		// A blob that this run has lost again may well be put again.
		_, err := x.db.Row(`INSERT INTO blobs (hash, seq, size, header, recipients, level, upload_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (seq, hash) DO UPDATE SET end_run = NULL RETURNING id`,
			[]any{b.Hash[:], r.seq, b.Size, b.Header, r.recipients[:], b.Level, b.UploadMS}, &id)
		if err != nil {
			return err
		}
		for _, c := range chunks {
			if err := x.db.Add(&r.held.blobChunks, c.Chunk, id, c.FrameOffset, c.FrameLength, c.Offset, c.Length); err != nil {
				return err
			}
		}
		r.changes++
		return r.commit()
	})
}

// Blobs returns all blobs that the index counts on: what the newest manifest
// references or pins, and what was uploaded since.
func (r *Run) Blobs(ctx context.Context) (blobs []metastore.BlobRef, err error) {
	err = r.read(ctx, "list the blobs", func(x *Index) error {
		return x.db.Each(ctx, "SELECT seq, hash, size FROM blobs WHERE end_run IS NULL ORDER BY seq, hash", nil,
			func(scan func(...any) error) error {
				var b metastore.BlobRef
				var hash sql.RawBytes
				if err := scan(&b.Seq, &hash, &b.Size); err != nil {
					return err
				}
				copy(b.Hash[:], hash)
				blobs = append(blobs, b)
				return nil
			})
	})
	return blobs, err
}

// LoseBlob says that a blob is not in the store, or not as it should be. Its
// chunks are missing then unless another blob has them. A rollback does not
// bring it back.
func (r *Run) LoseBlob(ctx context.Context, seq int64, hash [32]byte) error {
	return r.write(ctx, "note a lost blob", func(x *Index) error {
		_, n, err := x.db.Exec("UPDATE blobs SET end_run = ? WHERE seq = ? AND hash = ? AND end_run IS NULL", r.seq, seq, hash[:])
		if n > 0 {
			r.changes++
		}
		return err
	})
}
