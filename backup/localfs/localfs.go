// Package localfs is the source.FS of real Linux file systems.
//
// Whatever changes in the tree meanwhile, and whoever changes it, it never
// reads anything outside the directory that a handle stands for, never waits
// for another process, and never touches a device:
//
//   - Every open names one component relative to its parent's handle, with
//     O_NOFOLLOW. With names that hold no slash and are not "." or "..", that
//     is all that openat2's RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS could add,
//     and it works on every kernel and under every seccomp filter.
//   - For all but regular files it is an O_PATH open, which has no effect on a
//     FIFO, a device or an automount point. What was listed as a regular file
//     is opened without waiting. Either way nothing is read unless the handle
//     proves to be the inode that was listed (device, inode number, type);
//     folders are then listed through /proc/self/fd: the same inode, whatever
//     the name leads to by then.
//   - Automount points that nobody has entered are taken as they stand, empty.
//
// Times of last access stay as they are (O_NOATIME) where the file belongs to
// the user or the process has CAP_FOWNER.
//
// It needs Linux 4.11 for statx, and proc mounted at /proc. Errors name the
// operation and not the path: the caller knows the whole one.
package localfs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
)

// Source reads the file systems of this machine. It is safe for concurrent
// use.
type Source struct {
	users, groups names
	buffers       sync.Pool // of *[listBuffer]byte
}

var _ source.FS = (*Source)(nil)

// New returns a Source, or an error if /proc is not there.
func New() (*Source, error) {
	var st unix.Statfs_t
	_, err := retry(func() (struct{}, error) { return struct{}{}, unix.Statfs("/proc/self/fd", &st) })
	if err == nil && st.Type != unix.PROC_SUPER_MAGIC {
		err = errors.New("it is some other file system")
	}
	if err != nil {
		return nil, fmt.Errorf("the proc file system has to be mounted at /proc: %w", err)
	}
	s := &Source{users: userNames(), groups: groupNames()}
	s.buffers.New = func() any { return new([listBuffer]byte) }
	return s, nil
}

// Root opens "/".
func (s *Source) Root(ctx context.Context) (source.Entry, source.Dir, error) {
	if err := ctx.Err(); err != nil {
		return source.Entry{}, nil, err
	}
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return source.Entry{}, nil, fmt.Errorf("open: %w", err)
	}
	e, err := examine(fd, "")
	if err != nil {
		unix.Close(fd)
		return source.Entry{}, nil, err
	}
	return e, newDir(s, fd), nil
}

// retry repeats what a signal interrupted.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// openat opens a name relative to a directory, never following a link there.
func openat(dir int, name string, flags int) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// procPath is a name of the inode that fd is open on, whatever its type.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens the inode of an O_PATH handle for reading. It must be a regular
// file or a directory.
func reopen(fd int) (int, error) {
	path := procPath(fd)
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME
	for {
		opened, err := retry(func() (int, error) { return unix.Open(path, flags, 0) })
		switch {
		case err == unix.EPERM && flags&unix.O_NOATIME != 0:
			flags &^= unix.O_NOATIME // somebody else's
		case err == unix.EAGAIN && flags&unix.O_NONBLOCK != 0:
			// Somebody holds a lease on the file and has been asked to give
			// it up. The kernel takes it away in /proc/sys/fs/lease-break-time.
			flags &^= unix.O_NONBLOCK
		default:
			return opened, err
		}
	}
}
