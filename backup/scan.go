package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// scanner walks the set's roots and sends on what has to be recorded.
type scanner struct {
	*writer
	out     *queue
	volumes map[uint64]volume // by Dev
	groups  map[groupKey]*groupCount
	found   bool // at least one root is there
	healing bool // reads what is recorded already, but lost
	listers errgroup.Group
	waiting atomic.Int64 // entries in listings that scan has not come to
	gone    []int64      // paths to close when all has been seen: what was there may only have moved
}

func newScanner(w *writer, out *queue) *scanner {
	return &scanner{writer: w, out: out, volumes: map[uint64]volume{}, groups: map[groupKey]*groupCount{}}
}

// folder is a directory being scanned.
type folder struct {
	dir    Dir
	entry  Entry
	path   int64 // path id
	parent int64
	where  string
	role   metastore.Role
	state  metastore.State
	gap    error
	isNew  bool
	fresh  bool      // nothing was ever recorded in it
	was    int64     // the volume that the last run saw it on, 0 if none
	from   int64     // path that it was moved from, 0 if it was not
	place  *place    // of roots in it, nil if there are none
	root   root      // the one it is in
	early  *contents // if it was listed early
}

// root is one of the set's paths.
type root struct {
	where   string // as people read it
	spelled string // as the set spells it
	dev     uint64
}

// child is an entry of a folder that belongs to the snapshot.
type child struct {
	entry   Entry
	place   *place
	role    metastore.Role
	state   metastore.State
	version *index.Version // open so far, nil if none
	moved   *index.Version // of the same entry where it was before, nil if it was not moved
	ahead   *early         // of a folder: its listing, if it was begun early
	path    int64          // path id, 0 if not known yet

	movedPath int64 // of a folder: the path that it was moved from with the folder above it
	tries     int   // of a folder: how often another one was found in its place
	same      bool  // looks as it did then
}

// scan is the first stage: it emits a job for every entry that may have
// changed since the set's last run. Entries of a folder come in byte order of
// their names, folders last and one after the other, so that everything below
// one folder lies together in the blobs.
func (w *writer) scan(ctx context.Context, out *queue) error {
	s := newScanner(w, out)
	defer s.listers.Wait() // they report to those who wait for them, never here
	top, err := w.place(ctx)
	if err != nil {
		return err
	}
	entry, dir, err := w.Source.Root(ctx)
	if err != nil {
		return fmt.Errorf("open /: %w", err)
	}
	defer dir.Close()
	at, err := w.run.Directory(ctx, 0, "")
	if err != nil {
		return err
	}
	f := folder{dir: dir, entry: entry, path: at.Path, fresh: at.New, was: at.Volume, where: "/", role: metastore.RoleParent, state: metastore.StateComplete, place: top}
	if top.root {
		s.found = true
		f.role, f.root = metastore.RoleRoot, root{"/", "/", entry.Dev}
		err = s.folder(ctx, f, at)
	} else {
		err = s.parents(ctx, f, top)
	}
	switch {
	case err != nil:
		return err
	case !s.found:
		return fmt.Errorf("set %q: %w", w.set.Name, ErrNoRoots)
	}
	return s.closeGone(ctx)
}

// folder scans a directory and everything below it.
func (s *scanner) folder(ctx context.Context, f folder, last index.DirectoryMark) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.progress(f.where)
	l, err := s.list(ctx, &f)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return errRemoved
		}
		f.gap = err
	}
	settled := f.gap == nil && last.Marked && last.Mark == l.mark
	if f.isNew || !settled {
		if err := s.entry(ctx, f.self()); err != nil {
			return err
		}
	}
	if f.gap != nil {
		return s.end(ctx, f, nil)
	}
	if !settled {
		if err := s.changes(ctx, f, l); err != nil {
			return err
		}
	}
	if f.isNew || !settled {
		// Also of a folder of which only its own metadata is new: they may be
		// so new that the next run must look at it again.
		if err := s.end(ctx, f, &l.mark); err != nil {
			return err
		}
	}
	return s.subfolders(ctx, f, l, settled)
}

