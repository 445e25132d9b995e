// Package source is what a backup needs of the disks that it reads: interfaces
// of a file system that is walked through handles, one component at a time.
//
// localfs has the one for real disks; tests have one that fails on demand. What
// an implementation promises is that it never follows a symbolic link, never
// waits for anybody, and says so when a name leads to something else than what
// was listed under it. It need not show one state of a tree: that changes while
// it is read.
package source

import (
	"context"
	"errors"
	"syscall"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// ErrSwapped: a name led to something else than the entry that was listed
// under it; somebody changed the tree meanwhile.
var ErrSwapped = errors.New("replaced while the backup was looking at it")

// FS is all that a machine has below "/".
//
// Everything is reached one component at a time from Root through the parent's
// handle, and never through a symbolic link, so that a directory swapped for a
// link meanwhile is an error and not a way out of the tree.
type FS interface {
	// Root opens "/". The entry's Name is "".
	Root(ctx context.Context) (Entry, Dir, error)

	// Volume describes the mounted volume that an entry's Dev names, which
	// was met at path.
	Volume(ctx context.Context, dev uint64, path string) (Volume, error)
}

// Volume identifies what inode numbers are counted in.
type Volume struct {
	FSType string // "ext4", "tmpfs", …; "0x%x" of the statfs magic if its name is not known
	FSID   uint64 // of statfs
	Root   string // the mount point
}

// Entry is one directory entry as lstat saw it.
type Entry struct {
	Name string // any bytes but "/" and NUL; "" for "/" itself
	metastore.Stat
	Dev uint64 // st_dev, valid during this run only
	Err error  // the entry exists but could not be examined; Stat is then empty
}

// Meta is what has to be asked for beyond lstat.
type Meta struct {
	User, Group string
	Xattrs      []metastore.Xattr // sorted by name
	Target      string            // of a symbolic link
	Flags       uint32            // FS_IOC_GETFLAGS of regular files and directories, 0 where unsupported
}

// Dir is a handle of a directory. Search permission is all it takes to get
// one (O_PATH); read permission is needed by Names alone.
type Dir interface {
	// Names lists the directory in byte order, without "." and "..".
	Names(ctx context.Context) ([]string, error)

	// Entries examines names, in their order. A failure to examine one is
	// that entry's Err; one that is not there (any more) is left out.
	Entries(ctx context.Context, names []string) ([]Entry, error)

	// Entry examines one name; a missing one is io/fs.ErrNotExist.
	Entry(ctx context.Context, name string) (Entry, error)

	// OpenDir opens a directory in it. It fails with ErrSwapped if the name
	// no longer leads to the inode that the entry describes.
	OpenDir(ctx context.Context, e Entry) (Dir, error)

	// Open opens a regular file for reading without waiting for anybody (a
	// FIFO put in its place does not block). ErrSwapped as above.
	Open(ctx context.Context, e Entry) (File, error)

	// Meta reads the rest of an entry's metadata. ErrSwapped as above. An
	// entry with the Name "" stands for the directory itself. If only some of
	// it can be read, that comes with the error.
	Meta(ctx context.Context, e Entry) (Meta, error)

	// Retain makes the handle outlive one Close more.
	Retain()

	// Close releases the handle; the last Close closes it.
	Close() error
}

// File is an open regular file. It is used by one goroutine at a time.
type File interface {
	// Opened is what Stat returned when the file was opened.
	Opened() metastore.Stat

	// Stat looks at the open file again.
	Stat() (metastore.Stat, error)

	// Meta is what Dir.Meta reads, without opening the file once more. Owners
	// are named as of the last Stat.
	Meta(ctx context.Context) (Meta, error)

	// NextData returns the next range of data at or after off: [start, end).
	// io.EOF if only a hole follows. File systems that know no holes return
	// everything up to the size.
	NextData(off int64) (start, end int64, err error)

	// ReadAt reads as io.ReaderAt does.
	ReadAt(p []byte, off int64) (int, error)

	Close() error
}

// Unchanged compares what tells one version of a file from the next.
func Unchanged(a, b metastore.Stat) bool {
	return a.Type == b.Type && a.Size == b.Size && a.MTime == b.MTime && a.CTime == b.CTime && a.Inode == b.Inode
}

// Errno is the system's reason for err, EIO if it gives none.
func Errno(err error) int {
	if n := syscall.Errno(0); errors.As(err, &n) {
		return int(n)
	}
	return int(syscall.EIO)
}
