// Package integration tells vaultik's stories with real parts: the built
// program, real mounts, a real S3 server, and the stock tools that people
// restore with. Everything here is test support; the stories are in the tests.
package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is what must be the same about a file and its copy.
type Entry struct {
	Type   string
	Mode   uint32 // permission bits, setuid, setgid, sticky
	UID    uint32
	GID    uint32
	Size   int64  // of regular files and symbolic links
	MTime  string // seconds.nanoseconds
	Rdev   string // major:minor of devices
	Target string
	Hash   string            // SHA-256 of the content
	Data   string            // ranges that are not holes, if asked for
	Links  string            // the other names of the inode within the tree, joined
	Xattrs map[string]string // by name
}

// Tree maps paths below a folder, "." for the folder itself, to entries.
type Tree map[string]Entry

// Look says what ScanTree compares.
type Look struct {
	Holes bool // where the holes are
	Root  bool // the metadata of the folder itself
}

// ScanTree reads a folder with lstat, listxattr and read, as a person who
// does not trust vaultik would.
func ScanTree(root string, look Look) (Tree, error) {
	tree := Tree{}
	links := map[[2]uint64][]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || (rel == "." && !look.Root) {
			return err
		}
		e, id, nlink, err := scanEntry(p, look)
		if err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
		if nlink > 1 && e.Type != "d" {
			links[id] = append(links[id], rel)
		}
		tree[rel] = e
		return nil
	})
	for _, names := range links {
		if len(names) < 2 {
			continue
		}
		sort.Strings(names)
		for _, n := range names {
			e := tree[n]
			e.Links = strings.Join(names, " = ")
			tree[n] = e
		}
	}
	return tree, err
}

func scanEntry(p string, look Look) (e Entry, id [2]uint64, nlink uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return e, id, 0, err
	}
	e = Entry{
		Type: fileType(st.Mode), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec),
	}
	switch e.Type {
	case "f":
		e.Size = st.Size
		if e.Hash, e.Data, err = scanContent(p, look.Holes); err != nil {
			return e, id, 0, err
		}
	case "l":
		e.Size = st.Size
		if e.Target, err = os.Readlink(p); err != nil {
			return e, id, 0, err
		}
	case "c", "b":
		e.Rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	e.Xattrs, err = scanXattrs(p)
	return e, [2]uint64{st.Dev, st.Ino}, uint64(st.Nlink), err
}

func fileType(mode uint32) string {
	return map[uint32]string{
		unix.S_IFREG: "f", unix.S_IFDIR: "d", unix.S_IFLNK: "l", unix.S_IFIFO: "p",
		unix.S_IFSOCK: "s", unix.S_IFCHR: "c", unix.S_IFBLK: "b",
	}[mode&unix.S_IFMT]
}

func scanContent(p string, holes bool) (sum, data string, err error) {
	f, err := os.Open(p)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", "", err
	}
	if holes {
		if data, err = dataRanges(f); err != nil {
			return "", "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), data, nil
}

func dataRanges(f *os.File) (string, error) {
	var ranges []string
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return strings.Join(ranges, " "), nil
		}
		if err != nil {
			return "", err
		}
		if off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
			return "", err
		}
		ranges = append(ranges, fmt.Sprintf("%d-%d", start, off))
	}
}

func scanXattrs(p string) (map[string]string, error) {
	n, err := unix.Llistxattr(p, nil)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n)
	if n, err = unix.Llistxattr(p, buf); err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", name, err)
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}
