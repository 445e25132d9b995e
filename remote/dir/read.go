package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Get implements remote.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f, size, err := s.open(ctx, key)
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		_ = f.Close() // nothing was written
		return nil, s.failed("get", key, fmt.Errorf("it has %d bytes, asked for %d from %d on: %w", size, n, off, remote.ErrCorrupt))
	}
	return &reader{ctx: ctx, store: s, key: key, file: f, body: io.NewSectionReader(f, off, n), left: n}, nil
}

func (s *Store) open(ctx context.Context, key string) (*os.File, int64, error) {
	if err := checkCall(ctx, key); err != nil {
		return nil, 0, err
	}
	f, err := s.openBeneath(key)
	if err != nil {
		return nil, 0, lookupError(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// openBeneath opens what a key or a folder's name leads to without leaving the
// store. os.Root does the same with a call for every part of the name, which
// makes a difference where there are tens of thousands of manifests to read;
// it decides wherever the kernel does not open at once.
func (s *Store) openBeneath(name string) (*os.File, error) {
	// Without O_NONBLOCK a FIFO that somebody planted would block for ever.
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	var fd int
	opened := errors.New("no call was made") // the store is closed
	if raw, err := s.folder.SyscallConn(); err == nil {
		_ = raw.Control(func(folder uintptr) {
			fd, opened = unix.Openat2(int(folder), name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
		})
	}
	if opened != nil {
		return s.root.OpenFile(name, flags, 0)
	}
	return os.NewFile(uintptr(fd), name), nil
}

type reader struct {
	ctx   context.Context
	store *Store
	key   string
	file  *os.File
	body  *io.SectionReader
	left  int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.store.failed("read", r.key, err)
	}
	n, err := r.body.Read(p)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		err = r.store.failed("read", r.key, fmt.Errorf("the file became shorter, %d bytes are missing: %w", r.left, remote.ErrCorrupt))
	case err != nil && err != io.EOF:
		err = r.store.failed("read", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }
