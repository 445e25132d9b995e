package fs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// readWindow is how much of a long ReadAt is worked on at a time, in bytes of
// the file. It bounds the frames that one call holds on to.
const readWindow = 8 << 20

// seekWindow is how much of a file SeekData and SeekHole look at in one piece,
// in bytes: a thousand chunks or so, or one hole of any size.
const seekWindow = 1 << 30

// ReadAt reads from a regular file as io.ReaderAt does: it returns len(p)
// bytes, or fewer and an error, which is io.EOF at the end of the file. ctx
// ends the waiting and not the fetch.
func (t *Tree) ReadAt(ctx context.Context, n view.Node, p []byte, off int64) (int, error) {
	if err := t.readable(n); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s: offset %d is negative", t.name(n), off)
	}
	if off >= n.Size {
		return 0, io.EOF
	}
	atEnd := int64(len(p)) > n.Size-off
	if atEnd {
		p = p[:n.Size-off]
	}
	t.ahead.saw(&n, off, int64(len(p)))
	done := 0
	for done < len(p) {
		end := min(done+readWindow, len(p))
		if err := t.readWindow(ctx, n, p[done:end], off+int64(done)); err != nil {
			return done, fmt.Errorf("read %s: %w", t.name(n), err)
		}
		done = end
	}
	if atEnd {
		return done, io.EOF
	}
	return done, nil
}

// readable says why a node has no content, if so.
func (t *Tree) readable(n view.Node) error {
	switch {
	case n.Type == metastore.Directory:
		return fmt.Errorf("%s: %w", t.name(n), ErrIsDirectory)
	case n.Type != metastore.Regular:
		return fmt.Errorf("%s: %w", t.name(n), ErrNotRegular)
	case n.State == metastore.StateUnreadable, n.Content == 0 && n.Size > 0:
		return fmt.Errorf("%s: %w", t.name(n), ErrNotCaptured)
	}
	return nil
}

// readWindow fills p, which lies within the file, or fails.
func (t *Tree) readWindow(ctx context.Context, n view.Node, p []byte, off int64) error {
	// The view is a local file: a reader that gives up need not interrupt it.
	extents, err := t.view.Extents(context.WithoutCancel(ctx), n, off, int64(len(p)))
	if err != nil {
		return err
	}
	at := off
	for i, x := range extents {
		if x.Offset > at || x.Offset+x.Length <= at {
			break
		}
		at = x.Offset + x.Length
		extents[i] = t.placed(ctx, x)
	}
	if at < off+int64(len(p)) {
		return fmt.Errorf("the content list ends at byte %d of %d: %w", at, n.Size, remote.ErrCorrupt)
	}
	err = t.fill(ctx, p, off, extents)
	if t.elsewhere == nil || !replaceable(err) {
		return err
	}
	// One of them is not to be had there. The others are in memory now.
	for _, x := range extents {
		from, to := max(x.Offset, off), min(x.Offset+x.Length, off+int64(len(p)))
		if from >= to {
			break
		}
		if err := t.fillOne(ctx, p[from-off:to-off], from, x); err != nil {
			return err
		}
	}
	return nil
}

// fillOne fills p with an extent's bytes from an offset on, from another place if
// that cannot be done from its own.
func (t *Tree) fillOne(ctx context.Context, p []byte, off int64, x view.Extent) error {
	err := t.fill(ctx, p, off, []view.Extent{x})
	if !replaceable(err) {
		return err
	}
	chunk, err := t.Rescue(ctx, x, err)
	if err != nil {
		return err
	}
	copy(p, chunk[off-x.Offset:])
	return nil
}

