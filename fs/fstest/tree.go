// Package fstest makes stores with real snapshots from literal trees, for the
// tests of everything that reads them. It goes the way a backup goes: chunks
// in blobs, rows in an index, a sealed dump, a signed manifest.
package fstest

import (
	"bytes"
	"math/rand/v2"
	"path"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Entry is one entry of a literal tree.
type Entry struct {
	Path string // absolute; its parents may come before, or are made up
	metastore.File
	Pieces []Piece // the content of a regular file: each becomes a chunk or a hole
}

// Piece is a part of a file's content.
type Piece struct {
	Data []byte // at most 16 MiB
	Hole int64  // bytes, if Data is empty
	Lost bool   // the chunk is in no blob
}

// When is the modification time of entries that do not say theirs.
var When = metastore.Time{Sec: 1_700_000_000, Nsec: 123_456_789}

// Dir is a directory that belongs to root.
func Dir(p string) Entry {
	return Entry{Path: p, File: metastore.File{Stat: metastore.Stat{Type: metastore.Directory, Mode: 0o755}}}
}

// Regular is a file with content, cut into pieces of at most 1 MiB.
func Regular(p string, data []byte) Entry {
	e := Entry{Path: p, File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o644}}}
	for len(data) > 0 {
		n := min(len(data), 1<<20)
		e.Pieces = append(e.Pieces, Piece{Data: data[:n]})
		data = data[n:]
	}
	return e
}

// Symlink is a symbolic link.
func Symlink(p, target string) Entry {
	return Entry{Path: p, File: metastore.File{Stat: metastore.Stat{Type: metastore.Symlink, Mode: 0o777}, Target: target}}
}

// Special is a device, FIFO or socket.
func Special(p string, t metastore.Type, major, minor uint32) Entry {
	return Entry{Path: p, File: metastore.File{Stat: metastore.Stat{Type: t, Mode: 0o600, RdevMajor: major, RdevMinor: minor}}}
}

// With changes an entry in place of a longer literal.
func (e Entry) With(change func(*Entry)) Entry {
	change(&e)
	return e
}

// Xattr adds an extended attribute. Add them sorted by name.
func (e Entry) Xattr(name, value string) Entry {
	e.Xattrs = append(e.Xattrs[:len(e.Xattrs):len(e.Xattrs)], metastore.Xattr{Name: name, Value: []byte(value)})
	return e
}

// Bytes is the content as a reader gets it.
func (e Entry) Bytes() []byte {
	var b bytes.Buffer
	for _, p := range e.Pieces {
		b.Write(p.Data)
		if len(p.Data) == 0 {
			b.Write(make([]byte, p.Hole))
		}
	}
	return b.Bytes()
}

// Noise returns n bytes that do not compress, the same for the same seed.
func Noise(seed uint64, n int) []byte {
	c := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	b := make([]byte, n)
	_, _ = c.Read(b) // never fails
	return b
}

// complete fills in what a literal may leave out, and adds "/" and other
// missing parents.
func complete(tree []Entry) []Entry {
	known := make(map[string]bool)
	for _, e := range tree {
		known[e.Path] = true
	}
	var out []Entry
	var parents func(p string)
	parents = func(p string) {
		if known[p] {
			return
		}
		if p != "/" {
			parents(path.Dir(p))
		}
		known[p] = true
		out = append(out, Dir(p).With(func(e *Entry) { e.Role = metastore.RoleParent }))
	}
	parents("/")
	for _, e := range tree {
		if e.Path != "/" {
			parents(path.Dir(e.Path))
		}
	}
	out = append(out, tree...)
	for i := range out {
		e := &out[i]
		if e.Role == "" {
			e.Role = metastore.RoleInside
		}
		if e.State == "" {
			e.State = metastore.StateComplete
		}
		if e.MTime == (metastore.Time{}) {
			e.MTime = When
		}
		if e.CTime == (metastore.Time{}) {
			e.CTime = e.MTime
		}
		if e.Inode == 0 {
			e.Inode = uint64(1000 + i)
		}
		if e.Nlink == 0 {
			e.Nlink = 1
		}
		switch e.Type {
		case metastore.Regular:
			if len(e.Pieces) > 0 {
				e.Size = 0
			}
			for _, p := range e.Pieces {
				e.Size += max(int64(len(p.Data)), p.Hole)
			}
		case metastore.Symlink:
			e.Size = int64(len(e.Target))
		}
	}
	return out
}
