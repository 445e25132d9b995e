package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// litterPrefix begins the temporary names of all restores. The run's token and
// the entry's number in the snapshot follow.
const litterPrefix = ".vaultik-restore-"

func (r *run) temporary(slot uint64) string {
	return fmt.Sprintf("%s%s-%x", litterPrefix, r.token, slot)
}

// litter reports whether a name is a temporary one.
func litter(name string) bool {
	rest, ok := strings.CutPrefix(name, litterPrefix)
	token, slot, dashed := strings.Cut(rest, "-")
	hex := func(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }
	return ok && dashed && len(token) == 8 && hex(token) && hex(slot)
}

// write puts a chunk where it is used.
func (r *run) write(ctx context.Context, u *use, data []byte) error {
	if r.failed.has(u.slot) {
		return nil
	}
	d, err := r.target.get(ctx, u.dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if u.only {
		n, err := r.node(ctx, u.dir, u.slot)
		if err != nil {
			return err
		}
		if err := r.writeWhole(ctx, d, n, data, u.offset); err != nil {
			return err
		}
	} else if err := r.writePart(d, u, data); err != nil {
		return err
	}
	r.done.bytes.Add(int64(len(data)))
	return nil
}

// writeWhole writes a file that has one piece of data, or none.
func (r *run) writeWhole(ctx context.Context, d *handle, n *view.Node, data []byte, off int64) (err error) {
	s, mode := subject{made: d.plain}, uint32(0o600)
	if want := r.mode(n); d.plain && r.owned(n) && !n.HasXattrs && want&^0o777 == 0 && r.me.masked(want) == want {
		mode = want // one system call less
	}
	s.mode = r.me.masked(mode)
	temp := r.temporary(n.Cookie)
	s.fd, err = retry(func() (int, error) {
		return unix.Openat(d.fd, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	err = writeAt(s.fd, data, off)
	if err == nil && off+int64(len(data)) < n.Size {
		err = truncate(s.fd, n.Size)
	}
	return r.complete(ctx, d, s, temp, n, err)
}

// owned reports whether what is made belongs to whom it should.
func (r *run) owned(n *view.Node) bool {
	uid, gid := r.owner(n)
	return (uid < 0 || uint32(uid) == r.me.uid) && (gid < 0 || uint32(gid) == r.me.gid)
}

// complete gives an open file its metadata and its name, or removes it if it
// could not be written.
func (r *run) complete(ctx context.Context, d *handle, s subject, temp string, n *view.Node, err error) error {
	var lacks error
	if err == nil {
		lacks = r.apply(ctx, s, n)
	}
	if failed := unix.Close(s.fd); err == nil && failed != nil {
		err = fmt.Errorf("write: %w", failed)
	}
	if err == nil {
		lacks = errors.Join(lacks, touch(d.fd, temp, n))
		err = r.name(d, temp, n.Name)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return err
	}
	r.undescribed(n.Parent, n.Cookie, lacks)
	r.done.of(n.Type).Add(1)
	return nil
}

// name renames what is complete.
func (r *run) name(d *handle, temp, name string) error {
	rename := func() error { return unix.Renameat(d.fd, temp, d.fd, name) }
	if r.Overwrite == Never {
		// Nobody had it when the plan was made.
		rename = func() error { return unix.Renameat2(d.fd, temp, d.fd, name, unix.RENAME_NOREPLACE) }
	}
	err := rename()
	if errors.Is(err, unix.EINVAL) && r.Overwrite == Never { // the file system does not know how
		err = unix.Linkat(d.fd, temp, d.fd, name, 0)
		if err == nil {
			err = unix.Unlinkat(d.fd, temp, 0)
		}
	}
	if errors.Is(err, unix.EISDIR) {
		if err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR); err == nil {
			err = rename()
		}
	}
	if err != nil {
		return fmt.Errorf("put it in place: %w", err)
	}
	return nil
}

// writePart writes one of several pieces of a file, which is still temporary.
func (r *run) writePart(d *handle, u *use, data []byte) error {
	fd, _, err := r.reopen(d, u.slot, unix.O_CREAT)
	if err != nil {
		return err
	}
	err = writeAt(fd, data, u.offset)
	if failed := unix.Close(fd); err == nil && failed != nil {
		err = fmt.Errorf("write: %w", failed)
	}
	return err
}

// reopen opens a temporary file that has more than one piece. Somebody else may
// have seen its name, so it is looked at.
func (r *run) reopen(d *handle, slot uint64, flag int) (fd int, size int64, err error) {
	fd, err = retry(func() (int, error) {
		return unix.Openat(d.fd, r.temporary(slot), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flag, 0o600)
	})
	if err != nil {
		return -1, 0, fmt.Errorf("open the temporary file: %w", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Uid != r.me.uid) {
		err = errors.New("it is another file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("open the temporary file: %w", err)
	}
	return fd, st.Size, nil
}

// finishFile completes a file that has more than one piece, all of which were
// written, or tried to.
func (r *run) finishFile(ctx context.Context, dir, slot uint64) error {
	d, err := r.target.get(ctx, dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if r.failed.has(slot) {
		_ = unix.Unlinkat(d.fd, r.temporary(slot), 0) // the next run tries again
		return nil
	}
	n, err := r.node(ctx, dir, slot)
	if err != nil {
		return err
	}
	fd, size, err := r.reopen(d, slot, 0)
	if err != nil {
		return err
	}
	if size != n.Size {
		err = truncate(fd, n.Size)
	}
	return r.complete(ctx, d, subject{fd: fd, made: d.plain, mode: r.me.masked(0o600)}, r.temporary(slot), n, err)
}

func writeAt(fd int, data []byte, off int64) error {
	for len(data) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, data, off) })
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// truncate gives a file its size where it ends in a hole.
func truncate(fd int, size int64) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("set its size to %d bytes: %w", size, err)
	}
	return nil
}

// sweep removes the temporary files of a run that ends early.
func (r *run) sweep() {
	ctx := context.Background() // local calls only
	for u, err := range r.uses.all() {
		if err != nil {
			return
		}
		if !u.last || u.only {
			continue
		}
		if d, err := r.target.get(ctx, u.dir); err == nil {
			_ = unix.Unlinkat(d.fd, r.temporary(u.slot), 0) // most are not there; the next run removes the rest
			r.target.put(d)
		}
	}
}
