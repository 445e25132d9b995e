package view

import (
	"context"
	"fmt"
	"math"

	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

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
