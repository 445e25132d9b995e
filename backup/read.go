package backup

import (
	"context"
	"errors"
	"io"
	"io/fs"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
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
