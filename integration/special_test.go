package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// everyCase makes a tree with one of everything that a backup must capture.
// What needs root is made as root only.
func everyCase(t *testing.T, root string) {
	t.Helper()
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.MkdirAll(root, 0o755))

	// Contents: empty, one byte, around the chunker's sizes, large.
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 4095, 4096, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20, 9<<20 + 7} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rng.Uint32()) | 1 // no zeros: rsync -S would make holes of them
		}
		must(t, os.MkdirAll(at("sizes"), 0o755))
		must(t, os.WriteFile(at(fmt.Sprintf("sizes/%d", n)), data, 0o644))
	}
	write(t, at("text/compressible"), strings.Repeat("all work and no play makes jack a dull boy\n", 50_000))

	// Names of any bytes.
	for i, name := range []string{
		"new\nline", "tab\t", "invalid-\xff\xfe-utf8", "back\\slash", "quote'\"", "-rf", " lead and trail ",
		"semi;colon$(id)`id`", "umlaut-äöü", "\x01\x02\x1b[31m", strings.Repeat("n", 255), "*", "?[a]", "#!", "ends in newline\n",
	} {
		write(t, at("names/"+name), fmt.Sprint("file ", i))
		must(t, os.MkdirAll(at(fmt.Sprintf("names/dir-%d-%.200s", i, name)), 0o750))
	}

	// Modes and times.
	for _, mode := range []uint32{0, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o7777} {
		p := at(fmt.Sprintf("modes/%05o", mode))
		write(t, p, "mode")
		must(t, unix.Chmod(p, mode))
	}
	write(t, at("times/1901"), "old")
	must(t, os.Chtimes(at("times/1901"), time.Time{}, time.Unix(-2_000_000_000, 123_456_789)))
	write(t, at("times/2100"), "new")
	must(t, os.Chtimes(at("times/2100"), time.Time{}, time.Unix(4_102_444_800, 999_999_999)))

	// Links.
	must(t, os.MkdirAll(at("links/sub"), 0o755))
	must(t, os.Symlink("../text/compressible", at("links/relative")))
	must(t, os.Symlink("/does/not/exist", at("links/dangling")))
	must(t, os.Symlink("bytes-\xff\n", at("links/odd")))
	must(t, os.Symlink(strings.Repeat("x/", 2000), at("links/long")))
	write(t, at("links/first"), "one inode, three names")
	must(t, os.Link(at("links/first"), at("links/second")))
	must(t, os.Link(at("links/first"), at("links/sub/third")))
	// A name that is met first may lie deeper than another of its inode.
	write(t, at("links/a/b/c/deeper"), "one inode, deeper name first")
	must(t, os.MkdirAll(at("links/z"), 0o755))
	must(t, os.Link(at("links/a/b/c/deeper"), at("links/z/higher")))
	must(t, os.Symlink("linked itself", at("links/symlink")))
	must(t, os.Link(at("links/symlink"), at("links/a/symlink")))

	// Sparse files: hole first, last, between, nothing but hole.
	sparse(t, at("sparse/middle"), 8<<20, 0, 4<<20)
	sparse(t, at("sparse/front"), 6<<20, 5<<20)
	sparse(t, at("sparse/behind"), 5<<20, 0)
	sparse(t, at("sparse/only"), 3<<20)

	// Extended attributes.
	write(t, at("xattr/file"), "with attributes")
	must(t, unix.Setxattr(at("xattr/file"), "user.note", []byte("bytes \x00\xff"), 0))
	must(t, unix.Setxattr(at("xattr/file"), "user.empty", nil, 0))
	must(t, unix.Setxattr(at("xattr/file"), "user.big", bytes.Repeat([]byte("v"), 2000), 0))
	must(t, os.MkdirAll(at("xattr/dir"), 0o755))
	must(t, unix.Setxattr(at("xattr/dir"), "user.note", []byte("on a folder"), 0))

	// Specials.
	must(t, os.MkdirAll(at("special/empty folder"), 0o700))
	must(t, unix.Mkfifo(at("special/fifo"), 0o640))
	must(t, os.Link(at("special/fifo"), at("links/z/fifo")))
	socket(t, at("special/socket"))

	deep := at("deep")
	for i := range 60 {
		deep = filepath.Join(deep, fmt.Sprintf("level %d", i))
	}
	write(t, filepath.Join(deep, "bottom"), "far down")

	if os.Geteuid() == 0 {
		must(t, unix.Mknod(at("special/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(at("special/block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 1048575))))
		write(t, at("owners/someone"), "not ours")
		must(t, os.Lchown(at("owners/someone"), 12345, 54321))
		must(t, os.Symlink("someone", at("owners/link")))
		must(t, os.Lchown(at("owners/link"), 1, 2))
		write(t, at("owners/setuid"), "setuid of another")
		must(t, os.Lchown(at("owners/setuid"), 33, 33))
		must(t, unix.Chmod(at("owners/setuid"), 0o6755))
		write(t, at("xattr/capable"), "#!")
		tool(t, "setcap", "cap_net_bind_service+ep", at("xattr/capable"))
		tool(t, "setfacl", "-m", "u:1234:rw,g:99:r", at("xattr/file"))
		tool(t, "setfacl", "-d", "-m", "u:1234:rwx", at("xattr/dir"))
		must(t, unix.Lsetxattr(at("owners/link"), "trusted.on-a-link", []byte("yes"), 0))
		must(t, unix.Lsetxattr(at("special/fifo"), "trusted.on-a-fifo", []byte("yes"), 0))
	}
	// Folders last: what is made in them changes their times. They and all that
	// is no regular file get times of long ago, since rsync does not touch up
	// what it made itself within the same second.
	n := int64(0)
	must(t, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Type().IsRegular() {
			return err
		}
		n++
		at := unix.Timespec{Sec: 1_300_000_000 + n, Nsec: n * 1_000_003}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	}))
	must(t, os.Chtimes(at("special/empty folder"), time.Time{}, time.Unix(1_000_000_000, 1)))
	must(t, os.Chtimes(at("links"), time.Time{}, time.Unix(1_111_111_111, 999_999_999)))
	must(t, os.Chtimes(root, time.Time{}, time.Unix(1_234_567_890, 987_654_321)))
}

// sparse makes a file of that size with 64 KiB of data at each offset.
func sparse(t *testing.T, path string, size int64, data ...int64) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	for i, off := range data {
		_, err := f.WriteAt(bytes.Repeat([]byte{byte('a' + i)}, 64<<10), off)
		must(t, err)
	}
	must(t, f.Sync())
	must(t, f.Close())
}

// socket leaves a socket behind. Their addresses are short, so it is bound by
// way of the folder.
func socket(t *testing.T, path string) {
	t.Helper()
	short, err := os.MkdirTemp("", "s")
	must(t, err)
	defer os.RemoveAll(short)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, "s"), Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	must(t, os.Rename(filepath.Join(short, "s"), path))
}
