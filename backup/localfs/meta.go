package localfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// Meta reads what lstat does not tell. If only some of it can be read, it is
// returned along with the error.
func (d *dir) Meta(ctx context.Context, e source.Entry) (source.Meta, error) {
	fd, done, err := d.inode(ctx, e)
	if err != nil {
		return source.Meta{}, err
	}
	defer done()
	m := d.source.owner(e.Stat)
	// An O_PATH handle takes no flistxattr, but its name below /proc does, and
	// leads to a symbolic link itself rather than to its target.
	path := procPath(fd)
	m.Xattrs, err = xattrs(
		func(buf []byte) (int, error) { return unix.Listxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
	switch e.Type {
	case metastore.Symlink:
		var failed error
		m.Target, failed = readlink(fd)
		err = errors.Join(err, failed)
	case metastore.Regular, metastore.Directory:
		if opened, failed := reopen(fd); failed == nil {
			m.Flags = inodeFlags(opened)
			unix.Close(opened)
		}
	}
	return m, err
}

// Meta reads what lstat does not tell of an open file.
func (f *file) Meta(context.Context) (source.Meta, error) {
	if f.fd < 0 {
		return source.Meta{}, fmt.Errorf("read metadata: %w", fs.ErrClosed)
	}
	m := f.source.owner(f.stat)
	var err error
	m.Xattrs, err = xattrs(
		func(buf []byte) (int, error) { return unix.Flistxattr(f.fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(f.fd, name, buf) })
	m.Flags = inodeFlags(f.fd)
	return m, err
}

// owner looks up the names of a file's owner and group.
func (s *Source) owner(st metastore.Stat) source.Meta {
	return source.Meta{User: s.users.of(st.UID), Group: s.groups.of(st.GID)}
}

// inode gives an O_PATH handle of an entry, or of the directory itself if the
// entry has no name.
func (d *dir) inode(ctx context.Context, e source.Entry) (fd int, done func(), err error) {
	if e.Name == "" {
		if fd, err = d.use(); err != nil {
			return -1, nil, err
		}
		if _, _, err := same(fd, e); err != nil {
			d.done()
			return -1, nil, err
		}
		return fd, d.done, nil
	}
	dirfd, err := d.enter(ctx, e.Name)
	if err != nil {
		return -1, nil, err
	}
	defer d.done()
	if fd, err = handle(dirfd, e); err != nil {
		return -1, nil, err
	}
	return fd, func() { unix.Close(fd) }, nil
}

// readlink returns the target of the symbolic link that fd is a handle of.
func readlink(fd int) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := retry(func() (int, error) { return unix.Readlinkat(fd, "", buf) })
		if err != nil {
			return "", fmt.Errorf("read link: %w", err)
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// xattrMax is Linux' limit for one value and for the list of names.
const xattrMax = 64 << 10

// xattrs reads all extended attributes of an inode.
func xattrs(list func(buf []byte) (int, error), get func(name string, buf []byte) (int, error)) ([]metastore.Xattr, error) {
	names, err := grow(list)
	if err != nil {
		if without(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var all []metastore.Xattr
	var failed []error
	for name := range strings.SplitSeq(string(names), "\x00") {
		if name == "" {
			continue
		}
		value, err := grow(func(buf []byte) (int, error) { return get(name, buf) })
		switch {
		case err == nil:
			all = append(all, metastore.Xattr{Name: name, Value: value})
		case without(err): // gone meanwhile, or listed without being there
		default:
			failed = append(failed, fmt.Errorf("read extended attribute %q: %w", name, err))
		}
	}
	slices.SortFunc(all, func(a, b metastore.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, errors.Join(failed...)
}

// without says that err means no more than that there is no attribute.
func without(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// grow calls get with a small buffer and, if that is not enough, with one as
// big as it can take. The result is a copy.
func grow(get func([]byte) (int, error)) ([]byte, error) {
	var small [1024]byte
	buf := small[:]
	n, err := retry(func() (int, error) { return get(buf) })
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, xattrMax)
		n, err = retry(func() (int, error) { return get(buf) })
	}
	if err != nil || n == 0 {
		return []byte{}, err
	}
	return bytes.Clone(buf[:n]), nil
}

// inodeFlags returns what lsattr(1) shows of an open regular file or directory,
// 0 where that is not supported or not allowed: the flags are worth having, and
// worth no error.
func inodeFlags(fd int) uint32 {
	flags, err := retry(func() (uint32, error) { return unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS) })
	if err != nil {
		return 0
	}
	return flags
}

// names remembers the names of user or group numbers. Looking one up may ask
// a directory server, so those that have none are remembered as well.
type names struct {
	lookup func(id string) (string, error)

	mu    sync.Mutex
	known map[uint32]string
}

// namesKept bounds the memory; a file server with more users looks some of
// them up again.
const namesKept = 4096

func userNames() names {
	return names{lookup: func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	}}
}

func groupNames() names {
	return names{lookup: func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	}}
}

// of returns the name of id, "" if it has none or it cannot be found out.
func (n *names) of(id uint32) string {
	n.mu.Lock()
	name, ok := n.known[id]
	n.mu.Unlock()
	if ok {
		return name
	}
	name, err := n.lookup(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		name = ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) >= namesKept {
		n.known = map[uint32]string{}
	}
	n.known[id] = name
	return name
}
