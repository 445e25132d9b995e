package snapshot

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// Move is a chunk that is stored, but should be uploaded again, and where in
// the source its content was when this run looked.
type Move struct {
	Chunk  int64 // of chunks
	Hash   [32]byte
	Size   int64 // bytes
	Path   int64 // of a file whose content it is part of
	Offset int64 // bytes in the file
}

// MoveOut says which chunks are meant.
type MoveOut int

// The reasons to upload again what is stored.
const (
	OutOfRetired MoveOut = iota // out of blobs that Clean retired
	OutOfFormer                 // of a spread run: out of blobs that only former recipients can read
)

const (
	movesAtOnce = 128 << 10 // some 100 bytes of memory each
)

// toMove reports whether what a blob holds is to be moved.
func (r *Run) toMove(b *liveBlob) bool {
	if !b.current {
		return r.Spread
	}
	return b.retired
}

// out is why a blob's chunks move.
func (b *liveBlob) out() MoveOut {
	if !b.current {
		return OutOfFormer
	}
	return OutOfRetired
}

// moving is what a snapshot needs of blobs whose chunks are to be moved.
type moving map[int64]amount

type amount struct{ bytes, chunks int64 }

func (m *moving) add(blob, size int64) {
	if *m == nil {
		*m = moving{}
	}
	a := (*m)[blob]
	(*m)[blob] = amount{a.bytes + size, a.chunks + 1}
}

func (m *moving) merge(o moving) {
	for blob, b := range o {
		if *m == nil {
			*m = moving{}
		}
		a := (*m)[blob]
		(*m)[blob] = amount{a.bytes + b.bytes, a.chunks + b.chunks}
	}
}

// Moves names chunks that are to be uploaded again, in the order of paths and
// offsets. Blobs are emptied one after the other, beginning behind the blob after
// (0 for the first), as long as what is needed of them has no more than limit
// bytes; but always one. last is the last of them, 0 if there is none.
func (f *Contents) Moves(ctx context.Context, out MoveOut, after, limit int64) (moves []Move, last int64, err error) {
	var chosen idset.Set
	if chosen, last = f.chooseMoving(out, after, limit); last == 0 {
		return nil, 0, nil
	}
	if err := f.Commit(); err != nil { // readers see what is committed
		return nil, 0, err
	}
	readers, err := sqlite.OpenReaders(f.Path)
	if err != nil {
		return nil, 0, err
	}
	p := &movePlan{Contents: f, blobs: chosen, moves: map[int64]*Move{}, contents: map[int64]int64{}}
	moves, err = p.find(ctx, readers)
	return moves, last, errors.Join(err, readers.Close())
}

