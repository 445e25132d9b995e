// Package scan is the first stage of a backup: it walks a set's paths, compares
// what is there with what the last run recorded, and emits what has to be read or
// recorded anew.
//
//	roots.go    where the set's paths really are, and the way down to them
//	folder.go   a folder and those below it
//	listing.go  what is in a folder, listed ahead of the walk
//	compare.go  what is new, different or gone
//	inode.go    volumes, further names of a file, folders that were moved
//
// It promises one order: the entries of a folder by name, its subfolders last and
// one after the other, so that everything below one folder lies together in the
// blobs. It never follows a symbolic link below the set's paths, and what cannot
// be looked at is emitted as a gap rather than taken for deleted. Its memory is
// that of a page of entries and of the listings ahead, besides the names of the
// folder at hand and those above it and what inodes with further names take.
//
// What it does not: it reads no file, but for the few bytes of a cache directory
// tag, and it is not a state at one moment: the tree goes on changing behind it.
package scan

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// ErrNoRoots: none of the set's paths exists.
var ErrNoRoots = errors.New("none of the set's paths could be read")

// Config wires a scan. All fields are needed.
type Config struct {
	Source  source.FS
	Run     *index.Run // what it compares with, and closes paths in
	Matcher *exclude.Matcher
	Set     string
	Roots   []string // absolute paths

	// Emit takes what was found, in order, and must retain the item's Dir for as
	// long as it needs it.
	Emit func(context.Context, Item) error

	Progress      func(where string)            // called for every folder
	Problem       func(where string, err error) // something could not be looked at
	Seen, Removed *atomic.Int64                 // entries are counted here
}

// Item is an entry that may have changed since the set's last run, or, if Dir is
// nil, the word that all entries of one folder have been sent.
type Item struct {
	Dir    source.Dir   // holds the entry
	Entry  source.Entry // Name "" if the entry is Dir itself
	Parent int64        // path id of the folder it is in
	Path   int64        // path id, 0 if not known yet
	Where  string       // the path as people read it
	Volume int64        // of the index
	Role   metastore.Role
	State  metastore.State
	Gap    error           // why nothing below or in it could be read: record it as a gap
	Like   int64           // content of the version before, to compare with
	New    bool            // no version of it is open
	Twin   *metastore.File // another name of the same inode, recorded and unchanged

	Group  *Group // of the hard links that this run meets, nil if it has none
	Leads  bool   // the first of them: it reads the content for all
	Shared bool   // another one: its content is that of the group

	// Of a folder's end.
	Folder int64     // path id
	Mark   *[16]byte // nil if the next run must look closely at it
}

// Group is what the hard links of one inode share during a run. The first link
// met reads the content; the others wait for it. But for Done it is filled in by
// those who read and record.
type Group struct {
	Done    chan struct{}  // closed when the first link was read
	OK      bool           // it was read well
	Stat    metastore.Stat // of what was read: who looks otherwise reads for itself
	Started time.Time      // when its reading began: what the others show is as old
	Content int64          // set by whoever records, in order
}

// Scanner is a scan at work. It is used by one goroutine.
type Scanner struct {
	Config
	volumes map[uint64]volume // by Dev
	groups  map[groupKey]*groupCount
	found   bool // at least one root is there
	listers errgroup.Group
	waiting atomic.Int64 // entries in listings that the walk has not come to
	gone    []int64      // paths to close when all has been seen: what was there may only have moved
}

// New prepares a scan.
func New(c Config) *Scanner {
	return &Scanner{Config: c, volumes: map[uint64]volume{}, groups: map[groupKey]*groupCount{}}
}

// Walk emits every entry that may have changed since the set's last run, and
// closes the paths of those that are gone. Entries of a folder come in byte order
// of their names.
func (s *Scanner) Walk(ctx context.Context) error {
	defer s.listers.Wait() // they report to those who wait for them, never here
	top, err := s.place(ctx)
	if err != nil {
		return err
	}
	entry, dir, err := s.Source.Root(ctx)
	if err != nil {
		return fmt.Errorf("open /: %w", err)
	}
	defer dir.Close()
	at, err := s.Run.Directory(ctx, 0, "")
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
		return fmt.Errorf("set %q: %w", s.Set, ErrNoRoots)
	}
	return s.closeGone(ctx)
}

// Reread emits a regular file once more, of which the recorded content was lost.
// Each of its names reads for itself, or the lost content would be taken for its
// own twin.
func (s *Scanner) Reread(ctx context.Context, dir source.Dir, where string, e source.Entry, m index.MissingFile) error {
	v, err := s.volume(ctx, e.Dev, where)
	if err != nil {
		return err
	}
	s.Seen.Add(1)
	return s.Emit(ctx, Item{
		Dir: dir, Entry: e, Path: m.Path, Where: where, Volume: v.id,
		Role: m.File.Role, State: metastore.StateComplete, Like: m.File.Content,
	})
}

// self is the item that records the folder's own metadata.
func (f *folder) self() Item {
	e := f.entry
	e.Name = "" // the directory itself
	return Item{
		Dir: f.dir, Entry: e, Parent: f.parent, Path: f.path, Where: f.where,
		Role: f.role, State: f.state, Gap: f.gap,
	}
}

// entry emits a folder's own item.
func (s *Scanner) entry(ctx context.Context, j Item) error {
	v, err := s.volume(ctx, j.Entry.Dev, j.Where)
	if err != nil {
		return err
	}
	j.Volume = v.id
	return s.Emit(ctx, j)
}

// other emits an entry that is not a folder.
func (s *Scanner) other(ctx context.Context, f folder, c child) error {
	j, err := s.item(ctx, f, c)
	if err != nil {
		return err
	}
	s.Seen.Add(1)
	return s.Emit(ctx, j)
}

func (s *Scanner) item(ctx context.Context, f folder, c child) (Item, error) {
	j := Item{
		Dir: f.dir, Entry: c.entry, Parent: f.path, Where: path.Join(f.where, c.entry.Name),
		Role: c.role, State: c.state, New: c.version == nil, Path: c.path,
	}
	if c.version != nil {
		j.Path, j.Like = c.version.Path, c.version.File.Content
	}
	if c.entry.Err != nil {
		return j, nil
	}
	v, err := s.volume(ctx, c.entry.Dev, j.Where)
	if err != nil {
		return j, err
	}
	j.Volume = v.id
	if c.moved != nil {
		j.Twin = &c.moved.File
		return j, nil
	}
	return j, s.link(ctx, &j)
}

// end tells that all of a folder's entries were sent; mark is nil if the
// folder must be looked at closely next time.
func (s *Scanner) end(ctx context.Context, f folder, mark *[16]byte) error {
	return s.Emit(ctx, Item{Folder: f.path, Mark: mark})
}
