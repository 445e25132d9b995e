// Package metatest makes dumps and views from trees that tests write down.
//
// It has an encoder of its own, so that a reader is not tested with the
// writer's idea of the format, and checks nothing: what a test describes is
// what the dump says, sound or not.
package metatest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

// Tree is a snapshot written down.
type Tree struct {
	Snapshot metastore.Snapshot // what is missing is made up
	Entries  []Entry            // in any order; directories that are missing above them are added
}

// Entry is one directory entry. What is zero gets what is most common: State
// complete, Role inside, Nlink 1, an Inode of its own on Volume 1, and the
// Size of the Extents. Content is always made up. Entries of one Inode share
// the first one's content.
type Entry struct {
	Path string // from "/" on, any bytes
	metastore.File
	Extents []view.Extent // of a regular file; Offset and ChunkSize are made up
}

// Dir is a directory, 0755, root's.
func Dir(path string) Entry {
	return Entry{Path: path, File: metastore.File{Stat: metastore.Stat{Type: metastore.Directory, Mode: 0o755}}}
}

// File is a regular file, 0644, root's.
func File(path string, extents ...view.Extent) Entry {
	return Entry{Path: path, File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o644}}, Extents: extents}
}

// Symlink is a symbolic link.
func Symlink(path, target string) Entry {
	return Entry{Path: path, File: metastore.File{
		Stat:   metastore.Stat{Type: metastore.Symlink, Mode: 0o777, Size: int64(len(target))},
		Target: target,
	}}
}

// View builds the tree's view in a temporary folder and opens it until the
// test ends.
func View(t testing.TB, tree Tree) *view.View {
	t.Helper()
	text, want := Dump(tree)
	path := filepath.Join(t.TempDir(), "view.db")
	parts := []build.Part{{Kind: dump.Full, N: 1, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}}}
	if err := build.View(context.Background(), path, parts, want); err != nil {
		t.Fatal(err)
	}
	v, err := view.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// Dump writes the tree as a full dump of one part.
func Dump(tree Tree) (text []byte, want build.Expected) {
	d := dumper{
		snapshot: complete(tree.Snapshot),
		paths:    map[string]int64{}, links: map[link]int64{},
		chunks: map[[32]byte]int64{}, blobs: map[[32]byte]int64{}, located: map[int64]bool{},
	}
	for _, e := range withParents(tree.Entries) {
		d.entry(e)
	}
	return d.text(), d.want
}

func complete(s metastore.Snapshot) metastore.Snapshot {
	s.Seq = cmp.Or(s.Seq, 1)
	s.Writer = cmp.Or(s.Writer, "host")
	s.ID = cmp.Or(s.ID, s.Writer+"-20260102-030405Z")
	s.Set = cmp.Or(s.Set, "default")
	s.Hostname = cmp.Or(s.Hostname, "host.example")
	if s.Chunking.Algorithm == "" {
		s.Chunking = metastore.Chunking{Algorithm: "fastcdc", Min: 256 << 10, Avg: 1 << 20, Max: 4 << 20}
	}
	if s.Chunking.Secret == nil {
		s.Chunking.Secret = make([]byte, 32)
	}
	return s
}

