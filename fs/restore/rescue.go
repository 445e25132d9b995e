package restore

import (
	"context"
	"iter"
	"sync"

	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// What a blob does not give is asked for one chunk at a time from where another
// snapshot says it is. That is slow, and hardly ever needed: the plan knows
// nothing of it.

// rescueAll does it for a whole blob.
func (c *content) rescueAll(ctx context.Context, parts <-chan []use, cause error) (ends []entry) {
	for part := range parts {
		c.rescueFrames(ctx, framesOf(part), cause)
		ends = append(ends, endsOf(part)...)
	}
	return ends
}

func (c *content) rescueFrames(ctx context.Context, frames iter.Seq[frame], cause error) {
	var wait sync.WaitGroup
	for f := range frames {
		c.hand(ctx, &wait, func() { c.rescue(ctx, f.uses, cause) })
	}
	wait.Wait()
}

// rescue writes chunks of which the place in the plan failed with cause. Where
// they are nowhere else, their files cannot be restored.
func (c *content) rescue(ctx context.Context, uses []use, cause error) {
	for uses := range chunksOf(uses) {
		u := &uses[0]
		x := view.Extent{
			Length: int64(u.length), Chunk: u.chunk, ChunkSize: int64(u.length),
			FrameOffset: u.frame, FrameLength: int64(u.packed), FrameStart: u.start,
		}
		var chunk []byte
		var err error
		if x.Blob, err = c.Tree.Blob(ctx, u.blob); err == nil {
			chunk, err = c.Tree.Rescue(ctx, x, cause)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.lose(uses, err)
		default:
			c.tally.rescued.Add(1)
			if !c.chunk(ctx, chunk, uses) {
				return
			}
		}
	}
}

// lose tells that files cannot be restored, because content is not to be had.
func (c *content) lose(uses []use, err error) {
	for i := range uses {
		c.fail(KindContent, uses[i].dir, uses[i].slot, err)
	}
}
