package localfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// examine looks at a name in a directory, or with "" at the handle itself.
func examine(fd int, name string) (source.Entry, error) {
	e, _, err := examineSpace(fd, name)
	return e, err
}

// examineSpace is examine and how many bytes the file system holds for it.
func examineSpace(fd int, name string) (e source.Entry, space int64, err error) {
	var x unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	_, err = retry(func() (struct{}, error) {
		return struct{}{}, unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x)
	})
	if err != nil {
		return source.Entry{}, 0, fmt.Errorf("examine: %w", err)
	}
	st, err := stat(&x)
	if err != nil {
		return source.Entry{}, 0, err
	}
	const block = 512 // whatever the file system's own is
	return source.Entry{Name: name, Stat: st, Dev: unix.Mkdev(x.Dev_major, x.Dev_minor)}, int64(x.Blocks) * block, nil
}

func stat(x *unix.Statx_t) (metastore.Stat, error) {
	s := metastore.Stat{
		Mode: uint32(x.Mode) & 0o7777,
		UID:  x.Uid, GID: x.Gid,
		MTime: timeOf(x.Mtime), CTime: timeOf(x.Ctime),
		Inode: x.Ino, Nlink: x.Nlink,
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		s.BTime = timeOf(x.Btime)
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Type, s.Size = metastore.Regular, int64(x.Size)
	case unix.S_IFDIR:
		s.Type = metastore.Directory
	case unix.S_IFLNK:
		s.Type, s.Size = metastore.Symlink, int64(x.Size)
	case unix.S_IFIFO:
		s.Type = metastore.FIFO
	case unix.S_IFSOCK:
		s.Type = metastore.Socket
	case unix.S_IFCHR:
		s.Type, s.RdevMajor, s.RdevMinor = metastore.CharDev, x.Rdev_major, x.Rdev_minor
	case unix.S_IFBLK:
		s.Type, s.RdevMajor, s.RdevMinor = metastore.BlockDev, x.Rdev_major, x.Rdev_minor
	default:
		return s, fmt.Errorf("examine: file type %#o is not one of Linux: %w", x.Mode&unix.S_IFMT, unix.EINVAL)
	}
	if s.Size < 0 {
		return s, fmt.Errorf("examine: the file system reports a size of %d: %w", x.Size, unix.EOVERFLOW)
	}
	return s, nil
}

// timeOf keeps nanoseconds in their range, also where a file system does not.
func timeOf(t unix.StatxTimestamp) metastore.Time {
	return metastore.Time{Sec: t.Sec, Nsec: int32(min(t.Nsec, 999_999_999))}
}
