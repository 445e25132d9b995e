package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// verdict is what is to become of an entry that the target has already.
type verdict int

const (
	toMake verdict = iota // it is replaced
	toFix                 // it is the same but for its metadata
	toSkip                // it is the same
	toKeep                // it is different and stays
)

// stat examines an entry of a target folder; there is false if it has none.
func (r *run) stat(ctx context.Context, f *folder, name string) (st *unix.Stat_t, there bool, err error) {
	if !f.there {
		return nil, false, nil
	}
	d, err := r.target.get(ctx, f.node.Ino)
	if err != nil {
		return nil, false, err
	}
	defer r.target.put(d)
	st = new(unix.Stat_t)
	err = unix.Fstatat(d.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("examine what is there: %w", err)
	}
	return st, true, nil
}

// compare decides about an entry that the target has: st is what it has.
func (r *run) compare(ctx context.Context, f *folder, n *view.Node, st *unix.Stat_t) (verdict, error) {
	if r.Overwrite == Always {
		return toMake, nil
	}
	d, err := r.target.get(ctx, f.node.Ino)
	if err != nil {
		return toKeep, err
	}
	defer r.target.put(d)
	same, err := matches(d.fd, n, st)
	switch {
	case err != nil:
		return toKeep, err
	case same && r.Overwrite != IfChanged:
		return toSkip, nil
	case same:
		described, err := r.described(ctx, d.fd, n, st)
		if err != nil || described {
			return toSkip, err
		}
		return toFix, nil
	case r.keeps(n, st):
		return toKeep, nil
	}
	return toMake, nil
}

// keeps reports whether something different is kept.
func (r *run) keeps(n *view.Node, st *unix.Stat_t) bool {
	return r.Overwrite == Never || r.Overwrite == IfNewer && !newer(n, st)
}

func newer(n *view.Node, st *unix.Stat_t) bool {
	return n.MTime.Sec > st.Mtim.Sec || n.MTime.Sec == st.Mtim.Sec && int64(n.MTime.Nsec) > st.Mtim.Nsec
}

// matches reports whether what is there is taken for what the snapshot has.
func matches(dirfd int, n *view.Node, st *unix.Stat_t) (bool, error) {
	if st.Mode&unix.S_IFMT != n.Type.Format() {
		return false, nil
	}
	switch n.Type {
	case metastore.Regular:
		return st.Size == n.Size && sameTime(n, st), nil
	case metastore.Symlink:
		target := make([]byte, len(n.Target)+1)
		length, err := unix.Readlinkat(dirfd, n.Name, target)
		if err != nil {
			return false, fmt.Errorf("read the link that is there: %w", err)
		}
		return string(target[:length]) == n.Target, nil
	case metastore.CharDev, metastore.BlockDev:
		return st.Rdev == unix.Mkdev(n.RdevMajor, n.RdevMinor), nil
	}
	return true, nil
}

func sameTime(n *view.Node, st *unix.Stat_t) bool {
	return st.Mtim.Sec == n.MTime.Sec && st.Mtim.Nsec == int64(n.MTime.Nsec)
}

// described reports whether what is there has the right metadata, as far as
// whoever runs this can set it. The attributes of what has none in the snapshot
// are looked at for directories only.
func (r *run) described(ctx context.Context, dirfd int, n *view.Node, st *unix.Stat_t) (bool, error) {
	owner, group := r.owner(n)
	if owner >= 0 && uint32(owner) != st.Uid || group >= 0 && uint32(group) != st.Gid || !sameTime(n, st) {
		return false, nil
	}
	if n.Type != metastore.Symlink && st.Mode&0o7777 != r.mode(n) {
		return false, nil
	}
	if !n.HasXattrs && n.Type != metastore.Directory {
		return true, nil
	}
	want, err := r.Tree.Xattrs(ctx, n.Ino)
	if err != nil {
		return false, err
	}
	h, err := pathHandle(dirfd, n.Name, n.Type)
	if err != nil {
		return false, nil // it cannot be looked at, perhaps it can be set
	}
	defer unix.Close(h)
	return r.attributed(procPath(h), want), nil
}

// attributed reports whether what is at a path has the attributes that are
// wanted and that this run may set, and no others that strip would remove.
func (r *run) attributed(at string, want []metastore.Xattr) bool {
	for _, x := range want {
		if !r.maySet(x.Name) {
			continue
		}
		value := make([]byte, len(x.Value)+1)
		if got, err := unix.Getxattr(at, x.Name, value); err != nil || !bytes.Equal(value[:got], x.Value) {
			return false
		}
	}
	return len(surplusXattrs(at, want, r.me.root)) == 0
}

// pathHandle is an O_PATH handle of an entry, if it is of that type.
func pathHandle(dirfd int, name string, t metastore.Type) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != t.Format() {
		err = errors.New("something else took its place")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// procPath leads to what fd is a handle of, be it a symbolic link.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
