package backup

import (
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// node is one entry of a literal tree. A tree is a map from absolute paths to
// nodes; parents that are not named are folders.
type node struct {
	Type    metastore.Type // Regular if Content is set, else Directory
	Content string
	Target  string
	Time    int64 // mtime and ctime in seconds
	Inode   uint64
	Nlink   uint32
	Dev     uint64
	Xattrs  map[string]string

	DenyOpen error       // on opening or listing
	DenyRead error       // on reading content
	DenyMeta error       // on asking for attributes and targets
	DenyStat error       // on lstat
	OnOpen   func(*node) // called when the content is opened
	OnRead   func(*node) // called before each read
	OnNames  func()      // called before a folder is listed
	Swapped  bool        // what is opened is something else
	Data     [][2]int64  // data ranges, nil for all of it
}

// fakeSource is a Source in memory that does as its nodes say.
type fakeSource struct {
	mu      sync.Mutex
	nodes   map[string]*node
	opens   []string // files whose content was opened
	dirs    int      // handles open
	largest int      // number of entries examined at once
}

func newSource(tree map[string]node) *fakeSource {
	s := &fakeSource{nodes: map[string]*node{}}
	for p, n := range tree {
		s.set(p, n)
	}
	return s
}

// set adds or replaces an entry.
func (s *fakeSource) set(p string, n node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.Type == 0 {
		n.Type = metastore.Directory
		if n.Content != "" {
			n.Type = metastore.Regular
		}
	}
	if n.Inode == 0 {
		n.Inode = uint64(len(s.nodes) + 100)
		if old := s.nodes[p]; old != nil {
			n.Inode = old.Inode
		}
	}
	n.Nlink, n.Dev = max(n.Nlink, 1), max(n.Dev, 1)
	s.nodes[p] = &n
	for p != "/" {
		p = p[:strings.LastIndex(p, "/")]
		if p == "" {
			p = "/"
		}
		if s.nodes[p] == nil {
			s.nodes[p] = &node{Type: metastore.Directory, Inode: uint64(len(s.nodes) + 100), Nlink: 1, Dev: 1}
		}
	}
}

// remove deletes an entry and all below it.
func (s *fakeSource) remove(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.nodes, func(q string, _ *node) bool { return q == p || strings.HasPrefix(q, p+"/") })
}

// opened returns and forgets which files were opened.
func (s *fakeSource) opened() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.opens
	s.opens = nil
	slices.Sort(o)
	return o
}

func (n *node) stat() metastore.Stat {
	st := metastore.Stat{
		Type: n.Type, Mode: 0o644, MTime: metastore.Time{Sec: n.Time}, CTime: metastore.Time{Sec: n.Time},
		Inode: n.Inode, Nlink: n.Nlink,
	}
	switch n.Type {
	case metastore.Regular:
		st.Size = int64(len(n.Content))
	case metastore.Symlink:
		st.Size = int64(len(n.Target))
	}
	return st
}

func (s *fakeSource) Root(context.Context) (source.Entry, source.Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs++
	n := s.nodes["/"]
	return source.Entry{Stat: n.stat(), Dev: n.Dev}, &fakeDir{source: s, path: "/", refs: 1}, nil
}

func (s *fakeSource) Volume(_ context.Context, dev uint64, _ string) (source.Volume, error) {
	return source.Volume{FSType: "ext4", FSID: dev, Root: "/"}, nil
}

type fakeDir struct {
	source *fakeSource
	path   string
	refs   int
}

func (d *fakeDir) child(name string) string {
	if name == "" {
		return d.path
	}
	return strings.TrimSuffix(d.path, "/") + "/" + name
}

// node finds an entry as it is now, and where to change it.
func (d *fakeDir) node(name string) (now node, at *node, err error) {
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	n := d.source.nodes[d.child(name)]
	if n == nil {
		return node{}, nil, &fs.PathError{Op: "open", Path: d.child(name), Err: syscall.ENOENT}
	}
	return *n, n, nil
}

func (d *fakeDir) Names(context.Context) ([]string, error) {
	if n, _, err := d.node(""); err == nil && n.OnNames != nil {
		n.OnNames()
	}
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	if n := d.source.nodes[d.path]; n == nil {
		return nil, syscall.ENOENT
	} else if n.DenyOpen != nil {
		return nil, n.DenyOpen
	}
	var list []string
	prefix := strings.TrimSuffix(d.path, "/") + "/"
	for _, p := range slices.Sorted(maps.Keys(d.source.nodes)) {
		name, below := strings.CutPrefix(p, prefix)
		if !below || name == "" || strings.Contains(name, "/") {
			continue
		}
		list = append(list, name)
	}
	return list, nil
}

