package fusefs

import (
	"context"
	"errors"
	"hash/fnv"
	iofs "io/fs"

	"github.com/hanwen/go-fuse/v2/fuse"

	"git.eeqj.de/sneak/vaultik/fs"
)

// A file handle, of open_by_handle_at(2) or an NFS client, is an inode number
// and its generation. It may come back when the kernel forgot the inode, also
// from an earlier mount: the kernel then looks up "." in it, and ".." until it
// knows where a folder is. Inode numbers mean something only within a
// snapshot, and above the snapshots only within a mount, so the generation
// says which; what else would be another file is ESTALE.

// generation tells the inodes of a snapshot from those of others.
func generation(snapshot string) uint64 {
	h := fnv.New32a() // the kernel keeps 32 bits
	h.Write([]byte(snapshot))
	return uint64(h.Sum32())
}

func isDots(name string) bool { return name == "." || name == ".." }

// lookupDots finds an inode by its number, or the folder that it is in.
func (f *fileSystem) lookupDots(cancel <-chan struct{}, ino uint64, name string, out *fuse.EntryOut) fuse.Status {
	if f.above(ino) || name == ".." && f.tree == nil && ino&inodeMask == rootInode {
		if name == ".." {
			ino = f.layout.parent(ino)
		}
		if p, ok := f.layout.place(ino); ok {
			f.placeEntry(out, p)
		}
		return fuse.OK // without a NodeId: there is nothing
	}
	r := f.begin(cancel)
	defer r.end()
	t, base, done, err := f.use(r, ino)
	if err == nil {
		defer done()
		err = f.dots(t, ino, base, name, out)
	}
	if errors.Is(err, iofs.ErrNotExist) {
		return fuse.OK
	}
	return f.status(err)
}

func (f *fileSystem) dots(t *fs.Tree, ino, base uint64, name string, out *fuse.EntryOut) error {
	n, err := t.Node(context.Background(), ino&inodeMask)
	if err == nil && name == ".." && n.Parent != 0 {
		n, err = t.Node(context.Background(), n.Parent)
	}
	if err != nil {
		return err
	}
	if fs.Unknown(n) {
		return fs.ErrNotCaptured
	}
	f.shown.entry(out, &n, base, generation(t.Snapshot().ID))
	return nil
}
