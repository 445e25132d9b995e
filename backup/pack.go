package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// frameTarget is the plaintext size at which a frame of small chunks is
// closed, in bytes. Small files of one folder compress better together, and a
// reader who wants one of them most likely wants its neighbours; docs/DESIGN.md
// has the measurements.
const frameTarget = 512 << 10

// frame is a run of chunks that are compressed together.
type frame struct {
	plain  []byte // nil once done is closed
	chunks []frameChunk
	packed []byte        // the zstd frame, valid once done is closed
	size   int           // bytes of plain, likewise
	done   chan struct{} // closed by compress
}

type frameChunk struct {
	id     int64 // of the index
	hash   remote.Hash
	length int64
}

// frames carries frames to the compressors and, in order, to seal.
type frames struct {
	ordered  chan *frame
	squeezed chan *frame
}

func newFrames(cores int) *frames {
	// Enough to keep every core busy while seal waits for the slowest; a
	// frame holds at most one maximal chunk.
	return &frames{ordered: make(chan *frame, 2*cores), squeezed: make(chan *frame, 2*cores)}
}

func (f *frames) put(ctx context.Context, fr *frame) error {
	if err := send(ctx, f.ordered, fr); err != nil {
		return err
	}
	return send(ctx, f.squeezed, fr)
}

func (f *frames) close() {
	close(f.ordered)
	close(f.squeezed)
}

// packer turns jobs into frames and rows of the index, in order.
type packer struct {
	*writer
	queue *queue
	out   *frames
	open  *frame // small chunks gather here
	dirty bool   // the folder at hand has something the next run must look at again
}

// pack takes every job in order: its new chunks go into frames, its version
// of the entry into the index. Rows may run ahead of the blobs they need: an
// interrupted run is rolled back, and commit looks whether all blobs are there.
func (w *writer) pack(ctx context.Context, q *queue, out *frames) error {
	p := &packer{writer: w, queue: q, out: out}
	for {
		j, err := q.next(ctx)
		if errors.Is(err, io.EOF) {
			return p.flush(ctx)
		}
		if err != nil {
			return err
		}
		switch {
		case j.dir == nil:
			err = p.endFolder(ctx, j)
		case j.moves != nil:
			err = p.moves(ctx, j)
		default:
			err = p.entry(ctx, j)
		}
		if err != nil {
			return err
		}
	}
}

// endFolder marks a folder whose entries were all recorded and can be trusted
// to show any later change in their time stamps.
func (p *packer) endFolder(ctx context.Context, j *job) error {
	dirty := p.dirty
	p.dirty = false
	if dirty || j.mark == nil {
		return p.run.ClearMark(ctx, j.folder)
	}
	return p.run.SetMark(ctx, j.folder, *j.mark)
}

// entry packs what the reader sends of one entry and records the result.
func (p *packer) entry(ctx context.Context, j *job) error {
	var chunks []index.ContentChunk
	for {
		pc, err := receive(ctx, j.pieces)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case pc.restart:
			chunks = chunks[:0]
		case pc.hole:
			chunks = append(chunks, index.ContentChunk{Offset: pc.offset, Length: pc.length})
		default:
			id, err := p.chunk(ctx, pc)
			if err != nil {
				return err
			}
			chunks = append(chunks, index.ContentChunk{Offset: pc.offset, Length: pc.length, Chunk: id})
		}
	}
	return p.record(ctx, j, chunks)
}

// chunk finds a chunk's id and packs it unless it is stored or on its way.
func (p *packer) chunk(ctx context.Context, pc piece) (int64, error) {
	defer p.queue.give(pc.length)
	id, stored, err := p.run.Chunk(ctx, pc.hash, pc.length)
	if err != nil {
		return 0, fmt.Errorf("look up a chunk in the index: %w", err)
	}
	if stored {
		p.buffers.put(pc.data)
		return id, nil
	}
	return id, p.store(ctx, id, pc, &p.tally.fresh)
}

// store packs a chunk unless it is on its way, and counts its bytes.
func (p *packer) store(ctx context.Context, id int64, pc piece, count *atomic.Int64) error {
	if !p.transit.add(id) {
		p.buffers.put(pc.data)
		return nil
	}
	count.Add(pc.length)
	fc := frameChunk{id, pc.hash, pc.length}
	if pc.length >= frameTarget {
		return p.out.put(ctx, &frame{plain: pc.data, chunks: []frameChunk{fc}, done: make(chan struct{})})
	}
	if p.open == nil {
		p.open = &frame{plain: p.buffers.get(2 * frameTarget), done: make(chan struct{})} // one chunk more than the target
	}
	p.open.plain = append(p.open.plain, pc.data...)
	p.open.chunks = append(p.open.chunks, fc)
	p.buffers.put(pc.data)
	if len(p.open.plain) >= frameTarget {
		return p.flush(ctx)
	}
	return nil
}

