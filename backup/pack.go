package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

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
		case j.Dir == nil:
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
	if dirty || j.Mark == nil {
		return p.run.ClearMark(ctx, j.Folder)
	}
	return p.run.SetMark(ctx, j.Folder, *j.Mark)
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
		p.problem(Changed, j.Where, errChanging)
	}
	if j.Path == 0 {
		var pathErr error
		if j.Path, pathErr = p.run.Path(ctx, j.Parent, j.Entry.Name); pathErr != nil {
			return pathErr
		}
	}
	switch {
	case errors.Is(err, errVanished):
		p.dirty = true
		p.problem(Vanished, j.Where, errVanished)
		n, err := p.run.Close(ctx, j.Path)
		p.tally.removed.Add(int64(n))
		return err
	case err != nil, j.Gap != nil:
		p.dirty = true
		return p.gap(ctx, j, errors.Join(j.Gap, err))
	}
	if err := p.content(ctx, j, chunks); err != nil {
		return err
	}
	if j.partial != nil {
		p.problem(Unreadable, j.Where, fmt.Errorf("some of its metadata: %w", j.partial))
	}
	recheck := changing || j.partial != nil || within(j.file.MTime, j.started) || within(j.file.CTime, j.started)
	p.dirty = p.dirty || recheck
	changed := true
	if j.New {
		err = p.run.RecordNew(ctx, j.Path, j.file, recheck)
	} else {
		changed, err = p.run.Record(ctx, j.Path, j.file, recheck)
	}
	if err != nil {
		return fmt.Errorf("record %q: %w", j.Where, err)
	}
	// What lies above the roots is nobody's file: /tmp and /home change all
	// the time, and that is no news about the set.
	if changed && j.Role != metastore.RoleParent {
		p.tally.changed.Add(1)
	}
	return nil
}

// within reports whether t lies so close to the reading at now that a later
// edit could carry the same time stamp: clocks of file systems tick as
// coarsely as 2 s (FAT).
func within(t metastore.Time, now time.Time) bool {
	d := t.Time().Sub(now)
	return -2*time.Second <= d && d <= 2*time.Second
}

// gap records that an entry, or all below it, could not be read.
func (p *packer) gap(ctx context.Context, j *job, cause error) error {
	p.problem(Unreadable, j.Where, cause)
	f := j.file
	f.Content = 0
	if f.Type == 0 { // not even its type is known
		f = blank(j.Role)
	}
	return p.run.Gap(ctx, j.Path, f, source.Errno(cause))
}

// blank stands for an entry of which nothing is known.
func blank(role metastore.Role) metastore.File {
	return metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Nlink: 1}, Role: role}
}

// content gives a regular file its content row, the group's if it has one.
func (p *packer) content(ctx context.Context, j *job, chunks []index.ContentChunk) error {
	if !j.hasContent() || j.Twin != nil {
		return nil
	}
	if j.Shared {
		j.file.Content = j.Group.Content
		return nil
	}
	id, err := p.run.Content(ctx, chunks, j.Like)
	if err != nil {
		return fmt.Errorf("record the content of %q: %w", j.Where, err)
	}
	j.file.Content = id
	if j.Leads {
		j.Group.Content = id
	}
	return nil
}
