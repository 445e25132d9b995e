package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm that Chunking names

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/remote"
)

// extents sends the content of f up to size as pieces that tile it, and
// returns how long it turned out to be.
func (r *reader) extents(ctx context.Context, j *job, f source.File, size int64) (int64, error) {
	var off int64
	for off < size {
		start, end, err := f.NextData(off)
		if errors.Is(err, io.EOF) || (err == nil && start >= size) {
			start, end, err = size, size, nil
		}
		if err != nil {
			return 0, err
		}
		if start > off {
			if err := send(ctx, j.pieces, piece{offset: off, length: start - off, hole: true}); err != nil {
				return 0, err
			}
			off = start
		}
		end = min(end, size)
		n, err := r.data(ctx, j, f, off, end)
		if err != nil {
			return 0, err
		}
		if off += n; off < end {
			return off, nil // it shrank
		}
	}
	return off, nil
}

// data cuts [off, end) of f into chunks and sends them.
func (r *reader) data(ctx context.Context, j *job, f source.File, off, end int64) (int64, error) {
	if end-off <= int64(r.Chunking.Min) {
		return r.small(ctx, j, f, off, end)
	}
	src := io.NewSectionReader(f, off, end-off)
	if err := r.startChunker(src); err != nil {
		return 0, err
	}
	var done int64
	for {
		chunk, err := r.chunker.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return done, err
		}
		if len(chunk) > 0 {
			n := int64(len(chunk))
			if err := r.queue.take(ctx, j, n); err != nil {
				return done, err
			}
			data := append(r.buffers.get(len(chunk)), chunk...)
			if err := r.send(ctx, j, off+done, data); err != nil {
				return done, err
			}
			done += n
		}
		if err != nil {
			return done, nil
		}
	}
}

// small reads what is one chunk by its size alone.
func (r *reader) small(ctx context.Context, j *job, f source.File, off, end int64) (int64, error) {
	n := end - off
	if err := r.queue.take(ctx, j, n); err != nil {
		return 0, err
	}
	data := r.buffers.get(int(n))[:n]
	got, err := f.ReadAt(data, off)
	if err != nil && !errors.Is(err, io.EOF) {
		r.queue.give(n)
		r.buffers.put(data)
		return 0, err
	}
	r.queue.give(n - int64(got))
	if got == 0 {
		r.buffers.put(data)
		return 0, nil
	}
	return int64(got), r.send(ctx, j, off, data[:got])
}

// send hashes a chunk and passes it on.
func (r *reader) send(ctx context.Context, j *job, off int64, data []byte) error {
	const often = 16 << 20 // large files, too, should be seen to get on
	n := int64(len(data))
	if total := r.tally.read.Add(n); total/often != (total-n)/often {
		r.progress("")
	}
	return send(ctx, j.pieces, piece{offset: off, length: int64(len(data)), hash: remote.Sum(data), data: data})
}

func (r *reader) startChunker(src io.Reader) error {
	if r.chunker != nil {
		r.chunker.Reset(src)
		return nil
	}
	c := r.Chunking
	r.window = make([]byte, c.Max+c.Avg) // it refills an average chunk at a time
	var err error
	r.chunker, err = chunkers.NewChunkerBuffer(c.Algorithm, src, &chunkers.ChunkerOpts{
		MinSize: c.Min, NormalSize: c.Avg, MaxSize: c.Max, Key: c.Secret,
	}, r.window)
	if err != nil {
		return fmt.Errorf("chunker %q (%d/%d/%d bytes): %w", c.Algorithm, c.Min, c.Avg, c.Max, err)
	}
	return nil
}
