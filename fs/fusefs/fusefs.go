// Package fusefs mounts snapshots as read-only folders with everything that
// the backed-up machine knew about its files: owners, modes, times to the
// nanosecond, hard links, devices, holes, extended attributes and ACLs. It is
// how vaultik restores: cp -a, rsync -aHAXS and tar read the mount.
//
// # No bookkeeping
//
// An inode number is where a row lies: the number of the snapshot in the mount
// in the upper 24 bits (0 if one snapshot is mounted), its inode number in the
// lower 40. So the file system keeps nothing for an inode that the kernel
// knows, FORGET does nothing, and ten million files cost no memory here.
//
// # As few requests as possible
//
// A snapshot never changes, so entries, attributes and the absence of names
// are valid forever; OPEN and OPENDIR are answered ENOSYS once, after which
// the kernel does not send them, keeps file contents and caches listings. The
// folders above the snapshots do change: they are valid for a second, and a
// listing that changed is invalidated.
//
// # When something is wrong
//
// Every request has a deadline. Content that is lost, corrupt or not delivered
// in time is EIO, and so is looking into a directory that the backup could not
// read. A READ that a signal interrupts goes on and answers EINTR only after a
// second, because EINTR reaches even programs that asked for restarted calls.
//
// A process must not execute programs that lie in its own mount: it would wait
// for the kernel with all of its goroutines stopped, and the kernel for them.
//
// It does not check permissions unless the mount is open to other users; then
// the kernel does.
package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"git.eeqj.de/sneak/vaultik/fs"
)

const (
	inodeBits = 40                // of an inode number within its snapshot
	inodeMask = 1<<inodeBits - 1  // so a snapshot may have 10^12 inodes
	rootInode = fuse.FUSE_ROOT_ID // of the mount, and of a tree in its snapshot
	forever   = 1 << 62           // ns; 146 years
	brief     = time.Second       // how long the folders above snapshots are valid
	// loadTimeout is for the first look into a snapshot, which loads it: some
	// ten million files a minute. The person who waits can interrupt it.
	loadTimeout = 10 * time.Minute

	blockSize = 4096    // bytes; what statfs counts in
	ioSize    = 1 << 20 // bytes; st_blksize of large files, the largest READ and the read-ahead
	smallIO   = 128 << 10
)

// fileSystem implements fuse.RawFileSystem. What it does not define here or in
// the other files is answered by the embedded default with ENOSYS.
type fileSystem struct {
	readOnly

	tree    *fs.Tree // the one snapshot mounted, or nil
	layout  *layout  // the folders above the snapshots of a store, or nil
	timeout time.Duration
	warn    func(error)
	owner   fuse.Owner // of the folders above the snapshots
	shown   *Owner     // of everything, or nil
	xattrs  bool       // whether any entry may have extended attributes
	pusher  *pusher    // set once the mount is there
}

// String names the file system in go-fuse's messages.
func (f *fileSystem) String() string { return "vaultik" }

// use finds the tree an inode number belongs to. The caller calls done when
// finished with the tree; base has to be added to the tree's inode numbers.
func (f *fileSystem) use(r *request, ino uint64) (t *fs.Tree, base uint64, done func(), err error) {
	if f.tree != nil {
		return f.tree, 0, func() {}, nil
	}
	number := ino >> inodeBits
	if !f.layout.entered(number) {
		r.allow(loadTimeout)
	}
	t, err = f.layout.open(r, number)
	if err != nil {
		return nil, 0, nil, err
	}
	return t, ino &^ inodeMask, func() { _ = t.Close() }, nil
}

// above reports whether an inode number is one of the folders and links above
// the snapshots.
func (f *fileSystem) above(ino uint64) bool { return f.tree == nil && ino>>inodeBits == 0 }

// readOnly answers every call that would change something with EROFS. The
// kernel refuses them before, because the mount is read-only; this is for the
// day when somebody remounts it.
type readOnly struct{ fuse.RawFileSystem }

func (readOnly) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }
func (readOnly) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status  { return fuse.EROFS }
func (readOnly) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return fuse.EROFS
}
func (readOnly) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }
func (readOnly) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}
func (readOnly) Write(<-chan struct{}, *fuse.WriteIn, []byte) (uint32, fuse.Status) {
	return 0, fuse.EROFS
}
func (readOnly) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.EROFS
}
func (readOnly) CopyFileRange(<-chan struct{}, *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	return 0, fuse.EROFS
}
func (readOnly) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status { return fuse.EROFS }
