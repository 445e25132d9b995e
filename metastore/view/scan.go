package view

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// Blobs calls each for every blob that the snapshot's dump names, by id.
func (v *View) Blobs(ctx context.Context, each func(id int64, b BlobInfo) error) error {
	type row struct {
		id int64
		BlobInfo
	}
	for after, batch := int64(0), []row(nil); ; after = batch[len(batch)-1].id {
		batch = batch[:0]
		rows, err := v.db.QueryContext(ctx, "SELECT id, hash, seq, size, header FROM blobs WHERE id > ? ORDER BY id LIMIT 1024", after)
		if err == nil {
			err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
				var r row
				var hash sql.RawBytes
				err := scan(&r.id, &hash, &r.Seq, &r.Size, &r.Header)
				copy(r.Hash[:], hash)
				batch = append(batch, r)
				return err
			})
		}
		if err != nil {
			return v.fail("list blobs", err)
		}
		if len(batch) == 0 {
			return nil
		}
		for _, r := range batch {
			if err := each(r.id, r.BlobInfo); err != nil {
				return err
			}
		}
	}
}

// Upload is a blob that the snapshot's dump names, as the run recorded it that
// uploaded it.
type Upload struct {
	ID int64
	BlobInfo
	Recipients [32]byte // the recipient set
	Level      int64    // of compression
	UploadMS   int64    // how long the upload took
}

// Uploads calls each for every blob in the order in which they were uploaded.
func (v *View) Uploads(ctx context.Context, each func(*Upload) error) error {
	// Blobs' ids are in that order.
	rows, err := v.db.QueryContext(ctx, "SELECT id, hash, seq, size, header, recipients, level, upload_ms FROM blobs ORDER BY seq, id")
	if err == nil {
		err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
			var u Upload
			var hash, recipients sql.RawBytes
			if err := scan(&u.ID, &hash, &u.Seq, &u.Size, &u.Header, &recipients, &u.Level, &u.UploadMS); err != nil {
				return err
			}
			copy(u.Hash[:], hash)
			copy(u.Recipients[:], recipients)
			return each(&u)
		})
	}
	return v.fail("read blobs", err)
}

// Volume is a mounted file system that entries were on.
type Volume struct {
	ID     int64 // what File.Volume calls it
	FSType string
	FSID   uint64
	Root   string // within the file system
}

// Volumes calls each for every volume.
func (v *View) Volumes(ctx context.Context, each func(*Volume) error) error {
	rows, err := v.db.QueryContext(ctx, "SELECT id, fstype, fsid, root FROM volumes")
	if err == nil {
		err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
			var u Volume
			var fsid int64
			if err := scan(&u.ID, &u.FSType, &fsid, &u.Root); err != nil {
				return err
			}
			u.FSID = uint64(fsid)
			return each(&u)
		})
	}
	return v.fail("read volumes", err)
}

// StoredChunk is a chunk that the snapshot's dump names, and where it is.
type StoredChunk struct {
	ID                       int64 // what ContentPiece calls it
	Hash                     [32]byte
	Size                     int64 // bytes
	BlobID                   int64 // for View.Blob; 0 if no blob holds it, and nothing of what follows is set then
	FrameOffset, FrameLength int64 // bytes, in the blob's decrypted stream
	FrameStart               int64 // where the chunk begins in the decompressed frame
}

// Chunks calls each for every chunk, by id. It goes through the tables once,
// half a microsecond a chunk.
func (v *View) Chunks(ctx context.Context, each func(*StoredChunk) error) error {
	chunks, places := v.scan(ctx, &layout.Chunks), v.scan(ctx, &layout.Places)
	place, err := places.next()
	if err != nil {
		return v.fail("list chunks", err)
	}
	for {
		r, err := chunks.next()
		if err != nil {
			return v.fail("list chunks", err)
		}
		if r == nil {
			return nil
		}
		c := StoredChunk{ID: r.First, Hash: r.Hash, Size: r.N[0]}
		for place != nil && place.First < c.ID {
			if place, err = places.next(); err != nil {
				return v.fail("list chunks", err)
			}
		}
		if place != nil && place.First == c.ID {
			c.BlobID, c.FrameOffset, c.FrameLength, c.FrameStart = place.N[0], place.N[1], place.N[2], place.N[3]
		}
		if err := each(&c); err != nil {
			return err
		}
	}
}

// ContentPiece is a piece of a content: Length bytes from Offset on.
type ContentPiece struct {
	Content, Offset, Length int64
	Chunk                   int64 // StoredChunk.ID; 0 for a hole
}

// ContentPieces calls each for every piece of every content, by content and
// offset.
func (v *View) ContentPieces(ctx context.Context, each func(ContentPiece) error) error {
	pieces := v.scan(ctx, &layout.Pieces)
	for {
		r, err := pieces.next()
		if err != nil {
			return v.fail("list contents", err)
		}
		if r == nil {
			return nil
		}
		if err := each(ContentPiece{r.First, r.Second, r.N[0], r.N[1]}); err != nil {
			return err
		}
	}
}

// scanned is how many pages are read with one query: no query lasts while
// somebody else is called, who may need the connection.
const scanned = 256

// packedScan goes through the rows of a packed table of a view.
type packedScan struct {
	*layout.Packing
	view *View
	ctx  context.Context

	after []byte // key of the last page that was read
	pages [][]byte
	pageN int          // number of the page at hand, from 0 on
	page  []layout.Row // the page at hand
	rows  []layout.Row // of it, still to come
}

func (v *View) scan(ctx context.Context, p *layout.Packing) *packedScan {
	return &packedScan{Packing: p, view: v, ctx: ctx, after: []byte{}, pageN: -1}
}

// next returns the next row; nil at the end. It is valid until the next call.
func (s *packedScan) next() (*layout.Row, error) {
	if len(s.rows) == 0 {
		if len(s.pages) == 0 {
			if err := s.fill(); err != nil || len(s.pages) == 0 {
				return nil, err
			}
		}
		var err error
		if s.page, err = s.Decode(s.pages[0], s.page[:0]); err != nil {
			return nil, err
		}
		s.pages, s.rows = s.pages[1:], s.page
		s.pageN++
	}
	r := &s.rows[0]
	s.rows = s.rows[1:]
	return r, nil
}

// fill reads pages.
func (s *packedScan) fill() error {
	rows, err := s.view.db.QueryContext(s.ctx, "SELECT first, data FROM "+s.Table+" WHERE first > ? ORDER BY first LIMIT ?", s.after, scanned)
	if err != nil {
		return err
	}
	return sqlite.EachRow(s.ctx, rows, func(scan func(...any) error) error {
		var data []byte
		err := scan(&s.after, &data)
		s.pages = append(s.pages, data)
		return err
	})
}

// errMany: no view that this program makes has so many pages.
var errMany = errors.New("too many pages")

func tooMany(t *layout.Packing, n int) error { return fmt.Errorf("%w: %d of %s", errMany, n, t.Table) }
