package restore

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// How blobs are read, bytes unless said otherwise.
const (
	// inFlight bounds what is held of blobs. A whole one counts twice until it
	// is decrypted: of those that this program makes, three can be fetched at
	// once, or more be in use.
	inFlight = 96 << 20
	// partsAtOnce is how much of a blob of which only parts are needed is
	// fetched at a time.
	partsAtOnce = 16 << 20
	// blobsAhead is how many blobs may be read past one that takes long.
	blobsAhead = 16
	// usesOfBlob is how many uses of a blob are in memory. Only one that is full
	// of tiny chunks, or whose chunks are used over and over, has more.
	usesOfBlob = 1 << 16
	// framesQueued is how many frames wait for a worker, so that none has to wait
	// for them.
	framesQueued = 64
	// usesOfFrame is how many of them one worker takes.
	usesOfFrame = 1 << 10
)

// contents writes the files that have data.
func (r *run) contents(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			r.sweep()
		}
	}()
	c := &content{run: r, work: make(chan func(), framesQueued), flight: semaphore.NewWeighted(inFlight), ahead: make(chan struct{}, blobsAhead), waiting: make(map[int][]entry)}
	var workers errgroup.Group
	for range 2 * runtime.GOMAXPROCS(0) { // they wait for the target, too
		workers.Go(func() error {
			for f := range c.work {
				f()
			}
			return nil
		})
	}
	err = c.blobs(ctx)
	close(c.work)
	return errors.Join(err, workers.Wait())
}

// content is the stage that writes content.
type content struct {
	*run
	work   chan func()
	flight *semaphore.Weighted // bytes
	ahead  chan struct{}       // of each blob that is read while one before it is not done

	mu      sync.Mutex
	next    int             // the first blob that is not done
	waiting map[int][]entry // files that end in a blob that is done, but not all before it
}

// blobs reads one after the other of the plan, several at a time.
func (c *content) blobs(whole context.Context) error {
	g, ctx := errgroup.WithContext(whole)
	next, stop := iter.Pull2(c.uses.All())
	defer stop()
	u, err, more := next()
	for i, need := range c.needs {
		info, failed := c.Tree.Blob(ctx, need.id)
		if failed != nil {
			err = failed
		}
		weight := min(need.bytes, partsAtOnce) + fs.DownloadGap
		if need.at == all {
			weight = 2 * min(info.Size, inFlight/2)
		}
		if err == nil {
			err = c.flight.Acquire(ctx, weight)
		}
		if err != nil {
			break
		}
		select {
		case c.ahead <- struct{}{}:
		case <-ctx.Done():
		}
		parts := make(chan []use, 1)
		g.Go(func() error {
			defer func() { c.flight.Release(weight) }()
			return c.blob(ctx, i, need, info, parts, func() {
				c.flight.Release(weight / 2)
				weight -= weight / 2
			})
		})
		for more && err == nil && u.blob == need.id && ctx.Err() == nil {
			part := make([]use, 0, min(usesOfBlob, 64+2*need.frames))
			for more && err == nil && u.blob == need.id && len(part) < usesOfBlob {
				part = append(part, *u)
				u, err, more = next()
			}
			select {
			case parts <- part:
			case <-ctx.Done():
			}
		}
		close(parts)
		if err != nil || ctx.Err() != nil {
			break
		}
	}
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return errors.Join(err, whole.Err())
}

// blob fetches a blob and writes its uses, which come in parts. It calls
// decrypted when a whole one takes only half the memory any more.
func (c *content) blob(ctx context.Context, i int, n need, info view.BlobInfo, parts <-chan []use, decrypted func()) error {
	var once *fs.Download
	if n.at != nil {
		var spans []blob.Span
		if n.at != all {
			spans = append(spans, *n.at)
		}
		var err error
		if once, err = c.Tree.Download(ctx, info, spans...); err != nil {
			if c.ends(ctx, err) {
				return err
			}
			c.tally.requests.Add(1)
			ends := c.rescueAll(ctx, parts, err)
			return errors.Join(context.Cause(ctx), c.finished(ctx, i, ends))
		}
		defer once.Release()
		if n.at == all {
			decrypted()
		}
		c.count(once)
	}
	var ends []entry
	for part := range parts {
		ends = append(ends, endsOf(part)...)
		var err error
		if once != nil {
			c.frames(ctx, once, slices.Collect(framesOf(part)))
		} else {
			err = c.parts(ctx, info, part)
		}
		if err := errors.Join(context.Cause(ctx), err); err != nil {
			return err
		}
	}
	c.progress("restore")
	return c.finished(ctx, i, ends)
}

func (c *content) count(d *fs.Download) {
	requests, bytes := d.Fetched()
	c.tally.requests.Add(requests)
	c.tally.fetched.Add(bytes)
}

// endsOf are the files of several pieces that end among uses.
func endsOf(uses []use) (ends []entry) {
	for i := range uses {
		if u := &uses[i]; u.last && !u.only {
			ends = append(ends, entry{dir: u.dir, slot: u.slot})
		}
	}
	return ends
}

// ends reports whether an error of the store's ends the restore: nothing else
// would be had from it either. A blob that no identity opens is not that: damage
// to its header looks the same.
func (c *content) ends(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, remote.ErrNoStore)
}

// finished completes the files of more than one piece whose last one is in blob
// i or one before it, as soon as all of these are done.
func (c *content) finished(ctx context.Context, i int, ends []entry) error {
	c.mu.Lock()
	c.waiting[i] = ends
	ends = nil
	for {
		w, ok := c.waiting[c.next]
		if !ok {
			break
		}
		delete(c.waiting, c.next)
		ends = append(ends, w...)
		c.next++
		<-c.ahead
	}
	c.mu.Unlock()
	for _, e := range ends {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.finishFile(ctx, e.dir, e.slot); err != nil {
			if fatal(err) {
				return c.at(e.dir, e.slot, err)
			}
			c.fail(KindTarget, e.dir, e.slot, err)
		}
	}
	return nil
}

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
