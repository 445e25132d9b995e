package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm that Chunking names

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
)

// attempts is how often a file that changes while it is read is read before
// it is stored as last seen.
const attempts = 3

// errVanished: the entry went away between listing and reading.
var errVanished = errors.New("vanished")

// errChanging: the file did not hold still.
var errChanging = errors.New("changed while it was read")

// read is one reader: it takes jobs and reads their metadata and content.
func (w *writer) read(ctx context.Context, q *queue) error {
	r := &reader{writer: w, queue: q}
	for {
		j, err := receive(ctx, q.reading)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if j.moves != nil {
			j.err = r.moves(ctx, j)
		} else {
			j.err = r.entry(ctx, j)
		}
		if j.Leads {
			j.lead(j.err == nil)
		}
		closeErr := j.Dir.Close()
		close(j.pieces)
		if err := errors.Join(ctx.Err(), closeErr); err != nil {
			return err
		}
	}
}

// reader holds what one read worker reuses from file to file.
type reader struct {
	*writer
	queue   *queue
	window  []byte // the chunker's
	chunker *chunkers.Chunker
}

// entry fills in j.file and sends j's content as pieces.
func (r *reader) entry(ctx context.Context, j *job) error {
	if j.Entry.Err != nil {
		j.file = metastore.File{Role: j.Role}
		return j.Entry.Err
	}
	for range attempts {
		j.started = r.Now()
		err := r.once(ctx, j)
		if errors.Is(err, fs.ErrNotExist) {
			return errVanished
		}
		if !errors.Is(err, source.ErrSwapped) || j.Entry.Name == "" {
			return err
		}
		// A new file was renamed over the one that was listed, as editors
		// and log rotation do: look again.
		again, err := j.Dir.Entry(ctx, j.Entry.Name)
		if errors.Is(err, fs.ErrNotExist) {
			return errVanished
		}
		if err != nil {
			return err
		}
		if again.Type != j.Entry.Type || again.Dev != j.Entry.Dev {
			return errVanished // another kind of thing now: the next run's business
		}
		j.leave()
		j.Entry = again
	}
	return errVanished
}

func (r *reader) once(ctx context.Context, j *job) error {
	e := j.Entry
	j.file = metastore.File{Stat: e.Stat, Role: j.Role, State: j.State, Volume: j.Volume}
	if j.hasContent() && j.Twin == nil && !j.Shared {
		return r.regular(ctx, j)
	}
	meta, err := j.Dir.Meta(ctx, e)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, source.ErrSwapped) || ctx.Err() != nil {
		return err
	}
	if err != nil && e.Type == metastore.Symlink && meta.Target == "" {
		return err // the target is all there is to it
	}
	j.describe(meta, err)
	if j.Twin != nil {
		j.file = *j.Twin
		j.file.Role, j.file.Xattrs = j.Role, meta.Xattrs
		return nil
	}
	if j.Shared {
		select {
		case <-j.Group.Done:
		case <-ctx.Done():
			return ctx.Err()
		}
		// The inode may have been edited between the group's reading and this
		// name's listing, either way round.
		if j.Group.OK && source.Unchanged(e.Stat, j.Group.Stat) {
			j.started = j.Group.Started
			return nil
		}
		j.Shared = false
		return r.regular(ctx, j)
	}
	return nil
}

// describe notes what there is beyond lstat. An attribute that cannot be read
// must not cost the content.
func (j *job) describe(meta source.Meta, partial error) {
	j.file.User, j.file.Group = meta.User, meta.Group
	j.file.Xattrs, j.file.Target, j.file.Flags = meta.Xattrs, meta.Target, meta.Flags
	j.partial = partial
}

// regular reads a regular file, metadata and content, by one handle.
func (r *reader) regular(ctx context.Context, j *job) error {
	f, err := j.Dir.Open(ctx, j.Entry)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, source.ErrSwapped) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		// Its metadata may be had without reading it.
		if meta, failed := j.Dir.Meta(ctx, j.Entry); failed == nil {
			j.describe(meta, nil)
		}
		return err
	}
	defer f.Close() // opened for reading: nothing to lose
	return r.content(ctx, j, f)
}

// content reads f, its metadata included, until it holds still, at most
// attempts times.
func (r *reader) content(ctx context.Context, j *job, f source.File) error {
	for n := range attempts {
		j.started = r.Now()
		before := f.Opened()
		if n > 0 {
			var err error
			if before, err = f.Stat(); err != nil {
				return err
			}
		}
		j.describe(f.Meta(ctx))
		if n > 0 {
			if err := send(ctx, j.pieces, piece{restart: true}); err != nil {
				return err
			}
		}
		size, err := r.extents(ctx, j, f, before.Size)
		if err != nil {
			return err
		}
		after, err := f.Stat()
		if err != nil {
			return err
		}
		j.file.Stat = after
		j.file.Size = size
		if source.Unchanged(before, after) && size == after.Size {
			return nil
		}
	}
	return errChanging
}

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

// within reports whether t lies so close to the reading at now that a later
// edit could carry the same time stamp: clocks of file systems tick as
// coarsely as 2 s (FAT).
func within(t metastore.Time, now time.Time) bool {
	d := t.Time().Sub(now)
	return -2*time.Second <= d && d <= 2*time.Second
}

// lead tells the other links of the job's group what it has read.
func (j *job) lead(ok bool) {
	g := j.Group
	g.Started, g.Stat, g.OK = j.started, j.file.Stat, ok
	close(g.Done)
}

// leave makes j a file of its own: its name leads to another inode now.
func (j *job) leave() {
	if j.Leads {
		j.lead(false)
	}
	j.Leads, j.Shared, j.Twin = false, false, nil
}

// hasContent reports whether the entry's content belongs to the snapshot. What
// lies behind a boundary that the rules draw is an empty place.
func (j *job) hasContent() bool {
	return j.Entry.Type == metastore.Regular && j.Gap == nil && j.State == metastore.StateComplete
}