// chooseMoving chooses the blobs to be emptied.
func (f *Contents) chooseMoving(out MoveOut, after, limit int64) (chosen idset.Set, last int64) {
	var ids []int64
	for id := range f.moving {
		if id > after && f.liveBlobs[id].out() == out {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var all amount
	for _, id := range ids {
		a := f.moving[id]
		all.bytes += a.bytes
		all.chunks += a.chunks
		if last != 0 && (all.bytes > limit || all.chunks > movesAtOnce) {
			break
		}
		chosen.Add(id)
		last = id
	}
	return chosen, last
}

// Former is how many bytes of blobs that only former recipients can read the
// snapshot needs.
func (f *Contents) Former() (bytes int64) {
	for id := range f.moving {
		if b := f.liveBlobs[id]; !b.current {
			bytes += b.Size
		}
	}
	return bytes
}

// movePlan finds the chunks of some blobs, and a place in a file for each.
type movePlan struct {
	*Contents
	blobs    idset.Set
	moves    map[int64]*Move // by chunk
	contents map[int64]int64 // content → the path of a file, 0 until it is found
}

// find reads backwards what collect read: chunks, then contents, then files.
func (p *movePlan) find(ctx context.Context, rs sqlite.Readers) ([]Move, error) {
	chunks := make([][]Move, len(rs))
	err := rs.Sweep(ctx, p.LastChunk, func(ctx context.Context, n int, s *sqlite.Reader, k sqlite.Keys) error {
		return p.findChunks(ctx, s, k, &chunks[n])
	})
	if err != nil {
		return nil, err
	}
	for _, found := range chunks {
		for i := range found {
			p.moves[found[i].Chunk] = &found[i]
		}
	}
	type piece struct{ content, chunk, offset int64 }
	pieces := make([][]piece, len(rs))
	err = rs.Sweep(ctx, p.LastContent, func(ctx context.Context, n int, s *sqlite.Reader, k sqlite.Keys) error {
		return s.Each(ctx, "SELECT content, offset, chunk FROM file_chunks WHERE content > ? AND content <= ? AND chunk IS NOT NULL",
			[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
				var c piece
				err := scan(&c.content, &c.offset, &c.chunk)
				if p.Contents.Contents.Has(c.content) && p.moves[c.chunk] != nil {
					pieces[n] = append(pieces[n], c)
				}
				return err
			})
	})
	if err != nil {
		return nil, err
	}
	in := map[int64]int64{} // chunk → content
	for _, found := range pieces {
		for _, c := range found {
			if best, ok := in[c.chunk]; !ok || c.content < best {
				in[c.chunk], p.moves[c.chunk].Offset = c.content, c.offset
			}
		}
	}
	for _, content := range in {
		p.contents[content] = 0
	}
	if err := p.findFiles(ctx, rs[0]); err != nil {
		return nil, err
	}
	var moves []Move
	for chunk, m := range p.moves {
		if m.Path = p.contents[in[chunk]]; m.Path != 0 {
			moves = append(moves, *m)
		}
	}
	slices.SortFunc(moves, func(a, b Move) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Offset, b.Offset)) })
	return moves, nil
}

// findChunks finds the chunks that are read from one of the blobs.
func (p *movePlan) findChunks(ctx context.Context, s *sqlite.Reader, k sqlite.Keys, to *[]Move) error {
	var at, size int64
	var best *liveBlob
	var found []Move
	choose := func() {
		if best != nil && p.blobs.Has(best.id) && p.Chunks.Has(at) {
			found = append(found, Move{Chunk: at, Size: size})
		}
	}
	err := s.Each(ctx, "SELECT chunk, blob, length FROM blob_chunks WHERE chunk > ? AND chunk <= ? ORDER BY chunk",
		[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
			var chunk, blob, length int64
			if err := scan(&chunk, &blob, &length); err != nil {
				return err
			}
			if chunk != at {
				choose()
				at, best = chunk, nil
			}
			size = length
			if b := p.liveBlobs[blob]; b.better(best) {
				best = b
			}
			return nil
		})
	choose()
	if err != nil {
		return err
	}
	hash, err := s.Prepare("SELECT hash FROM chunks WHERE id = ?")
	if err != nil {
		return err
	}
	for i := range found {
		err := hash.EachScan(ctx, []any{found[i].Chunk}, func(scan func(...any) error) error {
			var b []byte
			err := scan(&b)
			copy(found[i].Hash[:], b)
			return err
		})
		if err != nil {
			return errors.Join(err, hash.Close())
		}
	}
	*to = append(*to, found...)
	return hash.Close()
}

// findFiles finds for each of the contents a file of the snapshot that has it.
func (p *movePlan) findFiles(ctx context.Context, s *sqlite.Reader) error {
	return s.Each(ctx, "SELECT path, content FROM files NOT INDEXED WHERE set_id = ? AND end_run IS NULL AND content IS NOT NULL",
		[]any{p.Set}, func(scan func(...any) error) error {
			var path, content int64
			if err := scan(&path, &content); err != nil {
				return err
			}
			if known, ok := p.contents[content]; ok && known == 0 && p.Shows(path, false) {
				p.contents[content] = path
			}
			return nil
		})
}
