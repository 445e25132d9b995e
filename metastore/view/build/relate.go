package build

import (
	"context"
	"database/sql/driver"
	"errors"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// compare says in which number a dump differs from what was signed.
func compare(t, signed metastore.Totals) error {
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
			return dump.Errorf("it has %d %s, signed were %d", n.got, n.what, n.want)
		}
	}
	return nil
}

// relate looks for rows, each fine by itself, that refer to nothing or to
// something else than they say.
func (b *builder) relate(ctx context.Context) error {
	for _, check := range []func(context.Context) error{b.relatePieces, b.relatePlaces, b.relateXattrs} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

func unrelated(t dump.Table, key int64, wrong string) error {
	return dump.Errorf("%s with %s %d: %s", t, t.Key(), key, wrong)
}

// relatePieces goes through the pieces of all contents.
func (b *builder) relatePieces(ctx context.Context) error {
	pieces, contents, chunks := b.pieces.cursor(ctx), b.contents.cursor(ctx), b.chunks.reader()
	for content := int64(0); ; {
		r, err := pieces.next()
		if err != nil || r == nil {
			return err
		}
		if r.First != content {
			content = r.First
			if found, err := contents.reach(content); err != nil {
				return err
			} else if found == nil {
				return unrelated(dump.TableFileChunks, r.First, "its content does not exist")
			}
		}
		length, chunk := r.N[0], r.N[1]
		if chunk == 0 {
			continue
		}
		c, found, err := chunks.Get(layout.Key{First: chunk})
		if err != nil {
			return err
		}
		if !found || c.N[0] != length {
			return unrelated(dump.TableFileChunks, r.First, "its chunk does not exist or has another size")
		}
	}
}

// relatePlaces goes through the places of all chunks.
func (b *builder) relatePlaces(ctx context.Context) error {
	places, chunks := b.places.cursor(ctx), b.chunks.cursor(ctx)
	get, err := b.conn.Prepare("SELECT size, header FROM main.blobs WHERE id = ?")
	if err != nil {
		return err
	}
	defer get.Close()
	var blob, plain int64 // looked up last, and the size of its payload
	for {
		r, err := places.next()
		if err != nil || r == nil {
			return err
		}
		c, err := chunks.reach(r.First)
		if err != nil {
			return err
		}
		if c == nil || c.N[0] != r.N[4] {
			return unrelated(dump.TableBlobChunks, r.First, "its chunk does not exist or has another size")
		}
		if r.N[0] != blob {
			blob, plain = r.N[0], 0
			if err := get.Each(func(row []driver.Value) error {
				plain = dump.PayloadSize(row[0].(int64), row[1].(int64))
				return nil
			}, blob); err != nil {
				return err
			}
		}
		if r.N[1]+r.N[2] > plain {
			return unrelated(dump.TableBlobChunks, r.First, "its blob does not exist or ends before the frame does")
		}
	}
}

// relateXattrs goes through all files with extended attributes.
func (b *builder) relateXattrs(ctx context.Context) error {
	files := b.fileIDs.cursor(ctx)
	s, err := b.conn.Prepare("SELECT DISTINCT file FROM main.xattrs ORDER BY file")
	if err != nil {
		return err
	}
	err = s.Each(func(row []driver.Value) error {
		id := row[0].(int64)
		file, err := files.reach(id)
		if err == nil && file == nil {
			err = unrelated(dump.TableXattrs, id, "its file does not exist")
		}
		return err
	})
	return errors.Join(err, s.Close())
}