func (p *packer) flush(ctx context.Context) error {
	if p.open == nil {
		return nil
	}
	f := p.open
	p.open = nil
	return p.out.put(ctx, f)
}

// record writes down what became of an entry.
func (p *packer) record(ctx context.Context, j *job, chunks []index.ContentChunk) error {
	err := j.err
	changing := errors.Is(err, errChanging)
	if changing {
		err = nil
		j.file.State = metastore.StateChanged
		p.problem(Changed, j.where, errChanging)
	}
	if j.path == 0 {
		var pathErr error
		if j.path, pathErr = p.run.Path(ctx, j.parent, j.entry.Name); pathErr != nil {
			return pathErr
		}
	}
	switch {
	case errors.Is(err, errVanished):
		p.dirty = true
		p.problem(Vanished, j.where, errVanished)
		n, err := p.run.Close(ctx, j.path)
		p.tally.removed.Add(int64(n))
		return err
	case err != nil, j.gap != nil:
		p.dirty = true
		return p.gap(ctx, j, errors.Join(j.gap, err))
	}
	if err := p.content(ctx, j, chunks); err != nil {
		return err
	}
	if j.partial != nil {
		p.problem(Unreadable, j.where, fmt.Errorf("some of its metadata: %w", j.partial))
	}
	recheck := changing || j.partial != nil || within(j.file.MTime, j.started) || within(j.file.CTime, j.started)
	p.dirty = p.dirty || recheck
	changed := true
	if j.isNew {
		err = p.run.RecordNew(ctx, j.path, j.file, recheck)
	} else {
		changed, err = p.run.Record(ctx, j.path, j.file, recheck)
	}
	if err != nil {
		return fmt.Errorf("record %q: %w", j.where, err)
	}
	// What lies above the roots is nobody's file: /tmp and /home change all
	// the time, and that is no news about the set.
	if changed && j.role != metastore.RoleParent {
		p.tally.changed.Add(1)
	}
	return nil
}

// gap records that an entry, or all below it, could not be read.
func (p *packer) gap(ctx context.Context, j *job, cause error) error {
	p.problem(Unreadable, j.where, cause)
	f := j.file
	f.Content = 0
	if f.Type == 0 { // not even its type is known
		f = blank(j.role)
	}
	return p.run.Gap(ctx, j.path, f, errno(cause))
}

// blank stands for an entry of which nothing is known.
func blank(role metastore.Role) metastore.File {
	return metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Nlink: 1}, Role: role}
}

// content gives a regular file its content row, the group's if it has one.
func (p *packer) content(ctx context.Context, j *job, chunks []index.ContentChunk) error {
	if !j.hasContent() || j.twin != nil {
		return nil
	}
	if j.shared {
		j.file.Content = j.group.content
		return nil
	}
	id, err := p.run.Content(ctx, chunks, j.like)
	if err != nil {
		return fmt.Errorf("record the content of %q: %w", j.where, err)
	}
	j.file.Content = id
	if j.leads {
		j.group.content = id
	}
	return nil
}

// compress is one compressor.
func (w *writer) compress(ctx context.Context, in *frames) error {
	c := blob.NewCompressor(w.Level)
	var packed []byte
	for {
		f, err := receive(ctx, in.squeezed)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// What comes out is a fraction of what could: not every frame on its
		// way needs memory for the worst case.
		if n := blob.Bound(len(f.plain)); cap(packed) < n {
			packed = make([]byte, 0, n)
		}
		packed = c.Compress(packed, f.plain)
		f.packed = append(w.buffers.get(len(packed)), packed...)
		f.size = len(f.plain)
		w.buffers.put(f.plain)
		f.plain = nil
		close(f.done)
	}
}

// transit is the set of chunks on their way to the store, packed but not yet
// recorded as stored. It is as large as the blobs in the making.
type transit struct {
	mu  sync.Mutex
	ids map[int64]struct{}
}

// add reports whether id was not in the set yet.
func (t *transit) add(id int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.ids[id]; ok {
		return false
	}
	if t.ids == nil {
		t.ids = map[int64]struct{}{}
	}
	t.ids[id] = struct{}{}
	return true
}

func (t *transit) remove(chunks []frameChunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range chunks {
		delete(t.ids, c.id)
	}
}
