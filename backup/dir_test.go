package backup

import (
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

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