// changes compares a folder with what the last run recorded of it: what is new
// or different is sent on, what is gone is closed, and of the subfolders it is
// noted whether they look the same. The mark becomes that of what was sent.
func (s *scanner) changes(ctx context.Context, f folder, l *listing) error {
	hash := newMark(f.state)
	for after, page := range l.pages() {
		children, err := s.children(ctx, f, l, page)
		if err != nil {
			return err
		}
		upTo := index.LastName
		if rest := len(l.names) - after - len(page); rest > 0 {
			upTo = page[len(page)-1]
		}
		before := ""
		if after > 0 {
			before = l.names[after-1]
		}
		if err := s.compare(ctx, f, children, before, upTo); err != nil {
			return err
		}
		if err := s.follow(ctx, f, children, before, upTo); err != nil {
			return err
		}
		if f.fresh {
			if err := s.name(ctx, f, children); err != nil {
				return err
			}
		}
		for i := range children {
			c := &children[i]
			hash.add(c)
			switch {
			case c.entry.Type == metastore.Directory:
				l.note(*c)
			case !c.same:
				if err := s.other(ctx, f, *c); err != nil {
					return err
				}
			}
		}
	}
	l.mark = hash.sum()
	return nil
}

// name gives paths to what is in a folder in which nothing was ever recorded.
func (s *scanner) name(ctx context.Context, f folder, children []child) error {
	var names []string
	var named []*child
	for i := range children {
		if c := &children[i]; c.entry.Type != metastore.Directory {
			names, named = append(names, c.entry.Name), append(named, c)
		}
	}
	paths, err := s.run.NewPaths(ctx, f.path, names)
	for i := range paths {
		named[i].path = paths[i]
	}
	return err
}

// subfolders scans the folders in f, one after the other.
func (s *scanner) subfolders(ctx context.Context, f folder, l *listing, settled bool) error {
	ahead := s.lookAhead(f, l)
	defer ahead.drop()
	for _, sub := range l.folders {
		c := sub.child
		if c == nil { // too many to keep: look again
			children, err := s.children(ctx, f, l, []string{sub.name})
			if err != nil {
				return err
			}
			if len(children) == 0 || children[0].entry.Type != metastore.Directory {
				// It went away, or is no folder any more; the next run, which
				// finds another mark, sees to it.
				if err := s.run.ClearMark(ctx, f.path); err != nil {
					return err
				}
				continue
			}
			c = &children[0]
			c.same, c.movedPath = sub.same, sub.movedPath
		}
		c.same = c.same || settled
		c.ahead = ahead.next(ctx)
		if err := s.descend(ctx, f, *c); err != nil {
			return err
		}
	}
	return nil
}

