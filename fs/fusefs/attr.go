package fusefs

import (
	"context"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// fill writes what stat(2) shows of a node.
func fill(out *fuse.Attr, n *view.Node, base uint64) {
	*out = fuse.Attr{
		Ino:   base | n.Ino,
		Mode:  n.Type.Format() | n.Mode,
		Nlink: max(n.Nlink, 1),
		Owner: fuse.Owner{Uid: n.UID, Gid: n.GID},
		Rdev:  uint32(unix.Mkdev(n.RdevMajor, n.RdevMinor)),
		Atime: uint64(n.MTime.Sec), Atimensec: uint32(n.MTime.Nsec), // no time of access is kept
		Mtime: uint64(n.MTime.Sec), Mtimensec: uint32(n.MTime.Nsec),
		Ctime: uint64(n.CTime.Sec), Ctimensec: uint32(n.CTime.Nsec),
		Blksize: blockSize,
	}
	switch n.Type {
	case metastore.Regular:
		// cp(1) makes a buffer of that size for every file: a megabyte for a
		// small one costs it half as much time again.
		out.Size, out.Blksize = uint64(n.Size), smallIO
		if n.Size >= 4*ioSize {
			out.Blksize = ioSize
		}
		out.Blocks = uint64(n.Blocks)
		if n.Content == 0 {
			// Not captured. As many blocks as a file without holes has, or
			// programs take it for a sparse file and write zeros.
			out.Blocks = uint64(n.Size+511) / 512
		}
	case metastore.Symlink:
		out.Size = uint64(len(n.Target))
	case metastore.Directory:
		out.Size, out.Blocks = blockSize, blockSize/512
		out.Blksize = ioSize // readdir(3) asks for so much at a time
		out.Nlink = 1        // "not known": find(1) concludes from 2 that there is no folder inside
	}
}

// entry answers a LOOKUP, alone or as part of READDIRPLUS.
func (o *Owner) entry(out *fuse.EntryOut, n *view.Node, base, generation uint64) {
	out.NodeId = base | n.Ino
	if out.NodeId != rootInode { // whose generation the kernel takes for 0
		out.Generation = generation
	}
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fill(&out.Attr, n, base)
	o.own(&out.Attr)
}

// GetAttr is asked only for inodes whose attributes the kernel dropped.
func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if attr, valid, ok := f.placeAttr(in.NodeId); ok {
		out.Attr = attr
		out.SetTimeout(valid)
		return fuse.OK
	}
	n, base, err := f.node(cancel, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	fill(&out.Attr, &n, base)
	f.shown.own(&out.Attr)
	out.SetTimeout(forever)
	return fuse.OK
}

// Statx is asked when a program wants the time of birth.
func (f *fileSystem) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if attr, valid, ok := f.placeAttr(in.NodeId); ok {
		fillStatx(&out.Statx, &attr)
		out.SetTimeout(valid)
		return fuse.OK
	}
	n, base, err := f.node(cancel, in.NodeId)
	if err != nil {
		return f.status(err)
	}
	var attr fuse.Attr
	fill(&attr, &n, base)
	f.shown.own(&attr)
	fillStatx(&out.Statx, &attr)
	out.RdevMajor, out.RdevMinor = n.RdevMajor, n.RdevMinor
	if n.BTime != (metastore.Time{}) {
		out.Mask |= unix.STATX_BTIME
		out.Btime = fuse.SxTime{Sec: uint64(n.BTime.Sec), Nsec: uint32(n.BTime.Nsec)}
	}
	out.SetTimeout(forever)
	return fuse.OK
}

func fillStatx(out *fuse.Statx, a *fuse.Attr) {
	out.Mask = unix.STATX_BASIC_STATS
	out.Blksize, out.Nlink, out.Uid, out.Gid = a.Blksize, a.Nlink, a.Uid, a.Gid
	out.Mode, out.Ino, out.Size, out.Blocks = uint16(a.Mode), a.Ino, a.Size, a.Blocks
	out.Atime = fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec}
	out.Mtime = fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec}
	out.Ctime = fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec}
}

// node finds a node of a snapshot.
func (f *fileSystem) node(cancel <-chan struct{}, ino uint64) (view.Node, uint64, error) {
	r := f.begin(cancel)
	defer r.end()
	t, base, done, err := f.use(r, ino)
	if err != nil {
		return view.Node{}, 0, err
	}
	defer done()
	n, err := t.Node(context.Background(), ino&inodeMask)
	return n, base, err
}