// withParents adds directories that are missing and sorts by components.
func withParents(entries []Entry) []Entry {
	known := map[string]bool{}
	for _, e := range entries {
		known[e.Path] = true
	}
	out := slices.Clone(entries)
	for _, e := range entries {
		for path := e.Path; path != "/"; {
			path = parent(path)
			if !known[path] {
				d := Dir(path)
				d.Role = metastore.RoleParent
				out, known[path] = append(out, d), true
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Entry) int {
		return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/"))
	})
	return out
}

func parent(path string) string {
	return cmp.Or(path[:strings.LastIndexByte(path, '/')], "/")
}

type link struct {
	volume int64
	inode  uint64
}

type dumper struct {
	snapshot metastore.Snapshot
	want     build.Expected
	paths    map[string]int64
	links    map[link]int64 // contents
	chunks   map[[32]byte]int64
	blobs    map[[32]byte]int64
	located  map[int64]bool // chunks
	rows     [dump.TableBlobChunks + 1][]string
}

// row adds a row of int64, []byte, string or nil, and returns its number.
func (d *dumper) row(t dump.Table, values ...any) int64 {
	var b strings.Builder
	for i, v := range values {
		b.WriteString([]string{",", "("}[min(1, max(0, 1-i))])
		switch v := v.(type) {
		case int64:
			fmt.Fprintf(&b, "%d", v)
		case []byte:
			fmt.Fprintf(&b, "X'%X'", v)
		case string:
			fmt.Fprintf(&b, "'%s'", v)
		case nil:
			b.WriteString("NULL")
		default:
			panic(fmt.Sprintf("a dump has no %T", v))
		}
	}
	d.rows[t] = append(d.rows[t], b.String()+")")
	return int64(len(d.rows[t]))
}

// next is the id of a table's next row.
func (d *dumper) next(t dump.Table) int64 { return int64(len(d.rows[t])) + 1 }

func (d *dumper) entry(e Entry) {
	path := d.next(dump.TablePaths)
	d.paths[e.Path] = path
	if e.Path == "/" {
		d.row(dump.TablePaths, path, int64(0), []byte{})
		e.Role = cmp.Or(e.Role, metastore.RoleRoot)
	} else {
		d.row(dump.TablePaths, path, d.paths[parent(e.Path)], []byte(e.Path[strings.LastIndexByte(e.Path, '/')+1:]))
	}
	f, id := e.File, d.next(dump.TableFiles)
	f.State, f.Role = cmp.Or(f.State, metastore.StateComplete), cmp.Or(f.Role, metastore.RoleInside)
	f.Volume, f.Nlink, f.Inode = cmp.Or(f.Volume, 1), cmp.Or(f.Nlink, 1), cmp.Or(f.Inode, 1_000_000+uint64(id))
	var content, target any
	if f.Type == metastore.Regular && (f.State == metastore.StateComplete || f.State == metastore.StateChanged) {
		c, size := d.content(e.Extents, link{f.Volume, f.Inode})
		content, f.Size = c, cmp.Or(f.Size, size)
		d.want.Totals.Bytes += f.Size
	}
	if f.Type == metastore.Symlink {
		target = []byte(f.Target)
	}
	if len(d.rows[dump.TableVolumes]) < int(f.Volume) {
		d.row(dump.TableVolumes, f.Volume, "ext4", int64(f.Volume), []byte("/"))
	}
	d.row(dump.TableFiles, id, path, string(f.Role), string(f.State), int64(f.Errno), string(rune(f.Type)),
		int64(f.Mode), int64(f.UID), int64(f.GID), []byte(f.User), []byte(f.Group), f.Size,
		f.MTime.Sec, int64(f.MTime.Nsec), f.CTime.Sec, int64(f.CTime.Nsec), f.BTime.Sec, int64(f.BTime.Nsec),
		f.Volume, int64(f.Inode), int64(f.Nlink), int64(f.RdevMajor), int64(f.RdevMinor), target, int64(f.Flags), content)
	for _, x := range f.Xattrs {
		d.row(dump.TableXattrs, id, []byte(x.Name), x.Value)
	}
}

// content writes the pieces of a content unless an entry with the same inode
// did, and returns the content's id and size.
func (d *dumper) content(extents []view.Extent, inode link) (id, size int64) {
	for _, x := range extents {
		size += x.Length
	}
	if id, known := d.links[inode]; known {
		return id, size
	}
	id = d.next(dump.TableContents)
	d.row(dump.TableContents, id)
	d.links[inode] = id
	offset := int64(0)
	for _, x := range extents {
		var chunk any
		if !x.Hole {
			chunk = d.chunk(x)
		}
		d.row(dump.TableFileChunks, id, offset, x.Length, chunk)
		offset += x.Length
	}
	return id, size
}

func (d *dumper) chunk(x view.Extent) int64 {
	id, known := d.chunks[x.Chunk]
	if !known {
		id = d.next(dump.TableChunks)
		d.chunks[x.Chunk] = id
		d.row(dump.TableChunks, id, x.Chunk[:], x.Length)
	}
	if x.Lost || d.located[id] {
		return id
	}
	blob, known := d.blobs[x.Blob.Hash]
	if !known {
		blob = d.next(dump.TableBlobs)
		d.blobs[x.Blob.Hash] = blob
		d.row(dump.TableBlobs, blob, x.Blob.Hash[:], x.Blob.Seq, x.Blob.Size, x.Blob.Header, make([]byte, 32), int64(3), int64(0))
	}
	d.located[id] = true
	d.row(dump.TableBlobChunks, id, blob, x.FrameOffset, x.FrameLength, x.FrameStart, x.Length)
	return id
}

func (d *dumper) text() []byte {
	s := d.snapshot
	list := func(l []string) []byte {
		out := []byte{}
		for _, e := range l {
			out = append(append(out, e...), 0)
		}
		return out
	}
	d.row(dump.TableSnapshots, s.Seq, s.ID, s.Writer, s.Set, []byte(s.Hostname),
		s.Started.Sec, int64(s.Started.Nsec), s.Finished.Sec, int64(s.Finished.Nsec), s.Version, s.Revision,
		list(s.Roots), list(s.Excludes), list(s.Tags),
		s.Chunking.Algorithm, int64(s.Chunking.Min), int64(s.Chunking.Avg), int64(s.Chunking.Max), s.Chunking.Secret,
		s.NewFiles, s.NewBytes, s.StoredBytes)
	d.want.ID, d.want.Writer, d.want.Set, d.want.Seq = s.ID, s.Writer, s.Set, s.Seq
	count := func(t dump.Table) int64 { return int64(len(d.rows[t])) }
	d.want.Totals = metastore.Totals{
		Files: count(dump.TableFiles), Bytes: d.want.Totals.Bytes,
		Volumes: count(dump.TableVolumes), Paths: count(dump.TablePaths), Xattrs: count(dump.TableXattrs),
		Contents: count(dump.TableContents), FileChunks: count(dump.TableFileChunks),
		Chunks: count(dump.TableChunks), Blobs: count(dump.TableBlobs), BlobChunks: count(dump.TableBlobChunks),
	}
	out := []byte("-- vaultik dump 1 full 1\nBEGIN;\n" + dump.Schema())
	for t, rows := range d.rows {
		for part := range slices.Chunk(rows, 100) {
			out = fmt.Appendf(out, "INSERT INTO %s VALUES%s;\n", dump.Table(t), strings.Join(part, ","))
		}
	}
	return append(out, "COMMIT;\n"...)
}
