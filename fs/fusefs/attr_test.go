package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

func TestEveryAttributeComesThrough(t *testing.T) {
	before1970 := metastore.Time{Sec: -1_000_000_000, Nsec: 999_999_999}
	tree := everyType()
	for i := range tree {
		e := &tree[i]
		e.UID, e.GID, e.Nlink = 1000+uint32(i), 4_000_000_000, 1
		e.MTime, e.CTime, e.BTime = before1970, metastore.Time{Sec: 4_000_000_000, Nsec: 1}, metastore.Time{Sec: 5, Nsec: 6}
	}
	tree = append(tree,
		fstest.Regular("/setuid", nil).With(func(e *fstest.Entry) { e.Mode = 0o7755 }),
		fstest.Symlink("/dangling", "\xff nowhere/..//"),
		fstest.Regular("/\xfe\n\t name", []byte("bytes")),
		fstest.Regular("/flags", nil).With(func(e *fstest.Entry) { e.Flags = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_NODUMP }),
	)
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)
	types := map[metastore.Type]uint32{
		'f': unix.S_IFREG, 'd': unix.S_IFDIR, 'l': unix.S_IFLNK, 'p': unix.S_IFIFO, 's': unix.S_IFSOCK, 'c': unix.S_IFCHR, 'b': unix.S_IFBLK,
	}
	inodes := make(map[uint64]string)
	for _, e := range tree {
		var st unix.Stat_t
		if err := unix.Lstat(m.path(e.Path), &st); err != nil {
			t.Error(err)
			continue
		}
		mtime, ctime := e.MTime, e.CTime
		if mtime == (metastore.Time{}) {
			mtime, ctime = fstest.When, fstest.When
		}
		size := int64(len(e.Bytes()) + len(e.Target))
		if e.Type == metastore.Directory {
			size = blockSize
		}
		want := fmt.Sprintf("%o nlink 1 %d:%d rdev %d:%d size %d mtime %d.%d ctime %d.%d", types[e.Type]|e.Mode, e.UID, e.GID, e.RdevMajor, e.RdevMinor, size,
			mtime.Sec, mtime.Nsec, ctime.Sec, ctime.Nsec)
		got := fmt.Sprintf("%o nlink %d %d:%d rdev %d:%d size %d mtime %d.%d ctime %d.%d", st.Mode, st.Nlink, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Size,
			st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", e.Path, diff)
		}
		if other, ok := inodes[st.Ino]; ok {
			t.Errorf("%q and %q have one inode", e.Path, other)
		}
		inodes[st.Ino] = e.Path

		var sx unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, m.path(e.Path), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx)
		born := sx.Mask&unix.STATX_BTIME != 0
		if err != nil || born != (e.BTime != metastore.Time{}) || born && (sx.Btime.Sec != e.BTime.Sec || sx.Btime.Nsec != uint32(e.BTime.Nsec)) {
			t.Errorf("%q: born %v %+v, want %+v; %v", e.Path, born, sx.Btime, e.BTime, err)
		}
		if sx.Rdev_major != e.RdevMajor || sx.Rdev_minor != e.RdevMinor || sx.Mode != uint16(st.Mode) || sx.Ino != st.Ino || sx.Mtime.Sec != mtime.Sec {
			t.Errorf("%q: statx says %+v", e.Path, sx)
		}
		if e.Type == metastore.Symlink {
			if target, err := os.Readlink(m.path(e.Path)); target != e.Target || err != nil {
				t.Errorf("%q leads to %q, %v", e.Path, target, err)
			}
		}
	}
	f, err := os.Open(m.path("flags"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); flags != unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_NODUMP || err != nil {
		t.Errorf("inode flags %#x, %v", flags, err)
	}
	if err := m.warned(); err != nil {
		t.Error(err)
	}
}

func TestHardLinksShareAnInode(t *testing.T) {
	link := func(p string) fstest.Entry {
		return fstest.Regular(p, []byte("linked")).With(func(e *fstest.Entry) { e.Inode, e.Nlink = 77, 3 })
	}
	fifo := func(p string) fstest.Entry {
		return fstest.Special(p, metastore.FIFO, 0, 0).With(func(e *fstest.Entry) { e.Inode, e.Nlink = 78, 2 })
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Dir("/sub"), link("/one"), link("/sub/two"), link("/three"), fifo("/p"), fifo("/sub/q"),
		fstest.Regular("/single", []byte("linked")))
	inode := func(p string) (ino uint64, nlink uint64) {
		var st unix.Stat_t
		if err := unix.Lstat(m.path(p), &st); err != nil {
			t.Error(err)
		}
		return st.Ino, uint64(st.Nlink)
	}
	for _, group := range [][]string{{"one", "sub/two", "three"}, {"p", "sub/q"}, {"single"}} {
		first, _ := inode(group[0])
		for _, p := range group {
			if ino, n := inode(p); ino != first || n != uint64(len(group)) {
				t.Errorf("%s: inode %d, %d links; %s has %d", p, ino, n, group[0], first)
			}
		}
	}
	if one, _ := inode("one"); one == func() uint64 { i, _ := inode("single"); return i }() {
		t.Error("files with the same content are one inode")
	}
}

