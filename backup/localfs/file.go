package localfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// file is an open regular file.
type file struct {
	fd     int
	source *Source
	opened metastore.Stat
	stat   metastore.Stat // when it was looked at last
	dense  bool           // has no holes, and is still what was opened
}

// denseUpTo is the size in bytes up to which a file that has all its space is
// taken to have no hole: asking the kernel costs two system calls a file, a
// fifth of all. Space that is elsewhere, behind the end or in attributes, can
// deceive this; what it costs here is that a few pages are stored as zeros.
const denseUpTo = 64 << 10

// adviseAbove is the size in bytes from which on advice on reading a file pays
// for its two system calls.
const adviseAbove = 128 << 10

// openFile opens a regular file in the directory that dirfd is a handle of.
//
// It is opened by its name at first, which takes half the system calls of going
// by an O_PATH handle, and can wait for nobody and do nothing: O_NONBLOCK and
// O_NOCTTY see to FIFOs and terminals, and whoever can put a device with effects
// of its own there is root. What does not turn out to be the listed inode is
// closed unread, and what cannot be opened so goes the slow way, which knows why.
func (s *Source) openFile(dirfd int, e source.Entry) (*file, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := openat(dirfd, e.Name, flags|unix.O_NOATIME)
	if err != nil {
		h, err := handle(dirfd, e)
		if err != nil {
			return nil, err
		}
		defer unix.Close(h)
		if fd, err = reopen(h); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	}
	st, space, err := same(fd, e)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if st.Size >= adviseAbove {
		advise(fd)
	}
	return &file{fd, s, st, st, st.Size <= denseUpTo && space >= st.Size}, nil
}

// advise tells the kernel that a file is read once from front to back, so that
// a backup does not cost the machine the cache of its working set: the
// read-ahead doubles, and with FADV_NOREUSE (since Linux 6.3) reading does not
// mark the pages as in use, so that they are the first ones to go.
// FADV_DONTNEED would drop the pages of others, too, if the file happened to be
// cached before.
func advise(fd int) {
	for _, advice := range []int{unix.FADV_SEQUENTIAL, unix.FADV_NOREUSE} {
		// Advice only: some file systems cannot take it, nothing is lost.
		_ = unix.Fadvise(fd, 0, 0, advice)
	}
}

// Opened is what the file was like when it was opened.
func (f *file) Opened() metastore.Stat { return f.opened }

// Stat looks at the open file again.
func (f *file) Stat() (metastore.Stat, error) {
	if f.fd < 0 {
		return metastore.Stat{}, fmt.Errorf("examine: %w", fs.ErrClosed)
	}
	e, err := examine(f.fd, "")
	if err == nil {
		f.stat, f.dense = e.Stat, f.dense && e.Stat == f.opened
	}
	return e.Stat, err
}

// NextData returns the next range of data.
func (f *file) NextData(off int64) (start, end int64, err error) {
	if f.fd < 0 {
		return 0, 0, fmt.Errorf("find data: %w", fs.ErrClosed)
	}
	if f.dense && off < f.opened.Size {
		return off, f.opened.Size, nil
	}
	start, end, err = nextData(off, f.seek, func() (int64, error) {
		s, err := f.Stat()
		return s.Size, err
	})
	if err != nil && err != io.EOF {
		err = fmt.Errorf("find data: %w", err)
	}
	return start, end, err
}

func (f *file) seek(off int64, whence int) (int64, error) {
	return retry(func() (int64, error) { return unix.Seek(f.fd, off, whence) })
}

// nextData asks lseek(2) for data, and for the size where the file system does
// not know about holes.
func nextData(off int64, seek func(off int64, whence int) (int64, error), size func() (int64, error)) (start, end int64, err error) {
	if start, err = seek(off, unix.SEEK_DATA); err == nil {
		end, err = seek(start, unix.SEEK_HOLE)
	}
	switch {
	case err == nil && start >= off && end > start:
		return start, end, nil
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF // off is at or behind the last data
	case err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP):
		return 0, 0, err
	}
	// No such thing as holes, or an answer that makes no sense.
	end, err = size()
	if err == nil && off >= end {
		err = io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	return off, end, nil
}

// ReadAt reads as io.ReaderAt does.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.fd < 0 {
		return 0, fmt.Errorf("read: %w", fs.ErrClosed)
	}
	n := 0
	for n < len(p) {
		m, err := retry(func() (int, error) { return unix.Pread(f.fd, p[n:], off+int64(n)) })
		if err != nil {
			return n, fmt.Errorf("read: %w", err)
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// Close closes the file.
func (f *file) Close() error {
	if f.fd < 0 {
		return fmt.Errorf("close: %w", fs.ErrClosed)
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}
