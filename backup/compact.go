package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"git.eeqj.de/sneak/vaultik/backup/scan"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/clean"
	"git.eeqj.de/sneak/vaultik/metastore/index/snapshot"
	"git.eeqj.de/sneak/vaultik/remote"
)

// clean lets the index drop what purged snapshots leave behind, and retire
// blobs of which little is needed any more.
func (w *writer) clean(ctx context.Context) error {
	done, err := w.Index.Clean(ctx, clean.Limits{Rows: clean.DefaultRows, Retire: w.CompactPerRun})
	if err != nil {
		return err
	}
	w.result.Retired, w.result.RetiredBytes = done.Retired, done.Bytes
	return nil
}

// moveRounds is how often chunks to be moved are looked for in a run, should
// some of those found before not be where the snapshot has them.
const moveRounds = 4

// move uploads again what lies in retired blobs, or in blobs of former
// recipients, so that the next prune, or the one after the last old snapshot
// goes, can delete them. Chunks are read from the source at the very place
// where this run has just found them, and count only if their hash is right.
// Whatever cannot be had stays in the blob it is in: nothing is lost by it, and
// the snapshot is no less complete.
func (w *writer) move(ctx context.Context) error {
	for _, m := range []struct {
		out   snapshot.MoveOut
		limit int64
	}{
		{snapshot.OutOfRetired, w.CompactPerRun},
		{snapshot.OutOfFormer, w.ResealPerRun},
	} {
		var after int64
		left := m.limit
		for range moveRounds {
			// A blob is emptied at least, and what is left may be less than that.
			if left <= m.limit/2 && after != 0 || left <= 0 {
				break
			}
			moves, last, err := w.run.Moves(ctx, m.out, after, left)
			if err != nil {
				return err
			}
			if last == 0 {
				break
			}
			before := w.tally.moved.Load()
			err = w.pipeline(ctx, func(ctx context.Context, out *queue) error { return w.moveAll(ctx, moves, out) })
			if err != nil {
				return err
			}
			left -= w.tally.moved.Load() - before
			after = last
		}
	}
	return nil
}

// moveAll sends a job for every file that chunks are read from.
func (w *writer) moveAll(ctx context.Context, moves []snapshot.Move, out *queue) error {
	at := source.NewDescent(w.Source)
	defer at.Close()
	for len(moves) > 0 {
		n := 1
		for n < len(moves) && moves[n].Path == moves[0].Path {
			n++
		}
		names, err := w.run.Components(ctx, moves[0].Path)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			if err := w.moveFile(ctx, at, names, moves[:n], out); err != nil {
				return err
			}
		}
		moves = moves[n:]
	}
	return nil
}

func (w *writer) moveFile(ctx context.Context, at *source.Descent, names []string, moves []snapshot.Move, out *queue) error {
	dir, err := at.To(ctx, names[:len(names)-1])
	if err != nil {
		return ctx.Err() // gone, or closed to us: what it holds stays where it is
	}
	e, err := dir.Entry(ctx, names[len(names)-1])
	if err != nil || e.Err != nil || e.Type != metastore.Regular {
		return ctx.Err()
	}
	return out.put(ctx, &job{Item: scan.Item{Dir: dir, Entry: e, Where: "/" + strings.Join(names, "/")}, moves: moves})
}

// moves reads chunks that are stored already, each by its place in the file,
// and sends those that are what they were.
func (r *reader) moves(ctx context.Context, j *job) error {
	f, err := j.Dir.Open(ctx, j.Entry)
	if err != nil {
		return ctx.Err()
	}
	defer f.Close() // opened for reading: nothing to lose
	for _, m := range j.moves {
		if err := r.queue.take(ctx, j, m.Size); err != nil {
			return err
		}
		data := r.buffers.get(int(m.Size))[:m.Size]
		n, _ := f.ReadAt(data, m.Offset) // what cannot be read has another hash
		r.tally.read.Add(int64(n))
		if remote.Sum(data[:n]) != m.Hash {
			r.queue.give(m.Size)
			r.buffers.put(data)
			continue
		}
		if err := send(ctx, j.pieces, piece{chunk: m.Chunk, length: m.Size, hash: m.Hash, data: data}); err != nil {
			return err
		}
	}
	return nil
}

// moves packs the chunks that the reader sends.
func (p *packer) moves(ctx context.Context, j *job) error {
	for {
		pc, err := receive(ctx, j.pieces)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = p.store(ctx, pc.chunk, pc, &p.tally.moved)
		p.queue.give(pc.length)
		if err != nil {
			return fmt.Errorf("pack a chunk of %q: %w", j.Where, err)
		}
	}
}
