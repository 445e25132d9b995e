package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
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

// need is a blob that content comes from.
type need struct {
	id     int64
	bytes  int64 // that will be fetched of it
	frames int
	// at once: all of it, or what lies together in one place; else it is nil
	// and the frames are fetched as they come.
	at *blob.Span
}

// all is the place of a whole blob.
var all = &blob.Span{}

// need finds out which blobs are fetched, and how much of each. Below half of
// one, only parts are.
func (r *run) need(ctx context.Context) error {
	var n need
	frame, from, to, apart := int64(-1), int64(0), int64(0), false
	end := func() error {
		if n.frames == 0 {
			return nil
		}
		b, err := r.Tree.Blob(ctx, n.id)
		if err != nil {
			return err
		}
		switch {
		case n.bytes >= b.Size/2 && b.Size <= fs.DownloadMax:
			n.at, n.bytes = all, b.Size
		case !apart && n.bytes <= partsAtOnce:
			n.at = &blob.Span{Offset: from, Length: to - from}
		}
		r.needs = append(r.needs, n)
		return nil
	}
	for u, err := range r.uses.all() {
		if err != nil {
			return err
		}
		if u.blob != n.id {
			if err := errors.Join(end(), ctx.Err()); err != nil {
				return err
			}
			n, frame, from, to, apart = need{id: u.blob}, -1, u.frame, u.frame, false
		}
		if u.frame == frame {
			continue
		}
		if gap := u.frame - to; gap > fs.DownloadGap {
			apart = true
		} else if gap > 0 {
			n.bytes += gap
		}
		n.bytes += int64(u.packed)
		n.frames++
		frame, to = u.frame, u.frame+int64(u.packed)
	}
	return end()
}

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
	next, stop := iter.Pull2(c.uses.all())
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
func (c *content) blob(ctx context.Context, i int, n need, info metastore.BlobInfo, parts <-chan []use, decrypted func()) error {
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
			ends := c.loseAll(parts, err)
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

func (c *content) loseAll(parts <-chan []use, err error) (ends []entry) {
	for part := range parts {
		c.lose(part, err)
		ends = append(ends, endsOf(part)...)
	}
	return ends
}

// ends reports whether an error of the store's ends the restore: nothing else
// would be had from it either. A blob that no identity opens is not that: damage
// to its header looks the same.
func (c *content) ends(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, remote.ErrNoStore)
}

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
