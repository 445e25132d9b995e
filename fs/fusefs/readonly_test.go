package fusefs

import (
	"errors"
	"os"
	"testing"

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

func TestEveryChangeOfEveryTypeIsRefusedAsReadOnly(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, append(everyType(), fstest.Regular("/x", []byte("x")).Xattr("user.a", "b"))...)
	now := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	for _, e := range everyType() {
		p, free := m.path(e.Path), m.path(e.Path+"-new")
		if e.Type == metastore.Directory {
			free = m.path(e.Path, "new")
		}
		calls := map[string]func() error{
			"chmod":       func() error { return unix.Chmod(p, 0o600) },
			"lchown":      func() error { return unix.Lchown(p, 1, 1) },
			"utimes":      func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, now, unix.AT_SYMLINK_NOFOLLOW) },
			"rename":      func() error { return unix.Rename(p, free) },
			"link":        func() error { return unix.Link(p, free) },
			"symlink":     func() error { return unix.Symlink("x", free) },
			"mkdir":       func() error { return unix.Mkdir(free, 0o700) },
			"mkfifo":      func() error { return unix.Mknod(free, unix.S_IFIFO|0o600, 0) },
			"create":      func() error { return open(free, unix.O_CREAT|unix.O_WRONLY) },
			"setxattr":    func() error { return unix.Lsetxattr(p, "user.a", []byte("b"), 0) },
			"removexattr": func() error { return unix.Lremovexattr(p, "user.a") },
		}
		if e.Type == metastore.Directory {
			calls["rmdir"] = func() error { return unix.Rmdir(p) }
			calls["tmpfile"] = func() error { return open(p, unix.O_TMPFILE|unix.O_RDWR) }
		} else {
			calls["unlink"] = func() error { return unix.Unlink(p) }
		}
		if e.Type == metastore.Regular {
			calls["truncate"] = func() error { return unix.Truncate(p, 0) }
			calls["write"] = func() error { return open(p, unix.O_WRONLY) }
			calls["append"] = func() error { return open(p, unix.O_RDWR|unix.O_APPEND) }
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s of %s: %v", name, e.Path, err)
			}
		}
	}
	if got, err := os.ReadFile(m.path("file")); string(got) != "content" || err != nil {
		t.Errorf("after all that: %q %v", got, err)
	}
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o600)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// A mount that somebody remounts read-write still changes nothing.
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
