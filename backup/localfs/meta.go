package localfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// Meta reads what lstat does not tell. If only some of it can be read, it is
// returned along with the error.
func (d *dir) Meta(ctx context.Context, e backup.Entry) (backup.Meta, error) {
	fd, done, err := d.inode(ctx, e)
	if err != nil {
		return backup.Meta{}, err
	}
	defer done()
	m := backup.Meta{User: d.source.users.of(e.UID), Group: d.source.groups.of(e.GID)}
	m.Xattrs, err = xattrs(fd)
	switch e.Type {
	case metastore.Symlink:
		var failed error
		m.Target, failed = readlink(fd)
		err = errors.Join(err, failed)
	case metastore.Regular, metastore.Directory:
		m.Flags = inodeFlags(fd)
	}
	return m, err
}

// inode gives an O_PATH handle of an entry, or of the directory itself if the
// entry has no name.
func (d *dir) inode(ctx context.Context, e backup.Entry) (fd int, done func(), err error) {
	if e.Name == "" {
		if fd, err = d.use(); err != nil {
			return -1, nil, err
		}
		if err := same(fd, e); err != nil {
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

// xattrs reads all extended attributes of the inode that fd is a handle of,
// whatever its type: an O_PATH handle takes no fgetxattr, but its name below
// /proc does, and leads to a symbolic link itself rather than to its target.
func xattrs(fd int) ([]metastore.Xattr, error) {
	path := procPath(fd)
	list, err := grow(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
	if err != nil {
		if without(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var all []metastore.Xattr
	var failed []error
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" {
			continue
		}
		value, err := grow(func(buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
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
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buf[:n]), nil
}

// inodeFlags returns what lsattr(1) shows of the regular file or directory
// that handle stands for, 0 where that is not supported or not allowed: the
// flags are worth having, and worth no error.
func inodeFlags(handle int) uint32 {
	fd, err := reopen(handle)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
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
