package scan

import (
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"strings"
	"sync/atomic"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// pageNames is how many entries of a folder are examined at once. A folder with
// more of them is gone through twice, a page at a time, first for its mark and
// then, if that is not the last run's, for what is different: all that is kept
// of a page are its names, and of its subfolders some 40 bytes each.
const pageNames = 4096

// listing is what a folder holds.
type listing struct {
	names    []string // sorted
	children []child  // all of them, if they are no more than a page
	mark     [16]byte
	folders  []subfolder
	known    bool // folders says whether they look the same
}

// subfolder is a folder in a listing.
type subfolder struct {
	child     *child // nil in a folder of several pages, where the rest stands in for it
	name      string
	same      bool
	movedPath int64
}

// pages yields the names page by page, and how many came before; an empty
// folder has one empty page.
func (l *listing) pages() iter.Seq2[int, []string] {
	return func(yield func(int, []string) bool) {
		for at := 0; at == 0 || at < len(l.names); at += pageNames {
			if !yield(at, l.names[at:min(at+pageNames, len(l.names))]) {
				return
			}
		}
	}
}

// note adds a subfolder.
func (l *listing) note(c child) {
	if !l.known {
		l.folders, l.known = l.folders[:0], true
	}
	sub := subfolder{name: c.entry.Name, same: c.same}
	if c.moved != nil {
		c.movedPath = c.moved.Path
		sub.movedPath = c.movedPath
	}
	if l.children != nil {
		sub.child = &c
	}
	l.folders = append(l.folders, sub)
}

// list reads a folder's names and condenses what they lead to into its mark. If
// the rules leave out what is in the folder, its state says so.
func (s *Scanner) list(ctx context.Context, f *folder) (*listing, error) {
	l := &listing{}
	if f.state == metastore.StateComplete {
		var err error
		if f.early == nil {
			f.early = &contents{}
			f.early.names, err = f.dir.Names(ctx)
		}
		if err == nil {
			err = f.early.err
		}
		if err != nil {
			return l, err
		}
		l.names = f.early.names
		if err := s.marked(ctx, f, l.names); err != nil {
			return l, err
		}
	}
	mark := newMark(f.state)
	for _, page := range l.pages() {
		children, err := s.children(ctx, *f, l, page)
		if err != nil {
			return l, err
		}
		if len(page) == len(l.names) {
			l.children = children
		}
		for i := range children {
			c := &children[i]
			mark.add(c)
			if c.entry.Type == metastore.Directory {
				sub := subfolder{name: c.entry.Name}
				if l.children != nil {
					sub.child = c
				}
				l.folders = append(l.folders, sub)
			}
		}
	}
	l.mark = mark.sum()
	return l, nil
}

// marked looks for an entry that leaves out what is in the folder.
func (s *Scanner) marked(ctx context.Context, f *folder, names []string) error {
	var markers []string
	for _, name := range names {
		if s.Matcher.Marker(name) {
			markers = append(markers, name)
		}
	}
	if len(markers) == 0 {
		return nil
	}
	entries, err := f.dir.Entries(ctx, markers)
	if err == nil {
		f.state = s.Matcher.Marked(entries, func(e source.Entry) ([]byte, error) { return head(ctx, f.dir, e) })
	}
	return err
}

// children examines names and applies the set's rules: what they leave out is
// left out, but for the way to another root and for what marks the folder.
func (s *Scanner) children(ctx context.Context, f folder, l *listing, names []string) ([]child, error) {
	if l.children != nil && len(names) == len(l.names) {
		return l.children, nil
	}
	var entries []source.Entry
	if f.early != nil && f.early.entries != nil {
		entries = f.early.entries
	} else {
		var err error
		if entries, err = f.dir.Entries(ctx, names); err != nil {
			return nil, err
		}
	}
	rules := s.Matcher.Directory(f.root.spelled, strings.Trim(strings.TrimPrefix(f.where, f.root.where), "/"))
	children := make([]child, 0, len(entries))
	for _, e := range entries {
		c := child{entry: e, place: f.place.in(e.Name), role: metastore.RoleInside, state: metastore.StateComplete}
		out := rules.Excludes(e) || (f.state != metastore.StateComplete && !s.Matcher.Marker(e.Name))
		switch {
		case c.place != nil && c.place.root:
			c.role = metastore.RoleRoot // whatever the rules say: the set names it
		case c.place != nil && out:
			c.role = metastore.RoleParent // left out but for the way down
		case out:
			continue
		case e.Err == nil && (e.Type == metastore.Directory || e.Dev != f.entry.Dev):
			where := path.Join(f.where, e.Name)
			v, err := s.volume(ctx, e.Dev, where)
			if err != nil {
				c.entry = source.Entry{Name: e.Name, Err: err}
				break
			}
			if c.state = s.Matcher.Boundary(where, e, v.Volume, f.root.dev); c.state != metastore.StateComplete && c.place != nil {
				c.role, c.state = metastore.RoleParent, metastore.StateComplete
			}
		}
		children = append(children, c)
	}
	return children, nil
}

// head reads the beginning of a file.
func head(ctx context.Context, dir source.Dir, e source.Entry) ([]byte, error) {
	f, err := dir.Open(ctx, e)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading: nothing to lose
	buf := make([]byte, exclude.TagSize)
	n, err := f.ReadAt(buf, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

const (
	// aheadFolders is how many folders are listed before scan comes to them,
	// next to each other: with a disk's or a server's latency it is what the
	// walk takes its time for, and a listing is most of scan's work otherwise.
	aheadFolders = 8
	// aheadEntries bounds the entries that wait in such listings, all in all.
	aheadEntries = 32 << 10
)

// contents is what was found in a folder before scan came to it.
type contents struct {
	names   []string
	entries []source.Entry // of all names, nil if they are more than a page
	err     error          // of listing them
}

// early is a folder on its way to being opened and listed.
type early struct {
	done chan struct{}
	dir  source.Dir
	contents
	failed  error // of opening it
	taken   bool
	waiting *atomic.Int64 // the scanner's count of entries
}

// take waits for the folder, which is the caller's then. Without one it returns
// nothing at all.
func (e *early) take() (source.Dir, *contents, error) {
	if e == nil {
		return nil, nil, nil
	}
	<-e.done
	e.taken = true
	e.waiting.Add(-int64(len(e.names)))
	if e.failed != nil {
		return nil, nil, e.failed
	}
	// The parent keeps e until it is done with; what was listed may be large.
	listed := e.contents
	e.contents = contents{}
	return e.dir, &listed, nil
}

// aheadOf lists the subfolders of one folder early, in their order.
type aheadOf struct {
	*Scanner
	in      source.Dir
	folders []subfolder
	begun   []*early
	given   int
}

func (s *Scanner) lookAhead(f folder, l *listing) *aheadOf {
	a := &aheadOf{Scanner: s, in: f.dir}
	if l.children != nil {
		a.folders = l.folders
	}
	return a
}

// next begins some more listings and gives out the next one, nil if there is none.
func (a *aheadOf) next(ctx context.Context) *early {
	for len(a.begun) < min(len(a.folders), a.given+aheadFolders) && a.waiting.Load() < aheadEntries {
		a.begun = append(a.begun, a.begin(ctx, a.folders[len(a.begun)].child.entry))
	}
	a.given++
	if a.given > len(a.begun) {
		// Not begun while there was no room: whoever asks does it now.
		if a.given <= len(a.folders) {
			a.begun = append(a.begun, nil)
		}
		return nil
	}
	return a.begun[a.given-1]
}

func (a *aheadOf) begin(ctx context.Context, entry source.Entry) *early {
	e := &early{done: make(chan struct{}), waiting: &a.waiting}
	a.listers.Go(func() error {
		defer close(e.done)
		if e.dir, e.failed = a.in.OpenDir(ctx, entry); e.failed != nil {
			return nil // whoever takes it is told
		}
		if e.names, e.err = e.dir.Names(ctx); e.err == nil && len(e.names) <= pageNames {
			e.entries, e.err = e.dir.Entries(ctx, e.names)
		}
		e.waiting.Add(int64(len(e.names)))
		return nil
	})
	return e
}

// drop lets go of listings that nobody took.
func (a *aheadOf) drop() {
	for _, e := range a.begun {
		if e == nil || e.taken {
			continue
		}
		if dir, _, err := e.take(); err == nil {
			dir.Close()
		}
	}
}