// fill fills p, which begins at an offset of the file and lies within extents.
func (t *Tree) fill(ctx context.Context, p []byte, off int64, extents []view.Extent) error {
	want := make([]frame, 0, len(extents))
	for _, x := range extents {
		if x.Lost {
			return fmt.Errorf("bytes %d to %d, chunk %s: %w", x.Offset, x.Offset+x.Length, remote.Hash(x.Chunk), ErrLost)
		}
		if !x.Hole {
			want = append(want, t.frameOf(x))
		}
	}
	frames, err := t.chunks.frames(ctx, want)
	if err != nil {
		return err
	}
	// Most of the time goes into hashes. A long read is of two or more chunks,
	// which need not wait for each other.
	var g errgroup.Group
	aside := len(p) >= hashAside && len(want) > 1
	for _, x := range extents {
		from, to := max(x.Offset, off), min(x.Offset+x.Length, off+int64(len(p)))
		if from >= to {
			break
		}
		dst := p[from-off : to-off]
		if x.Hole {
			clear(dst)
			continue
		}
		f, data := want[0], frames[0]
		want, frames = want[1:], frames[1:]
		fill := func() error {
			chunk, err := t.verified(ctx, x, f, data)
			if err == nil {
				copy(dst, chunk[from-x.Offset:to-x.Offset])
			}
			return err
		}
		if aside && len(want) > 0 {
			g.Go(fill)
		} else if err := fill(); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

// hashAside is how long a read has to be, in bytes, for its chunks to be hashed
// side by side.
const hashAside = 256 << 10

// verified is the chunk of an extent. If it is damaged, what is damaged may be
// a copy on this side of the store: so the store is asked once more.
func (t *Tree) verified(ctx context.Context, x view.Extent, f frame, data []byte) ([]byte, error) {
	chunk, err := t.chunk(x, f, data)
	if err == nil {
		return chunk, nil
	}
	t.chunks.doubt(f)
	again, failed := t.chunks.frames(ctx, []frame{f})
	if failed != nil {
		return nil, failed
	}
	if chunk, err = t.chunk(x, f, again[0]); err != nil {
		t.chunks.distrust(f, err)
	}
	return chunk, err
}

func (t *Tree) frameOf(x view.Extent) frame {
	h := remote.Hash(x.Blob.Hash)
	return frame{
		key:    frameKey{h, x.FrameOffset},
		length: x.FrameLength,
		chunk:  x.FrameStart,
		plain:  x.FrameStart + x.ChunkSize,
		ref: blob.Ref{
			Key:  remote.BlobKey(t.writer, remote.Seq(x.Blob.Seq), h),
			Hash: h, Size: x.Blob.Size, Header: x.Blob.Header,
		},
	}
}

// chunk cuts an extent's chunk out of its frame and checks its hash, which is
// done on every read: memory fails too, and a frame stays there for long.
func (t *Tree) chunk(x view.Extent, f frame, data []byte) ([]byte, error) {
	c := blob.Chunk{ID: x.Chunk, Offset: x.FrameStart, Length: x.ChunkSize}
	chunk, err := c.Cut(data)
	if err == nil && x.Length != x.ChunkSize {
		err = fmt.Errorf("chunk %s: it has %d bytes, the file has %d of it: %w", c.ID, x.ChunkSize, x.Length, remote.ErrCorrupt)
	}
	if err == nil {
		return chunk, nil
	}
	return nil, &BlobError{f.ref.Key, fmt.Errorf("frame at %d: %w", f.key.offset, err)}
}

// SeekData returns the first offset at or after off that is not in a hole,
// SeekHole the first that is, or the end of the file. Both fail with io.EOF
// where lseek(2) says ENXIO: at or past the end, and SeekData within a last
// hole. What was not captured counts as data, so that a copy meets the error.
func (t *Tree) SeekData(ctx context.Context, n view.Node, off int64) (int64, error) {
	return t.seek(ctx, n, off, false)
}

// SeekHole is described at SeekData.
func (t *Tree) SeekHole(ctx context.Context, n view.Node, off int64) (int64, error) {
	return t.seek(ctx, n, off, true)
}

func (t *Tree) seek(ctx context.Context, n view.Node, off int64, hole bool) (int64, error) {
	if n.Type != metastore.Regular {
		return 0, fmt.Errorf("%s: %w", t.name(n), ErrNotRegular)
	}
	if off < 0 || off >= n.Size {
		return 0, io.EOF
	}
	if t.readable(n) != nil {
		if hole {
			return n.Size, nil
		}
		return off, nil
	}
	for window := int64(1 << 20); off < n.Size; window = min(2*window, seekWindow) {
		extents, err := t.view.Extents(ctx, n, off, min(window, n.Size-off))
		if err != nil {
			return 0, err
		}
		for _, x := range extents {
			if x.Hole == hole {
				return max(off, x.Offset), nil
			}
			off = x.Offset + x.Length
		}
		if len(extents) == 0 {
			return 0, fmt.Errorf("%s: the content list ends at byte %d of %d: %w", t.name(n), off, n.Size, remote.ErrCorrupt)
		}
	}
	if hole {
		return n.Size, nil
	}
	return 0, io.EOF
}
