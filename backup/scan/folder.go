package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// folder is a directory being scanned.
type folder struct {
	dir    source.Dir
	entry  source.Entry
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
	entry   source.Entry
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

// folder scans a directory and everything below it.
func (s *Scanner) folder(ctx context.Context, f folder, last index.DirectoryMark) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.Progress(f.where)
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
func (s *Scanner) changes(ctx context.Context, f folder, l *listing) error {
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
func (s *Scanner) name(ctx context.Context, f folder, children []child) error {
	var names []string
	var named []*child
	for i := range children {
		if c := &children[i]; c.entry.Type != metastore.Directory {
			names, named = append(names, c.entry.Name), append(named, c)
		}
	}
	paths, err := s.Run.NewPaths(ctx, f.path, names)
	for i := range paths {
		named[i].path = paths[i]
	}
	return err
}

// subfolders scans the folders in f, one after the other.
func (s *Scanner) subfolders(ctx context.Context, f folder, l *listing, settled bool) error {
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
				if err := s.Run.ClearMark(ctx, f.path); err != nil {
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

// descend opens a folder's subfolder and scans it.
func (s *Scanner) descend(ctx context.Context, f folder, c child) error {
	s.Seen.Add(1)
	at, err := s.Run.Directory(ctx, f.path, c.entry.Name)
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

// tries is how often another folder is looked at in the place of one.
const tries = 3

// again looks once more at a name that no longer led to the folder that was
// listed: another one may have been put in its place.
func (s *Scanner) again(ctx context.Context, f folder, c child, sub folder, cause error) error {
	if (errors.Is(cause, source.ErrSwapped) || errors.Is(cause, fs.ErrNotExist)) && c.tries < tries {
		e, err := f.dir.Entry(ctx, c.entry.Name)
		if err == nil && e.Err == nil && e.Type == metastore.Directory && e.Dev == c.entry.Dev {
			s.Seen.Add(-1)
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
func (s *Scanner) unopened(ctx context.Context, f folder, c child, sub folder, cause error) error {
	j, err := s.item(ctx, f, c)
	if err != nil {
		return err
	}
	j.Path, j.Gap = sub.path, cause
	if err := s.Emit(ctx, j); err != nil {
		return err
	}
	return s.end(ctx, sub, nil)
}
