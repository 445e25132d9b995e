package localfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// dir is a directory handle. The descriptor is closed when all references
// are given back and no call is using it any more; calls after that fail with
// io/fs.ErrClosed.
type dir struct {
	source *Source

	mu     sync.Mutex
	fd     int // O_PATH
	refs   int // Retain adds one, Close takes one
	active int // calls at work
}

func newDir(s *Source, fd int) *dir { return &dir{source: s, fd: fd, refs: 1} }

// use keeps the descriptor open until done is called.
func (d *dir) use() (fd int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs == 0 {
		return -1, fmt.Errorf("directory handle: %w", fs.ErrClosed)
	}
	d.active++
	return d.fd, nil
}

func (d *dir) done() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	d.release()
}

// Retain makes the handle outlive one Close more. It cannot bring a closed
// one back.
func (d *dir) Retain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs > 0 {
		d.refs++
	}
}

// Close gives one reference back.
func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs == 0 {
		return fmt.Errorf("directory handle: %w", fs.ErrClosed)
	}
	d.refs--
	return d.release()
}

func (d *dir) release() error {
	if d.refs > 0 || d.active > 0 || d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Names lists the directory.
func (d *dir) Names(ctx context.Context) ([]string, error) {
	fd, err := d.use()
	if err != nil {
		return nil, err
	}
	defer d.done()
	list, err := d.source.list(ctx, fd)
	slices.Sort(list)
	return list, err
}

// Entries examines names.
func (d *dir) Entries(ctx context.Context, names []string) ([]source.Entry, error) {
	fd, err := d.use()
	if err != nil {
		return nil, err
	}
	defer d.done()
	entries := make([]source.Entry, 0, len(names))
	for i, name := range names {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e, err := examine(fd, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		e.Name, e.Err = name, err
		entries = append(entries, e)
	}
	return entries, nil
}

// Entry examines one name.
func (d *dir) Entry(ctx context.Context, name string) (source.Entry, error) {
	fd, err := d.enter(ctx, name)
	if err != nil {
		return source.Entry{}, err
	}
	defer d.done()
	return examine(fd, name)
}

// OpenDir opens a directory in this one.
func (d *dir) OpenDir(ctx context.Context, e source.Entry) (source.Dir, error) {
	if e.Type != metastore.Directory {
		return nil, fmt.Errorf("open: %w", unix.ENOTDIR)
	}
	dirfd, err := d.enter(ctx, e.Name)
	if err != nil {
		return nil, err
	}
	defer d.done()
	fd, err := handle(dirfd, e)
	if err != nil {
		return nil, err
	}
	return newDir(d.source, fd), nil
}

// Open opens a regular file for reading.
func (d *dir) Open(ctx context.Context, e source.Entry) (source.File, error) {
	if e.Type != metastore.Regular {
		return nil, fmt.Errorf("open: not a regular file: %w", unix.EINVAL)
	}
	dirfd, err := d.enter(ctx, e.Name)
	if err != nil {
		return nil, err
	}
	defer d.done()
	return d.source.openFile(dirfd, e)
}

// enter starts a call that names an entry; done ends it.
func (d *dir) enter(ctx context.Context, name string) (fd int, err error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return -1, fmt.Errorf("%q is not the name of a directory entry: %w", name, unix.EINVAL)
	}
	return d.use()
}

// handle opens an O_PATH handle of an entry and makes sure that it is the
// inode that was listed.
func handle(dirfd int, e source.Entry) (int, error) {
	fd, err := openat(dirfd, e.Name, unix.O_PATH)
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	if _, _, err := same(fd, e); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// same checks that fd is the inode that e describes, and returns what it is
// like now.
func same(fd int, e source.Entry) (st metastore.Stat, space int64, err error) {
	now, space, err := examineSpace(fd, "")
	if err == nil && (now.Type != e.Type || now.Inode != e.Inode || now.Dev != e.Dev) {
		err = fmt.Errorf("open: %w", source.ErrSwapped)
	}
	return now.Stat, space, err
}

// listBuffer is room for some 2,000 names a system call.
const listBuffer = 64 << 10

// list reads all names of a directory but "." and "..", in no order.
func (s *Source) list(ctx context.Context, handle int) ([]string, error) {
	fd, err := reopen(handle)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	buf := s.buffers.Get().(*[listBuffer]byte)
	defer s.buffers.Put(buf)
	var list []string
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf[:]) })
		if err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		if n == 0 {
			return list, nil
		}
		if list, err = appendNames(list, buf[:n]); err != nil {
			return nil, err
		}
	}
}

// appendNames takes the names out of what getdents64(2) returned.
func appendNames(list []string, buf []byte) ([]string, error) {
	const header = 8 + 8 + 2 + 1 // inode, offset, length of the record, type
	for len(buf) > 0 {
		length := 0
		if len(buf) > header {
			length = int(binary.NativeEndian.Uint16(buf[16:]))
		}
		if length <= header || length > len(buf) {
			return nil, fmt.Errorf("list: the kernel returned a broken record: %w", unix.EIO)
		}
		name, _, _ := bytes.Cut(buf[header:length], []byte{0})
		if string(name) != "." && string(name) != ".." {
			list = append(list, string(name))
		}
		buf = buf[length:]
	}
	return list, nil
}