func (d *fakeDir) Entries(_ context.Context, names []string) ([]source.Entry, error) {
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	d.source.largest = max(d.source.largest, len(names))
	var list []source.Entry
	for _, name := range names {
		if n := d.source.nodes[d.child(name)]; n != nil {
			list = append(list, entryOf(name, n))
		}
	}
	return list, nil
}

func entryOf(name string, n *node) source.Entry {
	if n.DenyStat != nil {
		return source.Entry{Name: name, Err: n.DenyStat}
	}
	return source.Entry{Name: name, Stat: n.stat(), Dev: n.Dev}
}

func (d *fakeDir) Entry(_ context.Context, name string) (source.Entry, error) {
	n, _, err := d.node(name)
	if err != nil {
		return source.Entry{}, err
	}
	return entryOf(name, &n), nil
}

func (d *fakeDir) OpenDir(_ context.Context, e source.Entry) (source.Dir, error) {
	n, _, err := d.node(e.Name)
	if err != nil {
		return nil, err
	}
	if n.Swapped {
		return nil, source.ErrSwapped
	}
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	d.source.dirs++
	return &fakeDir{source: d.source, path: d.child(e.Name), refs: 1}, nil
}

func (d *fakeDir) Open(_ context.Context, e source.Entry) (source.File, error) {
	n, at, err := d.node(e.Name)
	if err != nil {
		return nil, err
	}
	if n.DenyOpen != nil {
		return nil, n.DenyOpen
	}
	if n.Inode != e.Inode || n.Swapped {
		return nil, source.ErrSwapped
	}
	d.source.mu.Lock()
	d.source.opens = append(d.source.opens, d.child(e.Name))
	d.source.mu.Unlock()
	if n.OnOpen != nil {
		n.OnOpen(at)
	}
	return &fakeFile{d.source, at, n.stat()}, nil
}

func (d *fakeDir) Meta(_ context.Context, e source.Entry) (source.Meta, error) {
	n, _, err := d.node(e.Name)
	if err != nil {
		return source.Meta{}, err
	}
	return n.meta()
}

func (f *fakeFile) Meta(context.Context) (source.Meta, error) {
	n := f.now()
	return n.meta()
}

func (n *node) meta() (source.Meta, error) {
	if n.DenyMeta != nil {
		return source.Meta{User: "ann", Group: "users"}, n.DenyMeta
	}
	m := source.Meta{User: "ann", Group: "users", Target: n.Target}
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		m.Xattrs = append(m.Xattrs, metastore.Xattr{Name: name, Value: []byte(n.Xattrs[name])})
	}
	return m, nil
}

func (d *fakeDir) Retain() {
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	d.refs++
}

func (d *fakeDir) Close() error {
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	if d.refs--; d.refs == 0 {
		d.source.dirs--
	}
	if d.refs < 0 {
		return fs.ErrClosed
	}
	return nil
}

type fakeFile struct {
	source *fakeSource
	node   *node
	opened metastore.Stat
}

func (f *fakeFile) Opened() metastore.Stat { return f.opened }

// now is the file as it is now.
func (f *fakeFile) now() node {
	f.source.mu.Lock()
	defer f.source.mu.Unlock()
	return *f.node
}

func (f *fakeFile) Stat() (metastore.Stat, error) {
	n := f.now()
	return n.stat(), nil
}

func (f *fakeFile) NextData(off int64) (int64, int64, error) {
	n := f.now()
	size := int64(len(n.Content))
	if n.Data == nil {
		if off >= size {
			return 0, 0, io.EOF
		}
		return off, size, nil
	}
	for _, r := range n.Data {
		if off < r[1] {
			return max(off, r[0]), r[1], nil
		}
	}
	return 0, 0, io.EOF
}

func (f *fakeFile) ReadAt(p []byte, off int64) (int, error) {
	if n := f.now(); n.OnRead != nil {
		n.OnRead(f.node)
	}
	n := f.now()
	if n.DenyRead != nil {
		return 0, n.DenyRead
	}
	return strings.NewReader(n.Content).ReadAt(p, off)
}

func (f *fakeFile) Close() error { return nil }

// closed fails the test if a handle was left open.
func (s *fakeSource) closed(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirs != 0 {
		t.Errorf("%d folders were left open", s.dirs)
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
