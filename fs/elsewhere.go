package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

const (
	// doubtFor is how long a place that failed is not tried again where there is
	// another one.
	doubtFor = time.Minute
	// maxDoubts bounds how many places are remembered.
	maxDoubts = 1 << 16
)

// elsewhere finds chunks of a writer that are not to be had from where a
// snapshot says they are. A writer who finds a blob missing uploads its chunks
// again, and its newest dumps say where: so these are looked into, those of the
// newest snapshot of each set. Nobody but the same writer is asked, nothing but
// verified snapshots, and a chunk's hash decides as it always does.
//
// It costs nothing until something fails: then the views of those snapshots are
// opened, if need be loaded, each once.
type elsewhere struct {
	catalog *Catalog
	writer  string
	doubts  atomic.Bool // some place is doubted, or was

	mu      sync.Mutex
	doubted map[doubt]time.Time       // until when
	refused map[remote.Hash]time.Time // snapshots whose dump could not be loaded, until when
}

// doubt is a place that failed: a chunk in a blob, or with chunk zero all of it.
type doubt struct{ blob, chunk [32]byte }

// elsewhere returns what is shared by the trees of a writer.
func (c *Catalog) elsewhere(writer string) *elsewhere {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.others[writer]
	if e == nil {
		e = &elsewhere{catalog: c, writer: writer, doubted: make(map[doubt]time.Time), refused: make(map[remote.Hash]time.Time)}
		c.others[writer] = e
	}
	return e
}

// replaceable reports whether an error says that a chunk is not where it should
// be, and asking again would not help. Damage to a blob's header looks as if it
// were sealed to somebody else.
func replaceable(err error) bool {
	return errors.Is(err, ErrLost) || errors.Is(err, remote.ErrCorrupt) || errors.Is(err, seal.ErrNoIdentity)
}

// Rescue reads a chunk from where another snapshot of the writer says it is,
// because reading x failed with cause. It returns the whole chunk, whose hash it
// has checked, or cause.
func (t *Tree) Rescue(ctx context.Context, x view.Extent, cause error) ([]byte, error) {
	e := t.elsewhere
	if e == nil || !replaceable(cause) || ctx.Err() != nil {
		return nil, cause
	}
	e.doubt(x, cause)
	var chunk []byte
	err := e.places(ctx, t, x, true, func(y view.Extent) bool {
		var failed error
		if chunk, failed = t.whole(ctx, y); failed != nil {
			e.doubt(y, failed)
			return ctx.Err() == nil
		}
		return false
	})
	switch {
	case chunk != nil:
		return chunk, nil
	case err != nil:
		return nil, fmt.Errorf("%w (nor could it be looked for elsewhere: %v)", cause, err)
	}
	return nil, cause
}

// Elsewhere calls try for the places of a chunk in the dumps of the newest
// snapshots of each of the writer's sets but this one, until it returns false.
// Nothing says that the chunk is there.
func (t *Tree) Elsewhere(ctx context.Context, x view.Extent, try func(view.Extent) bool) error {
	if t.elsewhere == nil {
		return nil
	}
	return t.elsewhere.places(ctx, t, x, true, try)
}

// placed returns x, or where the same chunk is if x is known to fail. It never
// waits for the store.
func (t *Tree) placed(ctx context.Context, x view.Extent) view.Extent {
	e := t.elsewhere
	if e == nil || !e.doubts.Load() || x.Hole || x.Lost || !e.isDoubted(x) {
		return x
	}
	_ = e.places(ctx, t, x, false, func(y view.Extent) bool { x = y; return false }) // then x is tried
	return x
}

// whole reads the chunk of an extent from where the extent says.
func (t *Tree) whole(ctx context.Context, x view.Extent) ([]byte, error) {
	f := t.frameOf(x)
	data, err := t.chunks.frames(ctx, []frame{f})
	if err != nil {
		return nil, err
	}
	return t.verified(ctx, x, f, data[0])
}

