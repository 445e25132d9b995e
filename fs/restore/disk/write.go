package disk

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// WriteFile writes a file that has one piece of data, or none.
func (d *Folder) WriteFile(ctx context.Context, n *view.Node, data []byte, off int64) (err error) {
	s, mode := subject{made: d.plain}, uint32(0o600)
	if want := d.t.me.mode(n); d.plain && d.t.me.owned(n) && !n.HasXattrs && want&^0o777 == 0 && d.t.me.masked(want) == want {
		mode = want // one system call less
	}
	s.mode = d.t.me.masked(mode)
	temp := d.t.temporary(n.Cookie)
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
	return d.complete(ctx, s, temp, n, err)
}

// complete gives an open file its metadata and its name, or removes it if it
// could not be written.
func (d *Folder) complete(ctx context.Context, s subject, temp string, n *view.Node, err error) error {
	var lacks error
	if err == nil {
		lacks = d.t.apply(ctx, s, n)
	}
	if failed := unix.Close(s.fd); err == nil && failed != nil {
		err = fmt.Errorf("write: %w", failed)
	}
	if err == nil {
		lacks = errors.Join(lacks, touch(d.fd, temp, n))
		err = d.name(temp, n.Name)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return err
	}
	return lacking(lacks)
}

// name renames what is complete.
func (d *Folder) name(temp, name string) error {
	rename := func() error { return unix.Renameat(d.fd, temp, d.fd, name) }
	if d.t.keep {
		// Nobody had it when the plan was made.
		rename = func() error { return unix.Renameat2(d.fd, temp, d.fd, name, unix.RENAME_NOREPLACE) }
	}
	err := rename()
	if errors.Is(err, unix.EINVAL) && d.t.keep { // the file system does not know how
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

// WritePart writes one of several pieces of a file, which is still temporary. The
// slot is its number in the snapshot.
func (d *Folder) WritePart(slot uint64, data []byte, off int64) error {
	fd, _, err := d.reopen(slot, unix.O_CREAT)
	if err != nil {
		return err
	}
	err = writeAt(fd, data, off)
	if failed := unix.Close(fd); err == nil && failed != nil {
		err = fmt.Errorf("write: %w", failed)
	}
	return err
}

// reopen opens a temporary file that has more than one piece. Somebody else may
// have seen its name, so it is looked at.
func (d *Folder) reopen(slot uint64, flag int) (fd int, size int64, err error) {
	fd, err = retry(func() (int, error) {
		return unix.Openat(d.fd, d.t.temporary(slot), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flag, 0o600)
	})
	if err != nil {
		return -1, 0, fmt.Errorf("open the temporary file: %w", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Uid != d.t.me.uid) {
		err = errors.New("it is another file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("open the temporary file: %w", err)
	}
	return fd, st.Size, nil
}

// Complete gives a file that was written in parts its metadata and its name.
func (d *Folder) Complete(ctx context.Context, n *view.Node) error {
	fd, size, err := d.reopen(n.Cookie, 0)
	if err != nil {
		return err
	}
	if size != n.Size {
		err = truncate(fd, n.Size)
	}
	return d.complete(ctx, subject{fd: fd, made: d.plain, mode: d.t.me.masked(0o600)}, d.t.temporary(n.Cookie), n, err)
}

// Discard removes what was written of a file in parts, if anything was; the next
// run removes what it cannot.
func (d *Folder) Discard(slot uint64) { _ = unix.Unlinkat(d.fd, d.t.temporary(slot), 0) }

// Make makes anything but a directory or a regular file.
func (d *Folder) Make(ctx context.Context, n *view.Node) (err error) {
	temp := d.t.temporary(n.Cookie)
	if n.Type == metastore.Symlink {
		err = unix.Symlinkat(n.Target, d.fd, temp)
	} else {
		err = unix.Mknodat(d.fd, temp, n.Type.Format()|0o600, int(unix.Mkdev(n.RdevMajor, n.RdevMinor)))
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	if n.Type == metastore.Symlink && d.plain && d.t.me.owned(n) && !n.HasXattrs {
		err := errors.Join(touch(d.fd, temp, n), d.name(temp, n.Name))
		if err != nil {
			_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
			return err
		}
		return nil
	}
	fd, err := pathHandle(d.fd, temp, n.Type)
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return fmt.Errorf("open it: %w", err)
	}
	return d.complete(ctx, subject{fd: fd, path: true, made: d.plain, mode: d.t.me.masked(0o600)}, temp, n, nil)
}

// Mend sets the metadata of something that is otherwise as it should be.
func (d *Folder) Mend(ctx context.Context, n *view.Node) error {
	fd, err := pathHandle(d.fd, n.Name, n.Type)
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	defer unix.Close(fd)
	return lacking(errors.Join(d.t.apply(ctx, subject{fd: fd, path: true}, n), touch(d.fd, n.Name, n)))
}

// Link makes n another name of an entry of from, unless it is one already; made
// tells. The other's path is spelled in errors.
func (d *Folder) Link(from *Folder, name string, n *view.Node, spell func() string) (made bool, err error) {
	var a, b unix.Stat_t
	if err := unix.Fstatat(from.fd, name, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("it is another name of %q: %w", spell(), err)
	}
	if err := unix.Fstatat(d.fd, n.Name, &b, unix.AT_SYMLINK_NOFOLLOW); err == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return false, nil
	}
	temp := d.t.temporary(n.Cookie)
	if err := unix.Linkat(from.fd, name, d.fd, temp, 0); err != nil {
		return false, fmt.Errorf("link it to %q: %w", spell(), err)
	}
	if err := d.name(temp, n.Name); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return false, err
	}
	return true, nil
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
