package view

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// packed readies the look-ups in packed tables.
func (v *View) packed(ctx context.Context) error {
	for _, t := range []struct {
		to *layout.Reader
		*layout.Packing
	}{{&v.pieces, &layout.Pieces}, {&v.chunks, &layout.Chunks}, {&v.places, &layout.Places}} {
		s, err := v.db.PrepareContext(ctx, "SELECT data FROM "+t.Table+" WHERE first <= ? ORDER BY first DESC LIMIT 1")
		if err != nil {
			return err
		}
		t.to.Packing = t.Packing
		t.to.Load = func(key []byte) (data []byte, err error) {
			if err = s.QueryRow(key).Scan(&data); errors.Is(err, sql.ErrNoRows) {
				return nil, nil
			}
			return data, err
		}
	}
	return nil
}

// Extents returns the pieces of a file's content that have bytes in
// [off, off+length), whole and in order. There are none past the end of the
// file, nor for an entry without content.
func (v *View) Extents(ctx context.Context, n Node, off, length int64) ([]Extent, error) {
	if n.Content == 0 || length <= 0 || off < 0 || off >= n.Size {
		return nil, ctx.Err()
	}
	end := n.Size
	if length < n.Size-off {
		end = off + length
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	extents, err := v.extents(n.Content, off, end)
	if err != nil {
		return nil, v.fail(fmt.Sprintf("read the content list of %q", n.Name), err)
	}
	return extents, nil
}

func (v *View) extents(content, off, end int64) (extents []Extent, err error) {
	for off < end {
		rows, err := v.pieces.From(layout.Key{First: content, Second: off}, layout.Key{First: content, Second: end})
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 || rows[0].First != content || off-rows[0].Second >= rows[0].N[0] {
			return nil, fmt.Errorf("%w: content %d has no piece with byte %d", layout.ErrDamaged, content, off)
		}
		for i := range rows {
			r := &rows[i]
			x, err := v.extent(r)
			if err != nil {
				return nil, err
			}
			extents, off = append(extents, x), r.Second+r.N[0]
		}
	}
	return extents, nil
}

// extent looks up what a piece consists of, and its blob.
func (v *View) extent(r *layout.Row) (Extent, error) {
	p, err := v.piece(r)
	if err == nil && p.BlobID != 0 {
		p.Blob, err = v.blobInfo(p.BlobID)
	}
	return p.Extent, err
}

// piece looks up what a piece consists of.
func (v *View) piece(r *layout.Row) (p Piece, err error) {
	p.Content, p.Offset, p.Length = r.First, r.Second, r.N[0]
	id := layout.Key{First: r.N[1]}
	if p.Hole = id.First == 0; p.Hole {
		return p, nil
	}
	chunk, found, err := v.chunks.Get(id)
	if err == nil && !found {
		err = fmt.Errorf("%w: chunk %d does not exist", layout.ErrDamaged, id.First)
	}
	if err != nil {
		return p, err
	}
	p.Chunk, p.ChunkSize = chunk.Hash, chunk.N[0]
	place, found, err := v.places.Get(id)
	if err != nil || !found {
		p.Lost = !found
		return p, err
	}
	p.BlobID, p.FrameOffset, p.FrameLength, p.FrameStart = place.N[0], place.N[1], place.N[2], place.N[3]
	return p, nil
}

// Piece is an Extent of one of several contents. Its blob is given by id: what
// is asked for many contents at once is many times the same blob.
type Piece struct {
	Content int64
	BlobID  int64 // for View.Blob; 0 for a hole and for what is lost
	Extent        // without Blob
}

// Pieces calls each for every piece of several contents, as they are named by
// Node.Content, in their order and each content's in order.
func (v *View) Pieces(ctx context.Context, contents []int64, each func(Piece) error) error {
	for i, content := range contents {
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for off := int64(0); ; {
			rows, err := v.pieces.From(layout.Key{First: content, Second: off}, layout.Key{First: content, Second: math.MaxInt64})
			if err != nil {
				return v.fail("read content lists", err)
			}
			if len(rows) == 0 || rows[0].Key != (layout.Key{First: content, Second: off}) {
				break // the end, also of what is empty
			}
			for k := range rows {
				p, err := v.piece(&rows[k])
				if err != nil {
					return v.fail("read content lists", err)
				}
				if err := each(p); err != nil {
					return err
				}
				off = p.Offset + p.Length
			}
		}
	}
	return ctx.Err()
}

// Blob returns what reading the blob takes that a Piece names.
func (v *View) Blob(ctx context.Context, id int64) (BlobInfo, error) {
	if err := ctx.Err(); err != nil {
		return BlobInfo{}, err
	}
	b, err := v.blobInfo(id)
	return b, v.fail(fmt.Sprintf("look up blob %d", id), err)
}