// places calls try for each place of the chunk of x in other snapshots that is
// not doubted, until it returns false. Without load only views that are open
// are looked into.
func (e *elsewhere) places(ctx context.Context, t *Tree, x view.Extent, load bool, try func(view.Extent) bool) error {
	var errs []error
	for _, s := range e.catalog.newestOf(e.writer) {
		if int64(s.Seq) == t.view.Snapshot().Seq {
			continue
		}
		y, found, err := e.find(ctx, s, x.Chunk, load)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		same := !x.Lost && y.Blob == x.Blob && y.FrameOffset == x.FrameOffset && y.FrameStart == x.FrameStart
		if !found || same || y.ChunkSize != x.ChunkSize || e.isDoubted(y) {
			continue
		}
		y.Offset, y.Length = x.Offset, x.Length
		if !try(y) {
			return nil
		}
	}
	return errors.Join(errs...)
}

// find looks into one snapshot.
func (e *elsewhere) find(ctx context.Context, s Snapshot, chunk [32]byte, load bool) (x view.Extent, found bool, err error) {
	open := e.catalog.open.has(s.Hash)
	if !open && (!load || e.isRefused(s.Hash)) {
		return x, false, nil
	}
	c := e.catalog.chunks
	waiting, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("snapshot %q: %w within %v", s.ID, errLoading, c.o.Timeout))
	defer cancel()
	t, err := e.catalog.OpenSnapshot(waiting, s)
	if err != nil {
		if waiting.Err() == nil {
			e.refuse(s.Hash)
		}
		return x, false, err
	}
	x, found, err = t.view.Find(ctx, chunk)
	return x, found, errors.Join(err, t.Close())
}

// errLoading: loading goes on, whoever asks next may find it done.
var errLoading = errors.New("its dump was not loaded")

// doubt is told that a place failed.
func (e *elsewhere) doubt(x view.Extent, err error) {
	if x.Lost || !replaceable(err) {
		return
	}
	d := doubt{x.Blob.Hash, x.Chunk}
	if !errors.Is(err, remote.ErrCorrupt) {
		d.chunk = [32]byte{} // all that is in it would fail
	}
	now := e.catalog.chunks.o.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.doubted) >= maxDoubts {
		clear(e.doubted) // only costs the store some questions more
	}
	e.doubted[d] = now.Add(doubtFor)
	e.doubts.Store(true)
}

func (e *elsewhere) isDoubted(x view.Extent) bool {
	now := e.catalog.chunks.o.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Before(e.doubted[doubt{x.Blob.Hash, x.Chunk}]) || now.Before(e.doubted[doubt{blob: x.Blob.Hash}])
}

func (e *elsewhere) refuse(h remote.Hash) {
	now := e.catalog.chunks.o.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for h, until := range e.refused {
		if !now.Before(until) {
			delete(e.refused, h)
		}
	}
	e.refused[h] = now.Add(doubtFor)
}

func (e *elsewhere) isRefused(h remote.Hash) bool {
	now := e.catalog.chunks.o.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Before(e.refused[h])
}

// newestOf returns the newest snapshot of each of a writer's sets: those whose
// trees are open first, since asking them is cheap.
func (c *Catalog) newestOf(writer string) []Snapshot {
	c.mu.Lock()
	newest := c.newest[writer]
	c.mu.Unlock()
	var open, others []Snapshot
	for _, s := range newest {
		if c.open.has(s.Hash) {
			open = append(open, s)
		} else {
			others = append(others, s)
		}
	}
	return append(open, others...)
}

// newestOfSets returns the newest snapshot of each set of each writer, the
// newest first. The snapshots are ordered by writer and seq.
func newestOfSets(all []Snapshot) map[string][]Snapshot {
	newest := make(map[string][]Snapshot)
	type set struct{ writer, name string }
	seen := make(map[set]bool)
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		if k := (set{s.Writer, s.Set}); !seen[k] {
			seen[k] = true
			newest[s.Writer] = append(newest[s.Writer], s)
		}
	}
	return newest
}
