package metatest

import (
	"context"
	"io"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

// Tiny is the tree of the example in docs/FORMAT.md.
func Tiny() Tree {
	owner := func(e Entry, f func(*metastore.File)) Entry {
		e.User, e.Group, e.MTime = "root", "root", metastore.Time{Sec: 1767323045, Nsec: 6}
		if f != nil {
			f(&e.File)
		}
		return e
	}
	blob := view.BlobInfo{Hash: [32]byte{0xbb}, Seq: 1, Size: 4096, Header: 1659}
	shared := []view.Extent{
		{Length: 6, Chunk: [32]byte{0xc1}, Blob: blob, FrameOffset: 24, FrameLength: 19},
		{Length: 65536, Hole: true},
		{Length: 7, Chunk: [32]byte{0xc2}, Blob: blob, FrameOffset: 24, FrameLength: 19, FrameStart: 6},
	}
	linked := func(f *metastore.File) { f.Inode, f.Nlink = 77, 2 }
	return Tree{
		Snapshot: metastore.Snapshot{
			Started: metastore.Time{Sec: 1767323045}, Finished: metastore.Time{Sec: 1767323046, Nsec: 5},
			Version: "1.0", Revision: "0123abc",
			Roots: []string{"/srv"}, Excludes: []string{"*.o", "/srv/tmp"}, NewFiles: 6, NewBytes: 131098, StoredBytes: 4096,
		},
		Entries: []Entry{
			owner(Dir("/"), func(f *metastore.File) { f.Role = metastore.RoleParent }),
			owner(Dir("/srv"), func(f *metastore.File) {
				f.Role, f.Xattrs = metastore.RoleRoot, []metastore.Xattr{{Name: "user.k", Value: []byte{0, 255}}}
			}),
			owner(File("/srv/a", shared...), linked),
			owner(File("/srv/b", shared...), linked),
			owner(Symlink("/srv/l", "a"), nil),
			owner(File("/srv/z'\n\xff"), nil),
		},
	}
}

// Parts makes full parts of texts.
func Parts(texts ...string) (parts []build.Part) {
	for _, text := range texts {
		parts = append(parts, build.Part{Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		}})
	}
	return parts
}

// Walk lists everything that a view shows by path, and the paths in the order of slots.
func Walk(t testing.TB, v *view.View) (map[string]view.Node, []string) {
	t.Helper()
	root, err := v.Node(t.Context(), v.Root())
	if err != nil {
		t.Fatal(err)
	}
	shown, order := map[string]view.Node{"/": root}, []string{"/"}
	var down func(path string, dir view.Node)
	down = func(path string, dir view.Node) {
		cookie := uint64(0)
		var folders []view.Node
		for {
			nodes, err := v.ReadDir(t.Context(), dir.Ino, cookie, 7)
			if err != nil {
				t.Fatalf("%q: %v", path, err)
			}
			if len(nodes) == 0 {
				break
			}
			for _, n := range nodes {
				shown[path+n.Name], order = n, append(order, path+n.Name)
				if n.Type == metastore.Directory {
					folders = append(folders, n)
				}
			}
			cookie = nodes[len(nodes)-1].Cookie
		}
		for _, n := range folders {
			down(path+n.Name+"/", n)
		}
	}
	down("/", root)
	return shown, order
}