// placeAttr describes what is not in a snapshot: the folders above them, and
// for a moment the "/" of one that nobody has entered yet. Loading a snapshot
// may take minutes, so listing the folder of snapshots must not load them all;
// its "/" shows the time of the snapshot, and no extended attributes, until
// somebody looks inside.
func (f *fileSystem) placeAttr(ino uint64) (attr fuse.Attr, valid time.Duration, ok bool) {
	if f.tree != nil {
		return fuse.Attr{}, 0, false
	}
	p, ok := f.layout.place(ino)
	if !ok {
		return fuse.Attr{}, 0, false
	}
	if p.kind == snapshotPlace {
		if f.layout.entered(ino >> inodeBits) {
			return fuse.Attr{}, 0, false
		}
		return f.placeOut(p), 0, true
	}
	return f.placeOut(p), brief, true
}

// placeOut is what stat(2) shows of a place.
func (f *fileSystem) placeOut(p *place) fuse.Attr {
	t, ns := uint64(p.time.Unix()), uint32(p.time.Nanosecond())
	a := fuse.Attr{
		Ino: p.ino, Mode: unix.S_IFDIR | 0o555, Nlink: 1, Owner: f.owner, Size: blockSize, Blocks: blockSize / 512, Blksize: ioSize,
		Atime: t, Atimensec: ns, Mtime: t, Mtimensec: ns, Ctime: t, Ctimensec: ns,
	}
	switch p.kind {
	case linkPlace:
		a.Mode, a.Size, a.Blocks = unix.S_IFLNK|0o777, uint64(len(p.target)), 0
	case snapshotPlace:
		a.Mode, a.Owner = unix.S_IFDIR|0o755, fuse.Owner{}
		f.shown.own(&a)
	}
	return a
}

// GetXAttr returns one extended attribute. Values longer than dest are ERANGE
// with the length, and so is the question for the length alone.
func (f *fileSystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !f.xattrs {
		return 0, fuse.ENOSYS // for this mount the kernel asks no more
	}
	all, err := f.xattrsOf(cancel, in.NodeId)
	if err != nil {
		return 0, f.status(err)
	}
	for _, x := range all {
		if x.Name == name {
			return answer(dest, x.Value)
		}
	}
	return 0, fuse.ENODATA
}

// ListXAttr returns the names, each followed by a NUL byte.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if !f.xattrs {
		return 0, fuse.ENOSYS
	}
	all, err := f.xattrsOf(cancel, in.NodeId)
	if err != nil {
		return 0, f.status(err)
	}
	var names strings.Builder
	for _, x := range all {
		names.WriteString(x.Name)
		names.WriteByte(0)
	}
	return answer(dest, []byte(names.String()))
}

func answer(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (f *fileSystem) xattrsOf(cancel <-chan struct{}, ino uint64) ([]metastore.Xattr, error) {
	// Like stat, ls -l asks for every snapshot that it lists.
	if _, _, ok := f.placeAttr(ino); ok || f.above(ino) {
		return nil, nil
	}
	r := f.begin(cancel)
	defer r.end()
	t, _, done, err := f.use(r, ino)
	if err != nil {
		return nil, err
	}
	defer done()
	if !t.HasXattrs() {
		return nil, nil
	}
	return t.Xattrs(context.Background(), ino&inodeMask)
}

// Owner is who owns everything in a mount, whoever owned it on the machine
// that was backed up. The owner may read every file and enter every folder,
// as people expect of what is shown as theirs; other permissions stay as they
// were. Files lose setuid and setgid, or a copy of somebody's program would run
// with the rights of the one who copied it.
type Owner struct{ UID, GID uint32 }

// own shows an inode as the owner's. A nil Owner leaves it as it is.
func (o *Owner) own(a *fuse.Attr) {
	if o == nil {
		return
	}
	a.Owner = fuse.Owner{Uid: o.UID, Gid: o.GID}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK: // has no permissions
	case unix.S_IFDIR:
		a.Mode |= unix.S_IRUSR | unix.S_IXUSR
	default:
		a.Mode = a.Mode&^(unix.S_ISUID|unix.S_ISGID) | unix.S_IRUSR
	}
}
