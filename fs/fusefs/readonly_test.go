package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// everyType is a tree with one entry of each type.
func everyType() []fstest.Entry {
	return []fstest.Entry{
		fstest.Dir("/dir"), fstest.Regular("/file", []byte("content")), fstest.Symlink("/link", "file"), fstest.Special("/fifo", metastore.FIFO, 0, 0),
		fstest.Special("/socket", metastore.Socket, 0, 0), fstest.Special("/null", metastore.CharDev, 1, 3), fstest.Special("/disk", metastore.BlockDev, 259, 70_000),
	}
}

// victim is what a call would change: an entry of the mount, open as far as
// that is possible, a free name beside it and a folder around it.
type victim struct {
	path, free, other, out string // other is another entry, out a path outside the mount
	dir                    int    // the folder's file descriptor
	name                   string // in dir
	fd                     int    // open for reading; -1 for what is not opened
}

// changes are all calls that change something, and what they answer on a file
// system mounted read-only, if not EROFS: the kernel looks at some other things
// first.
var changes = []struct {
	name   string
	call   func(v victim) error
	answer map[metastore.Type]unix.Errno // by type
}{
	{"open(O_WRONLY)", func(v victim) error { return open(v.path, unix.O_WRONLY) }, opened},
	{"open(O_RDWR)", func(v victim) error { return open(v.path, unix.O_RDWR) }, readWrite},
	{"open(O_WRONLY|O_APPEND)", func(v victim) error { return open(v.path, unix.O_WRONLY|unix.O_APPEND) }, opened},
	{"open(O_RDONLY|O_TRUNC)", func(v victim) error { return open(v.path, unix.O_RDONLY|unix.O_TRUNC) }, truncating},
	{"open(O_WRONLY|O_TRUNC)", func(v victim) error { return open(v.path, unix.O_WRONLY|unix.O_TRUNC) }, opened},
	{"open(O_CREAT)", func(v victim) error { return open(v.free, unix.O_CREAT|unix.O_WRONLY) }, nil},
	{"open(O_CREAT|O_EXCL)", func(v victim) error { return open(v.free, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR) }, nil},
	{"open(O_TMPFILE)", func(v victim) error { return open(filepath.Dir(v.path), unix.O_TMPFILE|unix.O_RDWR) }, nil},
	{"creat", func(v victim) error { _, err := unix.Creat(v.free, 0o600); return err }, nil},
	{"openat(O_CREAT)", func(v victim) error {
		fd, err := unix.Openat(v.dir, v.name+"-new", unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}, nil},
	{"truncate", func(v victim) error { return unix.Truncate(v.path, 0) }, map[metastore.Type]unix.Errno{
		metastore.Directory: unix.EISDIR, metastore.FIFO: unix.EINVAL, metastore.Socket: unix.EINVAL, metastore.CharDev: unix.EINVAL, metastore.BlockDev: unix.EINVAL,
	}},
	{"ftruncate", func(v victim) error { return unix.Ftruncate(v.fd, 0) }, descriptor(unix.EINVAL)},
	{"write", func(v victim) error { _, err := unix.Write(v.fd, []byte("x")); return err }, descriptor(unix.EBADF)},
	{"pwrite", func(v victim) error { _, err := unix.Pwrite(v.fd, []byte("x"), 0); return err }, descriptor(unix.EBADF)},
	{"fallocate", func(v victim) error { return unix.Fallocate(v.fd, 0, 0, 1) }, descriptor(unix.EBADF)},
	{"copy_file_range", func(v victim) error {
		_, err := unix.CopyFileRange(v.fd, nil, v.fd, nil, 1, 0)
		return err
	}, map[metastore.Type]unix.Errno{
		metastore.Regular: unix.EBADF, metastore.Directory: unix.EISDIR, metastore.Symlink: unix.EBADF, metastore.FIFO: unix.EBADF,
		metastore.Socket: unix.EBADF, metastore.CharDev: unix.EBADF, metastore.BlockDev: unix.EBADF,
	}},
	{"mmap(MAP_SHARED, PROT_WRITE)", func(v victim) error {
		m, err := unix.Mmap(v.fd, 0, 1, unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil {
			unix.Munmap(m)
		}
		return err
	}, map[metastore.Type]unix.Errno{
		metastore.Regular: unix.EACCES, metastore.Directory: unix.EACCES, metastore.Symlink: unix.EBADF, metastore.FIFO: unix.EBADF,
		metastore.Socket: unix.EBADF, metastore.CharDev: unix.EBADF, metastore.BlockDev: unix.EBADF,
	}},
	{"chmod", func(v victim) error { return unix.Chmod(v.path, 0o600) }, nil},
	{"fchmod", func(v victim) error { return unix.Fchmod(v.fd, 0o600) }, unopened},
	{"fchmodat", func(v victim) error { return unix.Fchmodat(v.dir, v.name, 0o600, 0) }, nil},
	{"chown", func(v victim) error { return unix.Chown(v.path, 1, 1) }, nil},
	{"lchown", func(v victim) error { return unix.Lchown(v.path, 1, 1) }, nil},
	{"fchown", func(v victim) error { return unix.Fchown(v.fd, 1, 1) }, unopened},
	{"fchownat", func(v victim) error { return unix.Fchownat(v.dir, v.name, 1, 1, unix.AT_SYMLINK_NOFOLLOW) }, nil},
	{"utime", func(v victim) error { return unix.Utime(v.path, &unix.Utimbuf{Actime: 1, Modtime: 1}) }, nil},
	{"utimes", func(v victim) error { return unix.Utimes(v.path, make([]unix.Timeval, 2)) }, nil},
	{"lutimes", func(v victim) error { return unix.Lutimes(v.path, make([]unix.Timeval, 2)) }, nil},
	{"futimens", func(v victim) error {
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(v.fd), 0, 0, 0, 0, 0) // no path: the descriptor, now
		return errno
	}, unopened},
	{"utimensat", func(v victim) error {
		return unix.UtimesNanoAt(v.dir, v.name, make([]unix.Timespec, 2), unix.AT_SYMLINK_NOFOLLOW)
	}, nil},
	{"setxattr", func(v victim) error { return unix.Setxattr(v.path, "user.a", []byte("b"), 0) }, nil},
	{"lsetxattr", func(v victim) error { return unix.Lsetxattr(v.path, "trusted.a", []byte("b"), 0) }, nil},
	{"fsetxattr", func(v victim) error { return unix.Fsetxattr(v.fd, "user.a", []byte("b"), 0) }, unopened},
	{"removexattr", func(v victim) error { return unix.Removexattr(v.path, "user.a") }, nil},
	{"lremovexattr", func(v victim) error { return unix.Lremovexattr(v.path, "trusted.a") }, nil},
	{"fremovexattr", func(v victim) error { return unix.Fremovexattr(v.fd, "user.a") }, unopened},
	{"setxattr of an ACL", func(v victim) error {
		return unix.Setxattr(v.path, "system.posix_acl_access", []byte("\x02\x00\x00\x00"), 0)
	}, nil},
	{"rename", func(v victim) error { return unix.Rename(v.path, v.free) }, nil},
	{"rename over another", func(v victim) error { return unix.Rename(v.path, v.other) }, nil},
	{"rename out of the mount", func(v victim) error { return unix.Rename(v.path, v.out) }, all(unix.EXDEV)},
	{"rename into the mount", func(v victim) error { return unix.Rename(filepath.Dir(v.out), v.free) }, all(unix.EXDEV)},
	{"renameat2(RENAME_NOREPLACE)", func(v victim) error {
		return unix.Renameat2(v.dir, v.name, v.dir, v.name+"-new", unix.RENAME_NOREPLACE)
	}, nil},
	{"renameat2(RENAME_EXCHANGE)", func(v victim) error {
		return unix.Renameat2(unix.AT_FDCWD, v.path, unix.AT_FDCWD, v.other, unix.RENAME_EXCHANGE)
	}, nil},
	{"renameat2(RENAME_WHITEOUT)", func(v victim) error { return unix.Renameat2(v.dir, v.name, v.dir, v.name+"-new", unix.RENAME_WHITEOUT) }, nil},
	{"link", func(v victim) error { return unix.Link(v.path, v.free) }, nil},
	{"linkat", func(v victim) error { return unix.Linkat(v.dir, v.name, v.dir, v.name+"-new", 0) }, nil},
	{"symlink", func(v victim) error { return unix.Symlink(v.path, v.free) }, nil},
	{"symlinkat", func(v victim) error { return unix.Symlinkat("x", v.dir, v.name+"-new") }, nil},
	{"mkdir", func(v victim) error { return unix.Mkdir(v.free, 0o700) }, nil},
	{"mkdirat", func(v victim) error { return unix.Mkdirat(v.dir, v.name+"-new", 0o700) }, nil},
	{"mknod of a file", func(v victim) error { return unix.Mknod(v.free, unix.S_IFREG|0o600, 0) }, nil},
	{"mknod of a FIFO", func(v victim) error { return unix.Mknod(v.free, unix.S_IFIFO|0o600, 0) }, nil},
	{"mknod of a socket", func(v victim) error { return unix.Mknod(v.free, unix.S_IFSOCK|0o600, 0) }, nil},
	{"mknod of a device", func(v victim) error { return unix.Mknod(v.free, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }, nil},
	{"unlink", func(v victim) error { return unix.Unlink(v.path) }, nil},
	{"unlinkat", func(v victim) error { return unix.Unlinkat(v.dir, v.name, 0) }, nil},
	{"rmdir", func(v victim) error { return unix.Rmdir(v.path) }, nil},
	{"ioctl(FS_IOC_SETFLAGS)", func(v victim) error {
		return unix.IoctlSetPointerInt(v.fd, unix.FS_IOC_SETFLAGS, unix.STATX_ATTR_NODUMP)
	}, unopened},
	{"bind of a socket", func(v victim) error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		return unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", v.dir, v.name+"-new")})
	}, nil},
}

// What is no file or folder is never opened for the file system's sake: FIFOs
// and sockets are other people's business, and devices are not allowed to work.
var (
	opened = map[metastore.Type]unix.Errno{
		metastore.Directory: unix.EISDIR, metastore.FIFO: unix.ENXIO, metastore.Socket: unix.ENXIO, metastore.CharDev: unix.EACCES, metastore.BlockDev: unix.EACCES,
	}
	readWrite = map[metastore.Type]unix.Errno{
		metastore.Directory: unix.EISDIR, metastore.FIFO: 0, metastore.Socket: unix.ENXIO, metastore.CharDev: unix.EACCES, metastore.BlockDev: unix.EACCES,
	}
	truncating = map[metastore.Type]unix.Errno{
		metastore.Directory: unix.EISDIR, metastore.FIFO: 0, metastore.Socket: unix.ENXIO, metastore.CharDev: unix.EACCES, metastore.BlockDev: unix.EACCES,
	}
	unopened = map[metastore.Type]unix.Errno{
		metastore.Symlink: unix.EBADF, metastore.FIFO: unix.EBADF, metastore.Socket: unix.EBADF, metastore.CharDev: unix.EBADF, metastore.BlockDev: unix.EBADF,
	}
)

// descriptor is what a call that needs a descriptor open for writing answers.
func descriptor(e unix.Errno) map[metastore.Type]unix.Errno {
	return map[metastore.Type]unix.Errno{
		metastore.Regular: e, metastore.Directory: e, metastore.Symlink: unix.EBADF, metastore.FIFO: unix.EBADF,
		metastore.Socket: unix.EBADF, metastore.CharDev: unix.EBADF, metastore.BlockDev: unix.EBADF,
	}
}

func all(e unix.Errno) map[metastore.Type]unix.Errno {
	out := descriptor(e)
	for kind := range out {
		out[kind] = e
	}
	return out
}

func TestEveryChangeOfEveryTypeIsRefusedAsReadOnly(t *testing.T) {
	// A link leads to a file here: calls that follow it meet that.
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, append(everyType(), fstest.Regular("/x", []byte("x")).Xattr("user.a", "b"))...)
	before := describe(t, m.Dir())
	outside := t.TempDir()
	for _, e := range everyType() {
		v := victim{
			path: m.path(e.Path), free: m.path(e.Path + "-new"), other: m.path("x"), out: filepath.Join(outside, "sub", "out"),
			dir: openDir(t, m.Dir()), name: strings.TrimPrefix(e.Path, "/"), fd: -1,
		}
		if err := os.MkdirAll(filepath.Dir(v.out), 0o700); err != nil {
			t.Fatal(err)
		}
		if e.Type == metastore.Regular || e.Type == metastore.Directory {
			fd, err := unix.Open(v.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			v.fd = fd
		}
		for _, c := range changes {
			want, special := c.answer[e.Type]
			if !special {
				want = unix.EROFS
			}
			if err := c.call(v); err != nil && !errors.Is(err, want) || err == nil && want != 0 {
				t.Errorf("%s of %s: %v, want %v", c.name, e.Path, err, want)
			}
		}
	}
	if diff := cmp.Diff(before, describe(t, m.Dir())); diff != "" {
		t.Errorf("after all that: %s", diff)
	}
}

// Nothing can be made in the folders above the snapshots either.
func TestNothingCanBeMadeAboveTheSnapshots(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", hello("1")...)
	m, _ := mountStore(t, w, Options{})
	for _, dir := range []string{"", "snapshots", "sets", "sets/home"} {
		at := filepath.Join(m.Dir(), dir)
		for name, err := range map[string]error{
			"mkdir": unix.Mkdir(at+"/new", 0o700), "create": open(at+"/new", unix.O_CREAT|unix.O_RDWR), "symlink": unix.Symlink("x", at+"/new"),
			"chmod": unix.Chmod(at, 0o700), "rename": unix.Rename(at, at+"-new"), "rmdir": unix.Rmdir(at),
		} {
			if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EBUSY) { // EBUSY: the mountpoint
				t.Errorf("%s in or of %q: %v", name, dir, err)
			}
		}
	}
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// Root may remount whatever it likes; what can be changed then is nothing.
func TestAMountThatIsRemountedReadWriteChangesNothing(t *testing.T) {
	needRoot(t, "remount")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, append(everyType(), fstest.Regular("/x", []byte("x")).Xattr("user.a", "b"))...)
	before := describe(t, m.Dir())
	if err := unix.Mount("", m.Dir(), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"write": func() error {
			f, err := os.OpenFile(m.path("file"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("changed")
			return errors.Join(err, f.Close())
		},
		"truncate": func() error { return os.Truncate(m.path("file"), 0) },
		"create":   func() error { return open(m.path("new"), unix.O_CREAT|unix.O_WRONLY) },
		"chmod":    func() error { return os.Chmod(m.path("file"), 0) },
		"unlink":   func() error { return os.Remove(m.path("link")) },
		"mkdir":    func() error { return os.Mkdir(m.path("new"), 0o700) },
		"rename":   func() error { return os.Rename(m.path("file"), m.path("new")) },
		"setxattr": func() error { return unix.Setxattr(m.path("x"), "user.a", []byte("changed"), 0) },
	} {
		if err := call(); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, describe(t, m.Dir())); diff != "" {
		t.Errorf("after all that: %s", diff)
	}
}

// The server refuses each request by itself.
func TestTheServerItselfRefusesChanges(t *testing.T) {
	var f fuse.RawFileSystem = &fileSystem{}
	statuses := map[string]fuse.Status{
		"SETATTR":     f.SetAttr(nil, nil, nil),
		"MKNOD":       f.Mknod(nil, nil, "", nil),
		"MKDIR":       f.Mkdir(nil, nil, "", nil),
		"UNLINK":      f.Unlink(nil, nil, ""),
		"RMDIR":       f.Rmdir(nil, nil, ""),
		"RENAME":      f.Rename(nil, nil, "", ""),
		"LINK":        f.Link(nil, nil, "", nil),
		"SYMLINK":     f.Symlink(nil, nil, "", "", nil),
		"SETXATTR":    f.SetXAttr(nil, nil, "", nil),
		"REMOVEXATTR": f.RemoveXAttr(nil, nil, ""),
		"CREATE":      f.Create(nil, nil, "", nil),
		"TMPFILE":     f.Tmpfile(nil, nil, nil),
		"FALLOCATE":   f.Fallocate(nil, nil),
	}
	_, statuses["WRITE"] = f.Write(nil, nil, nil)
	_, statuses["WRITEV"] = f.Writev(nil, nil, nil)
	_, statuses["COPY_FILE_RANGE"] = f.CopyFileRange(nil, nil)
	for name, status := range statuses {
		if status != fuse.EROFS {
			t.Errorf("%s: %v", name, status)
		}
	}
}
