package restore

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
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
				c.lose(f.uses, err)
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
func (c *content) parts(ctx context.Context, info metastore.BlobInfo, uses []use) error {
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

func (c *content) batch(ctx context.Context, info metastore.BlobInfo, batch []frame) error {
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
		for _, f := range batch {
			c.lose(f.uses, err)
		}
		return nil
	}
	defer d.Release()
	c.frames(ctx, d, batch)
	c.count(d)
	return nil
}

// frame checks the chunks of a frame and writes them.
func (c *content) frame(ctx context.Context, d *fs.Download, data []byte, uses []use) {
	var chunk []byte
	var wrong error
	for i := range uses {
		u := &uses[i]
		if i == 0 || u.start != uses[i-1].start || u.chunk != uses[i-1].chunk || u.length != uses[i-1].length {
			place := blob.Chunk{ID: u.chunk, Offset: u.start, Length: int64(u.length)}
			if chunk, wrong = place.Cut(data); wrong != nil {
				wrong = &fs.BlobError{Key: d.Key(), Err: fmt.Errorf("frame at %d: %w", u.frame, wrong)}
			}
		}
		if wrong != nil {
			c.lose(uses[i:i+1], wrong)
			continue
		}
		if err := c.write(ctx, u, chunk); err != nil {
			if ctx.Err() != nil {
				return
			}
			if fatal(err) {
				c.cancel(c.at(u.dir, u.slot, err))
				return
			}
			c.fail(KindTarget, u.dir, u.slot, err)
		}
	}
}

// lose tells that files cannot be restored, because content is not to be had.
func (c *content) lose(uses []use, err error) {
	for i := range uses {
		c.fail(KindContent, uses[i].dir, uses[i].slot, err)
	}
}
