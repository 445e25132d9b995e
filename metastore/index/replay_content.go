package index

import (
	"context"
	"errors"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// same reports whether an entry is as its open version was, so that nothing
// has to be recorded, not even another place of one of its chunks.
func (t *replaying) same(ctx context.Context, n *view.Node, f *metastore.File, v *Version) (bool, error) {
	then := v.File
	if v.Row == 0 || v.Recheck || v.xattrs != 0 || len(f.Xattrs) != 0 || (then.Content == 0) != (n.Content == 0) {
		return false, nil
	}
	then.Content = f.Content
	if !sameFile(&then, f) || n.Content == 0 {
		return sameFile(&then, f), nil
	}
	same := true
	err := t.view.Pieces(ctx, []int64{n.Content}, func(p view.Piece) (err error) {
		if same {
			same, err = t.known(ctx, v.File.Content, &p)
		}
		return err
	})
	if same && n.Nlink > 1 {
		t.linked[n.Content] = v.File.Content
	}
	return same, err
}

// known reports whether a content has a piece, and the piece's chunk that place.
func (t *replaying) known(ctx context.Context, content int64, p *view.Piece) (known bool, err error) {
	return known, t.run.read(ctx, "look up a piece of a file", func(x *Index) error {
		if p.Hole {
			known, err = x.db.Row("SELECT 1 FROM file_chunks WHERE content = ? AND offset = ? AND length = ? AND chunk IS NULL",
				[]any{content, p.Offset, p.Length}, new(int64))
			return err
		}
		known, err = x.db.Row(`SELECT 1 FROM file_chunks f JOIN chunks c ON c.id = f.chunk WHERE f.content = ?1 AND f.offset = ?2 AND f.length = ?3 AND c.hash = ?4
			AND (?5 = 0 OR EXISTS (SELECT 1 FROM blob_chunks l WHERE l.chunk = c.id AND l.blob = ?5))`,
			[]any{content, p.Offset, p.Length, p.Chunk[:], t.blobs[p.BlobID]}, new(int64))
		return err
	})
}

func (t *replaying) during(s metastore.Time) bool { return s.Sec >= t.from.Sec && s.Sec <= t.to.Sec }

// content finds or makes the content of a file, and notes where its chunks are.
func (t *replaying) content(ctx context.Context, n *view.Node, like int64) (id int64, err error) {
	if id, known := t.linked[n.Content]; known {
		return id, nil
	}
	var pieces []ContentChunk
	err = t.view.Pieces(ctx, []int64{n.Content}, func(p view.Piece) error {
		c := ContentChunk{Offset: p.Offset, Length: p.Length}
		if !p.Hole {
			if c.Chunk, _, err = t.run.Chunk(ctx, p.Chunk, p.ChunkSize); err != nil {
				return err
			}
		}
		pieces = append(pieces, c)
		if p.BlobID == 0 {
			return nil
		}
		blob, known := t.blobs[p.BlobID]
		if !known {
			return errors.New("a chunk is in a blob that is not there")
		}
		return t.run.add(ctx, "record a chunk's place", func(x *Index) error {
			return x.db.Add(&t.run.held.blobChunks, c.Chunk, blob, p.FrameOffset, p.FrameLength, p.FrameStart, p.ChunkSize)
		})
	})
	if err != nil {
		return 0, err
	}
	id, err = t.run.Content(ctx, pieces, like)
	if n.Nlink > 1 {
		t.linked[n.Content] = id
	}
	return id, err
}
