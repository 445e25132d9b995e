package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Open is answered ENOSYS: the kernel then opens files without asking, keeps
// their content from one open to the next, and sends no RELEASE.
func (f *fileSystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush is answered ENOSYS: the kernel then closes files without asking.
func (f *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read reads from a file. It is never short but at the end of the file.
func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if f.above(in.NodeId) {
		return nil, fuse.EISDIR
	}
	r := f.begin(cancel)
	defer r.end()
	t, n, done, err := f.find(r, in.NodeId)
	if err != nil {
		return nil, f.status(err)
	}
	defer done()
	defer f.pusher.begins(in.NodeId, in.NodeId&^inodeMask, &n, int64(in.Offset))()
	got, err := t.ReadAt(r, n, buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.status(err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// Lseek finds holes and data; the kernel knows the rest itself.
func (f *fileSystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if f.above(in.NodeId) {
		return fuse.EINVAL
	}
	r := f.begin(cancel)
	defer r.end()
	t, n, done, err := f.find(r, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	defer done()
	var off int64
	switch in.Whence {
	case unix.SEEK_DATA:
		off, err = t.SeekData(r, n, int64(in.Offset))
	case unix.SEEK_HOLE:
		off, err = t.SeekHole(r, n, int64(in.Offset))
	default:
		return fuse.EINVAL
	}
	if errors.Is(err, io.EOF) {
		return fuse.Status(unix.ENXIO)
	}
	out.Offset = uint64(off)
	return f.status(err)
}

// Readlink returns the target of a symbolic link; the kernel keeps it.
func (f *fileSystem) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	if f.above(in.NodeId) {
		p, ok := f.layout.place(in.NodeId)
		if !ok || p.kind != linkPlace {
			return nil, fuse.EINVAL
		}
		return []byte(p.target), fuse.OK
	}
	n, _, err := f.node(cancel, in.NodeId)
	if err != nil {
		return nil, f.status(err)
	}
	if n.Type != metastore.Symlink {
		return nil, fuse.EINVAL
	}
	return []byte(n.Target), fuse.OK
}

// Ioctl answers FS_IOC_GETFLAGS, which is what lsattr(1) asks.
func (f *fileSystem) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, _ []byte, out *fuse.IoctlOut, dest []byte) fuse.Status {
	if in.Cmd != unix.FS_IOC_GETFLAGS || len(dest) < 4 || f.above(in.NodeId) {
		return fuse.Status(unix.ENOTTY)
	}
	n, _, err := f.node(cancel, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	clear(dest)
	binary.NativeEndian.PutUint32(dest, n.Flags)
	out.Result = 0
	return fuse.OK
}

// StatFs shows a full file system of the size of what is mounted.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var files, bytes int64
	if f.tree != nil {
		t := f.tree.Totals()
		files, bytes = t.Files, t.Bytes
	} else {
		files, bytes = f.layout.totals()
	}
	*out = fuse.StatfsOut{
		Blocks: uint64(bytes+blockSize-1) / blockSize, Bsize: blockSize, Frsize: blockSize,
		Files: uint64(files), NameLen: 255,
	}
	return fuse.OK
}

// find returns a node of a snapshot and its tree, which done gives back.
func (f *fileSystem) find(r *request, ino uint64) (t *fs.Tree, n view.Node, done func(), err error) {
	t, _, done, err = f.use(r, ino)
	if err != nil {
		return nil, n, nil, err
	}
	if n, err = t.Node(context.Background(), ino&inodeMask); err != nil {
		done()
		return nil, n, nil, err
	}
	return t, n, done, nil
}
