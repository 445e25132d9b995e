package metastore

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

const pieceQuery = `SELECT f.content, f.offset, f.length, f.chunk, c.hash, c.size, l.blob, l.frame_offset, l.frame_length, l.offset
	FROM file_chunks f LEFT JOIN chunks c ON c.id = f.chunk LEFT JOIN blob_chunks l ON l.chunk = f.chunk `

// Extents returns the pieces of a file's content that have bytes in
// [off, off+length), whole and in order. There are none past the end of the
// file, nor for an entry without content. The slice is not the caller's.
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
	extents, err := v.extents(ctx, n, off, end)
	if err != nil {
		return nil, v.fail(fmt.Sprintf("read the content list of %q", n.Name), err)
	}
	return extents, nil
}

func (v *View) extents(ctx context.Context, n Node, off, end int64) ([]Extent, error) {
	if n.Size > listedSize {
		_, extents, err := v.pieceRows(ctx, v.pieces, n.Content, off, end)
		return extents, err
	}
	all, known, next := v.listed.get(n.Content)
	switch {
	case known:
	case next:
		contents, extents, err := v.pieceRows(ctx, v.series, n.Content, n.Content+listedSeries)
		if err != nil {
			return nil, err
		}
		if len(contents) == listedPieces && contents[0] == contents[listedPieces-1] {
			_, extents, err := v.pieceRows(ctx, v.pieces, n.Content, off, end)
			return extents, err // it alone has more
		}
		v.listed.put(contents, extents)
		for i := range contents {
			if contents[i] == n.Content {
				all = append(all, extents[i])
			}
		}
	default:
		_, extents, err := v.pieceRows(ctx, v.pieces, n.Content, 0, n.Size)
		if err != nil {
			return nil, err
		}
		all = extents
	}
	for len(all) > 0 && all[0].Offset+all[0].Length <= off {
		all = all[1:]
	}
	for len(all) > 0 && all[len(all)-1].Offset >= end {
		all = all[:len(all)-1]
	}
	return all, nil
}

// pieceRows reads pieces and the contents that they belong to.
func (v *View) pieceRows(ctx context.Context, query *sql.Stmt, args ...any) (contents []int64, extents []Extent, err error) {
	rows, err := query.Query(args...)
	if err != nil {
		return nil, nil, err
	}
	var blobs []int64 // looked up once the rows are closed: they hold a connection
	err = eachRow(ctx, rows, func(scan func(...any) error) error {
		var x Extent
		var hash sql.RawBytes
		var content int64
		var chunk, size, blob, offset, length, start sql.NullInt64
		if err := scan(&content, &x.Offset, &x.Length, &chunk, &hash, &size, &blob, &offset, &length, &start); err != nil {
			return err
		}
		x.Hole, x.ChunkSize = !chunk.Valid, size.Int64
		x.Lost = !x.Hole && !blob.Valid
		copy(x.Chunk[:], hash)
		x.FrameOffset, x.FrameLength, x.FrameStart = offset.Int64, length.Int64, start.Int64
		contents, extents, blobs = append(contents, content), append(extents, x), append(blobs, blob.Int64)
		return nil
	})
	for i, id := range blobs {
		if err == nil && id != 0 {
			extents[i].Blob, err = v.blobInfo(id)
		}
	}
	return contents, extents, err
}

const (
	// listedSize is up to how many bytes a file's pieces are remembered. With
	// chunks of 256 KiB or more it has a few, unless it is full of holes.
	listedSize = 1 << 20
	// listedSeries is how many contents are read at once, listedPieces how many
	// pieces of them at most.
	listedSeries = 64
	listedPieces = 1024
	// maxListed is how many pieces are remembered: 3 MB.
	maxListed = 16384
)

// listedPiecesOf remembers the pieces of small files. Contents are numbered in
// the order of the tree, so whoever asks for one after the other gets a series
// with one query.
type listedPiecesOf struct {
	mu     sync.Mutex
	last   int64 // asked for
	pieces map[int64][]Extent
	count  int
}

// get returns the pieces of a content if they are known. next tells that it
// follows the one that was asked for before.
func (l *listedPiecesOf) get(content int64) (pieces []Extent, known, next bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pieces, known = l.pieces[content]
	next = content > l.last && content-l.last <= 8
	l.last = content
	return pieces, known, next
}

// put remembers the pieces of whole contents: not of the last one, which may
// have been cut off.
func (l *listedPiecesOf) put(contents []int64, extents []Extent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pieces == nil || l.count > maxListed {
		l.pieces, l.count = make(map[int64][]Extent), 0
	}
	for start := 0; start < len(contents); {
		end := start + 1
		for end < len(contents) && contents[end] == contents[start] {
			end++
		}
		if end == len(contents) {
			return
		}
		l.pieces[contents[start]] = extents[start:end:end]
		l.count += end - start
		start = end
	}
}