func TestXattrsAnswerLikeADisk(t *testing.T) {
	tree := everyType()
	for i := range tree {
		tree[i] = tree[i].Xattr("security.test", "on "+tree[i].Path)
	}
	big := strings.Repeat("v", 60_000)
	tree = append(tree, fstest.Regular("/many", nil).Xattr("user.big", big).Xattr("user.empty", "").Xattr("user.nul", "a\x00b"), fstest.Regular("/none", nil))
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)
	get := func(p, name string, size int) (string, error) {
		value := make([]byte, size)
		n, err := unix.Lgetxattr(m.path(p), name, value)
		return string(value[:max(min(n, size), 0)]), err
	}
	for _, e := range everyType() {
		if v, err := get(e.Path, "security.test", 100); v != "on "+e.Path || err != nil {
			t.Errorf("%s: %q %v", e.Path, v, err)
		}
		if _, err := get(e.Path, "security.other", 100); !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s: an attribute that is not there: %v", e.Path, err)
		}
	}
	for _, c := range []struct {
		name string
		size int
		want string
		err  error
	}{
		{"user.big", 60_000, big, nil}, {"user.big", 59_999, "", unix.ERANGE}, {"user.empty", 10, "", nil}, {"user.nul", 3, "a\x00b", nil}, {"user.nul", 2, "", unix.ERANGE},
	} {
		if v, err := get("many", c.name, c.size); err == nil && v != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s into %d bytes: %d bytes, %v", c.name, c.size, len(v), err)
		}
	}
	if n, err := unix.Lgetxattr(m.path("many"), "user.big", nil); n != 60_000 || err != nil {
		t.Errorf("the size of a value: %d, %v", n, err)
	}
	const list = "user.big\x00user.empty\x00user.nul\x00"
	buf := make([]byte, 100)
	if n, err := unix.Llistxattr(m.path("many"), buf); err != nil || string(buf[:n]) != list {
		t.Errorf("list: %q %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Llistxattr(m.path("many"), nil); n != len(list) || err != nil {
		t.Errorf("the size of a list: %d, %v", n, err)
	}
	if _, err := unix.Llistxattr(m.path("many"), buf[:5]); !errors.Is(err, unix.ERANGE) {
		t.Errorf("a list into five bytes: %v", err)
	}
	if n, err := unix.Llistxattr(m.path("none"), buf); n != 0 || err != nil {
		t.Errorf("a list without entries: %d, %v", n, err)
	}
}

func TestACLsKeepTheirBytes(t *testing.T) {
	needPrograms(t, "getfacl")
	// Version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::---
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", nil).Xattr("system.posix_acl_access", acl))
	value := make([]byte, 100)
	if n, err := unix.Lgetxattr(m.path("f"), "system.posix_acl_access", value); err != nil || string(value[:n]) != acl {
		t.Errorf("%q %v", value[:max(n, 0)], err)
	}
	if out, err := exec.Command("getfacl", "-nc", m.path("f")).Output(); err != nil || !strings.Contains(string(out), "user:1000:r--") {
		t.Errorf("%s %v", out, err)
	}
}

func TestAMountWithoutAnyXattrSaysSoOnce(t *testing.T) {
	count := newCounter()
	m := mountSnapshot(t, Options{wrap: count.wrap}, fs.ChunkOptions{}, fstest.Regular("/a", nil), fstest.Regular("/b", nil))
	for range 5 {
		for _, name := range []string{"a", "b"} {
			if _, err := unix.Lgetxattr(m.path(name), "user.x", make([]byte, 10)); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Error(err)
			}
			if n, err := unix.Llistxattr(m.path(name), make([]byte, 10)); n > 0 || err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				t.Error(n, err)
			}
		}
	}
	if n := count.of("GETXATTR") + count.of("LISTXATTR"); n > 2 {
		t.Errorf("%d requests", n)
	}
}
