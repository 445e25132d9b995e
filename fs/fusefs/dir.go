package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Offsets in a directory: 0 is the start, 1 after ".", 2 after "..", and the
// tree's cookie + dots after an entry. A tree's cookies are below 2^62, so that
// telldir(3) never returns a negative number.
const dots = 2

// Lookup finds a name in a directory. Absence is an answer too, and cached.
func (f *fileSystem) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if isDots(name) {
		return f.lookupDots(cancel, in.NodeId, name, out)
	}
	if f.above(in.NodeId) {
		p, ok := f.layout.child(in.NodeId, name)
		if !ok {
			out.SetEntryTimeout(brief)
			return fuse.OK // NodeId 0: there is no such name
		}
		f.placeEntry(out, p)
		return fuse.OK
	}
	r := f.begin(cancel)
	defer r.end()
	t, base, done, err := f.use(r, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	defer done()
	n, err := t.Lookup(context.Background(), in.NodeId&inodeMask, name)
	if errors.Is(err, iofs.ErrNotExist) {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if err != nil {
		return f.status(err)
	}
	f.shown.entry(out, &n, base, generation(t.Snapshot().ID))
	return fuse.OK
}

// placeEntry answers a LOOKUP of a place.
func (f *fileSystem) placeEntry(out *fuse.EntryOut, p *place) {
	out.NodeId, out.Generation = p.ino, p.generation
	out.SetEntryTimeout(brief)
	if p.kind != snapshotPlace {
		out.SetAttrTimeout(brief)
	}
	out.Attr = f.placeOut(p)
}

// OpenDir is answered ENOSYS: the kernel then opens directories without asking
// and caches listings.
func (f *fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// ReadDir lists a directory by name, type and inode number.
func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, listing{list: out, shown: f.shown})
}

// ReadDirPlus lists a directory with all attributes, so that the kernel asks
// nothing more about the entries.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, listing{list: out, plus: true, shown: f.shown})
}

func (f *fileSystem) readDir(cancel <-chan struct{}, in *fuse.ReadIn, out listing) fuse.Status {
	if f.above(in.NodeId) {
		return f.readPlaces(in, out)
	}
	r := f.begin(cancel)
	defer r.end()
	t, base, done, err := f.use(r, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	defer done()

	cookie := uint64(0)
	if in.Offset > dots {
		cookie = in.Offset - dots
		f.pusher.knows(in.NodeId, base, cookie)
	}
	out.generation = generation(t.Snapshot().ID)
	batch := out.fits(int(in.Size))
	nodes, err := t.ReadDir(context.Background(), in.NodeId&inodeMask, cookie, batch)
	if err != nil {
		return f.status(err)
	}
	if in.Offset < dots {
		up := in.NodeId
		if n, err := t.Node(context.Background(), in.NodeId&inodeMask); err == nil && n.Parent != 0 {
			up = base | n.Parent
		}
		if !out.addDots(in.NodeId, up, in.Offset) {
			return fuse.OK
		}
	}
	for len(nodes) > 0 {
		for i := range nodes {
			if !out.addNode(&nodes[i], base) {
				return fuse.OK
			}
			cookie = nodes[i].Cookie
		}
		if nodes, err = t.ReadDir(context.Background(), in.NodeId&inodeMask, cookie, batch); err != nil {
			// What is in the list is right; the kernel comes again for the rest.
			return fuse.OK
		}
	}
	return fuse.OK
}

func (f *fileSystem) readPlaces(in *fuse.ReadIn, out listing) fuse.Status {
	if _, ok := f.layout.place(in.NodeId); !ok {
		return fuse.ENOENT
	}
	if !out.addDots(in.NodeId, in.NodeId, in.Offset) {
		return fuse.OK
	}
	for _, p := range f.layout.children(in.NodeId) {
		if p.id+dots <= in.Offset {
			continue
		}
		a := f.placeOut(p)
		e := fuse.DirEntry{Name: p.name, Ino: p.ino, Mode: a.Mode, Off: p.id + dots}
		if !out.plus {
			if !out.list.AddDirEntry(e) {
				break
			}
			continue
		}
		o := out.list.AddDirLookupEntry(e)
		if o == nil {
			break
		}
		f.placeEntry(o, p)
	}
	return fuse.OK
}

// listing is the answer to READDIR or READDIRPLUS.
type listing struct {
	list       *fuse.DirEntryList
	plus       bool
	shown      *Owner
	generation uint64 // of the entries
}

// fits guesses how many entries with names of 16 bytes fit into size bytes.
func (l listing) fits(size int) int {
	each := 24 + 16
	if l.plus {
		each += 128
	}
	return max(size/each, 1)
}

// addDots adds "." and ".." if the listing begins, and reports whether there
// is room for more. The kernel knows their attributes.
func (l listing) addDots(ino, up, offset uint64) bool {
	for _, e := range []fuse.DirEntry{{Name: ".", Ino: ino, Off: 1}, {Name: "..", Ino: up, Off: 2}} {
		if offset >= e.Off {
			continue
		}
		e.Mode = unix.S_IFDIR
		if l.plus && l.list.AddDirLookupEntry(e) == nil || !l.plus && !l.list.AddDirEntry(e) {
			return false
		}
	}
	return true
}

func (l listing) addNode(n *view.Node, base uint64) bool {
	e := fuse.DirEntry{Name: n.Name, Ino: base | n.Ino, Mode: n.Type.Format(), Off: n.Cookie + dots}
	if !l.plus {
		return l.list.AddDirEntry(e)
	}
	out := l.list.AddDirLookupEntry(e)
	if out == nil {
		return false
	}
	if !fs.Unknown(*n) { // else the kernel asks for it, and is told
		l.shown.entry(out, n, base, l.generation)
	}
	return true
}