// head reads the beginning of a file.
func head(ctx context.Context, dir Dir, e Entry) ([]byte, error) {
	f, err := dir.Open(ctx, e)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading: nothing to lose
	buf := make([]byte, len(cacheTag))
	n, err := f.ReadAt(buf, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

// compare looks up what the last run recorded in this folder, of the names
// behind after up to upTo, finds out which entries look the same, and closes
// the ones that are gone.
func (s *scanner) compare(ctx context.Context, f folder, children []child, after, upTo string) error {
	versions, err := s.run.Children(ctx, f.path, after, upTo)
	if err != nil {
		return fmt.Errorf("look up %q in the index: %w", f.where, err)
	}
	i := 0
	for n := range versions {
		v := &versions[n]
		for i < len(children) && children[i].entry.Name < v.Name {
			i++
		}
		if i == len(children) || children[i].entry.Name != v.Name {
			if err := s.close(ctx, v.Path); err != nil {
				return err
			}
			continue
		}
		children[i].resembles(v)
	}
	return nil
}

// resembles notes the version that is open so far, and whether the entry still
// looks as it did then.
func (c *child) resembles(v *index.Version) {
	c.version = v
	c.same = !v.Recheck && c.entry.Err == nil && unchanged(c.entry.Stat, v.File.Stat) && v.File.Role == c.role &&
		(c.entry.Type == metastore.Directory || v.File.State == c.state) // a folder's state shows in its mark
}

// goneKept bounds the paths that wait to be closed: 8 bytes each.
const goneKept = 1 << 20

// close notes that there is nothing at path any more.
func (s *scanner) close(ctx context.Context, path int64) error {
	if s.gone = append(s.gone, path); len(s.gone) < goneKept {
		return nil
	}
	return s.closeGone(ctx)
}

func (s *scanner) closeGone(ctx context.Context) error {
	for _, path := range s.gone {
		n, err := s.run.Close(ctx, path)
		s.tally.removed.Add(int64(n))
		if err != nil {
			return err
		}
	}
	s.gone = s.gone[:0]
	return nil
}

// descend opens a folder's subfolder and scans it.
func (s *scanner) descend(ctx context.Context, f folder, c child) error {
	s.tally.seen.Add(1)
	at, err := s.run.Directory(ctx, f.path, c.entry.Name)
	if err != nil {
		return fmt.Errorf("look up %q in the index: %w", path.Join(f.where, c.entry.Name), err)
	}
	sub := folder{
		entry: c.entry, path: at.Path, parent: f.path, where: path.Join(f.where, c.entry.Name),
		role: c.role, state: c.state, isNew: !c.same, fresh: at.New, was: at.Volume, place: c.place, root: f.root,
	}
	if c.role == metastore.RoleRoot {
		sub.root = root{sub.where, c.place.spelled, c.entry.Dev}
	}
	if sub.from, err = s.movedFrom(ctx, c, at, sub.where); err != nil {
		return err
	}
	if sub.dir, sub.early, err = c.ahead.take(); sub.early == nil && err == nil {
		sub.dir, err = f.dir.OpenDir(ctx, c.entry)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.again(ctx, f, c, sub, err)
	}
	defer sub.dir.Close()
	if gone, err := s.unmounted(ctx, f, sub); err != nil {
		return err
	} else if gone {
		return s.unopened(ctx, f, c, sub, errUnmounted)
	}
	if c.role == metastore.RoleParent {
		return s.parents(ctx, sub, c.place)
	}
	if err = s.folder(ctx, sub, at); errors.Is(err, errRemoved) {
		return s.again(ctx, f, c, sub, err)
	}
	return err
}

// again looks once more at a name that no longer led to the folder that was
// listed: another one may have been put in its place.
func (s *scanner) again(ctx context.Context, f folder, c child, sub folder, cause error) error {
	if (errors.Is(cause, ErrSwapped) || errors.Is(cause, fs.ErrNotExist)) && c.tries < attempts {
		e, err := f.dir.Entry(ctx, c.entry.Name)
		if err == nil && e.Err == nil && e.Type == metastore.Directory && e.Dev == c.entry.Dev {
			s.tally.seen.Add(-1)
			c.entry, c.same, c.ahead, c.moved, c.movedPath = e, false, nil, nil, 0
			c.tries++
			return s.descend(ctx, f, c)
		}
	}
	return s.unopened(ctx, f, c, sub, cause)
}

// errRemoved: a folder was removed after it had been opened.
var errRemoved = fmt.Errorf("removed meanwhile: %w", fs.ErrNotExist)

// unopened records a folder that could not be opened, or is not the one that
// is meant, through its parent.
func (s *scanner) unopened(ctx context.Context, f folder, c child, sub folder, cause error) error {
	j, err := s.job(ctx, f, c)
	if err != nil {
		return err
	}
	j.path, j.gap = sub.path, cause
	if err := s.out.put(ctx, j); err != nil {
		return err
	}
	return s.end(ctx, sub, nil)
}

// self is the job that records the folder's own metadata.
func (f *folder) self() *job {
	e := f.entry
	e.Name = "" // the directory itself
	return &job{
		dir: f.dir, entry: e, parent: f.parent, path: f.path, where: f.where,
		role: f.role, state: f.state, gap: f.gap,
	}
}

// entry sends a folder's own job.
func (s *scanner) entry(ctx context.Context, j *job) error {
	v, err := s.volume(ctx, j.entry.Dev, j.where)
	if err != nil {
		return err
	}
	j.volume = v.id
	return s.out.put(ctx, j)
}

// other sends an entry that is not a folder.
func (s *scanner) other(ctx context.Context, f folder, c child) error {
	j, err := s.job(ctx, f, c)
	if err != nil {
		return err
	}
	s.tally.seen.Add(1)
	return s.out.put(ctx, j)
}

func (s *scanner) job(ctx context.Context, f folder, c child) (*job, error) {
	j := &job{
		dir: f.dir, entry: c.entry, parent: f.path, where: path.Join(f.where, c.entry.Name),
		role: c.role, state: c.state, isNew: c.version == nil, path: c.path,
	}
	if c.version != nil {
		j.path, j.like = c.version.Path, c.version.File.Content
	}
	if c.entry.Err != nil {
		return j, nil
	}
	v, err := s.volume(ctx, c.entry.Dev, j.where)
	if err != nil {
		return nil, err
	}
	j.volume = v.id
	if c.moved != nil {
		j.twin = &c.moved.File
		return j, nil
	}
	if s.healing {
		return j, nil // every name reads for itself, or the lost content would be taken for its own twin
	}
	return j, s.link(ctx, j)
}

// end tells pack that all of a folder's entries were sent; mark is nil if the
// folder must be looked at closely next time.
func (s *scanner) end(ctx context.Context, f folder, mark *[16]byte) error {
	return s.out.put(ctx, &job{folder: f.path, mark: mark})
}
