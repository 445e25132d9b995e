package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Stat examines an entry, not what a link leads to; there is false if there is
// none.
func (d *Folder) Stat(name string) (st *unix.Stat_t, there bool, err error) {
	st = new(unix.Stat_t)
	err = unix.Fstatat(d.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return st, true, nil
}

// Names yields the names in a folder, in no order.
func (d *Folder) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		fd, err := openDir(d.fd, ".") // its own place in the listing
		if err != nil {
			yield("", fmt.Errorf("list a folder of the target: %w", err))
			return
		}
		dir := os.NewFile(uintptr(fd), ".")
		defer dir.Close()
		for {
			names, err := dir.Readdirnames(1024)
			for _, n := range names {
				if !yield(n, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield("", fmt.Errorf("list a folder of the target: %w", err))
				return
			}
		}
	}
}

// Same reports whether what is there, with st, is taken for what the snapshot has.
func (d *Folder) Same(n *view.Node, st *unix.Stat_t) (bool, error) {
	if st.Mode&unix.S_IFMT != n.Type.Format() {
		return false, nil
	}
	switch n.Type {
	case metastore.Regular:
		return st.Size == n.Size && sameTime(n, st), nil
	case metastore.Symlink:
		target := make([]byte, len(n.Target)+1)
		length, err := unix.Readlinkat(d.fd, n.Name, target)
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

// Described reports whether what is there, with st, has the right metadata, as
// far as whoever runs this can set it. The attributes of what has none in the
// snapshot are looked at for directories only.
func (d *Folder) Described(ctx context.Context, n *view.Node, st *unix.Stat_t) (bool, error) {
	owner, group := d.t.me.owner(n)
	if owner >= 0 && uint32(owner) != st.Uid || group >= 0 && uint32(group) != st.Gid || !sameTime(n, st) {
		return false, nil
	}
	if n.Type != metastore.Symlink && st.Mode&0o7777 != d.t.me.mode(n) {
		return false, nil
	}
	if !n.HasXattrs && n.Type != metastore.Directory {
		return true, nil
	}
	want, err := d.t.tree.Xattrs(ctx, n.Ino)
	if err != nil {
		return false, err
	}
	h, err := pathHandle(d.fd, n.Name, n.Type)
	if err != nil {
		return false, nil // it cannot be looked at, perhaps it can be set
	}
	defer unix.Close(h)
	return d.t.attributed(procPath(h), want), nil
}

// DescribedItself is Described for the folder itself.
func (d *Folder) DescribedItself(ctx context.Context, n *view.Node) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return false, fmt.Errorf("examine the folder: %w", err)
	}
	self := *n
	self.Name = "."
	same, err := d.Described(ctx, &self, &st)
	return err == nil && same, nil
}

// attributed reports whether what is at a path has the attributes that are
// wanted and that this run may set, and no others that strip would remove.
func (t *Target) attributed(at string, want []metastore.Xattr) bool {
	for _, x := range want {
		if !t.me.maySet(x.Name) {
			continue
		}
		value := make([]byte, len(x.Value)+1)
		if got, err := unix.Getxattr(at, x.Name, value); err != nil || !bytes.Equal(value[:got], x.Value) {
			return false
		}
	}
	return len(surplusXattrs(at, want, t.me.root)) == 0
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

// File is a file of the target that is read back.
type File struct{ fd int }

// OpenFile opens a regular file to read back what was written of n. What is in
// memory of it is dropped, for that says nothing about the disk.
func (d *Folder) OpenFile(n *view.Node) (*File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, n.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("read it back: %w", err)
	}
	var st unix.Stat_t
	switch err = unix.Fstat(fd, &st); {
	case err != nil:
		err = fmt.Errorf("read it back: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("it is no regular file")
	case st.Size != n.Size:
		err = fmt.Errorf("it has %d bytes instead of %d", st.Size, n.Size)
	}
	if err != nil {
		_ = unix.Close(fd) // it was only read
		return nil, err
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) // advice: some file systems are memory
	return &File{fd}, nil
}

// Close closes the file.
func (f *File) Close() { _ = unix.Close(f.fd) } // it was only read

// Zeros makes sure that nothing but zeros is in a range, and does not read what
// is a hole.
func (f *File) Zeros(off, end int64) error {
	buf := make([]byte, 64<<10)
	for off < end {
		data, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			data = off // a file system without holes
		}
		if off = data; off >= end {
			return nil
		}
		b := buf[:min(int64(len(buf)), end-off)]
		if err := f.ReadAt(b, off); err != nil {
			return err
		}
		for i, c := range b {
			if c != 0 {
				return fmt.Errorf("byte %d is in a hole, and is %#02x", off+int64(i), c)
			}
		}
		off += int64(len(b))
	}
	return nil
}

// ReadAt reads all of b at off, or fails.
func (f *File) ReadAt(b []byte, off int64) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Pread(f.fd, b, off) })
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read it back: %w", err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
