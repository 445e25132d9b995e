package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"iter"
	"path"
	"strings"

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
func (s *scanner) list(ctx context.Context, f *folder) (*listing, error) {
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
func (s *scanner) marked(ctx context.Context, f *folder, names []string) error {
	var markers []string
	for _, name := range names {
		if s.matcher.Marker(name) {
			markers = append(markers, name)
		}
	}
	if len(markers) == 0 {
		return nil
	}
	entries, err := f.dir.Entries(ctx, markers)
	if err == nil {
		f.state = s.matcher.Marked(entries, func(e source.Entry) ([]byte, error) { return head(ctx, f.dir, e) })
	}
	return err
}

// children examines names and applies the set's rules: what they leave out is
// left out, but for the way to another root and for what marks the folder.
func (s *scanner) children(ctx context.Context, f folder, l *listing, names []string) ([]child, error) {
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
	rules := s.matcher.Directory(f.root.spelled, strings.Trim(strings.TrimPrefix(f.where, f.root.where), "/"))
	children := make([]child, 0, len(entries))
	for _, e := range entries {
		c := child{entry: e, place: f.place.in(e.Name), role: metastore.RoleInside, state: metastore.StateComplete}
		out := rules.Excludes(e) || (f.state != metastore.StateComplete && !s.matcher.Marker(e.Name))
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
			if c.state = s.matcher.Boundary(where, e, v.Volume, f.root.dev); c.state != metastore.StateComplete && c.place != nil {
				c.role, c.state = metastore.RoleParent, metastore.StateComplete
			}
		}
		children = append(children, c)
	}
	return children, nil
}

// mark condenses all that would show a change in a folder into 128 bits: its
// own state, and of every entry what resembles compares.
type mark struct {
	hash hash.Hash
	buf  []byte
}

func newMark(state metastore.State) *mark {
	return &mark{sha256.New(), append([]byte(state), 0)}
}

func (m *mark) add(c *child) {
	e := &c.entry
	buf := append(m.buf, e.Name...)
	buf = append(buf, 0, byte(e.Type))
	buf = append(append(append(buf, c.role...), 0), c.state...)
	buf = append(buf, 0)
	for _, n := range [...]int64{e.Size, e.MTime.Sec, int64(e.MTime.Nsec), e.CTime.Sec, int64(e.CTime.Nsec), int64(e.Inode)} {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(n))
	}
	if len(buf) > 16<<10 {
		m.hash.Write(buf)
		buf = buf[:0]
	}
	m.buf = buf
}

func (m *mark) sum() [16]byte {
	m.hash.Write(m.buf)
	return [16]byte(m.hash.Sum(nil)[:16])
}
