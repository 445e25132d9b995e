package restore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// frame is the uses of one frame.
type frame struct {
	span blob.Span
	uses []use
}

// framesOf yields the frames of uses, which are sorted.
func framesOf(uses []use) iter.Seq[frame] {
	return func(yield func(frame) bool) {
		for start := 0; start < len(uses); {
			end := start + 1
			for end < len(uses) && uses[end].frame == uses[start].frame && end-start < usesOfFrame {
				end++
			}
			u := &uses[start]
			if !yield(frame{blob.Span{Offset: u.frame, Length: int64(u.packed)}, uses[start:end]}) {
				return
			}
			start = end
		}
	}
}

// frames has frames written that are in memory.
func (c *content) frames(ctx context.Context, d *fs.Download, frames []frame) {
	var wait sync.WaitGroup
	for _, f := range frames {
		c.hand(ctx, &wait, func() {
			data, err := d.Frame(ctx, f.span)
			if err != nil {
				c.rescue(ctx, f.uses, err)
				return
			}
			c.frame(ctx, d, data, f.uses)
		})
	}
	wait.Wait()
}

// hand gives work to a worker.
func (c *content) hand(ctx context.Context, wait *sync.WaitGroup, work func()) {
	wait.Add(1)
	select {
	case c.work <- func() {
		defer wait.Done()
		if ctx.Err() == nil {
			work()
		}
	}:
	case <-ctx.Done():
		wait.Done()
	}
}

// parts fetches frames, as many at a time as are to be in memory, and has them
// written.
func (c *content) parts(ctx context.Context, info view.BlobInfo, uses []use) error {
	var batch []frame
	size, to := int64(0), int64(0)
	for f := range framesOf(uses) {
		if gap := f.span.Offset - to; gap > 0 && gap <= fs.DownloadGap {
			size += gap
		}
		if len(batch) > 0 && size+f.span.Length > partsAtOnce {
			if err := c.batch(ctx, info, batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		batch, size, to = append(batch, f), size+f.span.Length, f.span.Offset+f.span.Length
	}
	return c.batch(ctx, info, batch)
}

func (c *content) batch(ctx context.Context, info view.BlobInfo, batch []frame) error {
	spans := make([]blob.Span, len(batch))
	for i, f := range batch {
		spans[i] = f.span
	}
	d, err := c.Tree.Download(ctx, info, spans...)
	if err != nil {
		if c.ends(ctx, err) {
			return err
		}
		c.tally.requests.Add(1)
		c.rescueFrames(ctx, slices.Values(batch), err)
		return nil
	}
	defer d.Release()
	c.frames(ctx, d, batch)
	c.count(d)
	return nil
}

// frame checks the chunks of a frame and writes them.
func (c *content) frame(ctx context.Context, d *fs.Download, data []byte, uses []use) {
	for uses := range chunksOf(uses) {
		u := &uses[0]
		place := blob.Chunk{ID: u.chunk, Offset: u.start, Length: int64(u.length)}
		chunk, wrong := place.Cut(data)
		if wrong != nil {
			c.rescue(ctx, uses, &fs.BlobError{Key: d.Key(), Err: fmt.Errorf("frame at %d: %w", u.frame, wrong)})
		} else if !c.chunk(ctx, chunk, uses) {
			return
		}
	}
}

// chunksOf yields the uses of each chunk. Those of a frame are sorted.
func chunksOf(uses []use) iter.Seq[[]use] {
	return func(yield func([]use) bool) {
		for start := 0; start < len(uses); {
			u, end := &uses[start], start+1
			for end < len(uses) && uses[end].start == u.start && uses[end].chunk == u.chunk && uses[end].length == u.length {
				end++
			}
			if !yield(uses[start:end]) {
				return
			}
			start = end
		}
	}
}

// chunk writes a chunk to wherever it is used. It reports whether to go on.
func (c *content) chunk(ctx context.Context, chunk []byte, uses []use) bool {
	for i := range uses {
		u := &uses[i]
		if err := c.write(ctx, u, chunk); err != nil {
			if ctx.Err() != nil {
				return false
			}
			if fatal(err) {
				c.cancel(c.at(u.dir, u.slot, err))
				return false
			}
			c.fail(KindTarget, u.dir, u.slot, err)
		}
	}
	return true
}

// write puts a chunk where it is used.
func (r *run) write(ctx context.Context, u *use, data []byte) error {
	if r.failed.Has(u.slot) {
		return nil
	}
	d, err := r.target.Get(ctx, u.dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if u.only {
		n, err := r.node(ctx, u.dir, u.slot)
		if err != nil {
			return err
		}
		if err := r.made(n, d.WriteFile(ctx, n, data, u.offset)); err != nil {
			return err
		}
	} else if err := d.WritePart(u.slot, data, u.offset); err != nil {
		return err
	}
	r.done.bytes.Add(int64(len(data)))
	return nil
}

// finishFile completes a file that has more than one piece, all of which were
// written, or tried to.
func (r *run) finishFile(ctx context.Context, dir, slot uint64) error {
	d, err := r.target.Get(ctx, dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if r.failed.Has(slot) {
		d.Discard(slot) // the next run tries again
		return nil
	}
	n, err := r.node(ctx, dir, slot)
	if err != nil {
		return err
	}
	return r.made(n, d.Complete(ctx, n))
}

// made counts an entry that is complete.
func (r *run) made(n *view.Node, err error) error {
	if err := r.told(n, err); err != nil {
		return err
	}
	r.done.of(n.Type).Add(1)
	return nil
}

// sweep removes the temporary files of a run that ends early.
func (r *run) sweep() {
	ctx := context.Background() // local calls only
	for u, err := range r.uses.All() {
		if err != nil {
			return
		}
		if !u.last || u.only {
			continue
		}
		if d, err := r.target.Get(ctx, u.dir); err == nil {
			d.Discard(u.slot) // most are not there; the next run removes the rest
			r.target.Put(d)
		}
	}
}
