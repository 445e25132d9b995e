package backup

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
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
	inode   uint64   // given last
	opens   []string // files whose content was opened
	dirs    int      // handles open
	largest int      // number of entries examined at once
}

func newSource(tree map[string]node) *fakeSource {
	s := &fakeSource{nodes: map[string]*node{}, inode: 1_000_000}
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		s.set(p, tree[p])
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
	if old := s.nodes[p]; n.Inode == 0 && old != nil {
		n.Inode = old.Inode
	} else if n.Inode == 0 {
		n.Inode = s.fresh()
	}
	n.Nlink, n.Dev = max(n.Nlink, 1), max(n.Dev, 1)
	s.nodes[p] = &n
	for p != "/" {
		p = p[:strings.LastIndex(p, "/")]
		if p == "" {
			p = "/"
		}
		if s.nodes[p] == nil {
			s.nodes[p] = &node{Type: metastore.Directory, Inode: s.fresh(), Nlink: 1, Dev: 1}
		}
	}
}

// fresh returns an inode number that nothing has or had.
func (s *fakeSource) fresh() uint64 {
	s.inode++
	return s.inode
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
