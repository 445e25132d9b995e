package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote"
)

// putTries bounds how often Put starts over because the folder or the
// temporary file vanished under it: somebody deletes the last other object
// of the folder, or takes the file for a leftover.
const putTries = 5

// Put implements remote.Store. The order matters: the object's bytes are on
// the disk before its name is, and the name is before Put returns.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	if err := checkCall(ctx, key); err != nil {
		return s.failed("put", key, err)
	}
	folder, name := path.Split(key)
	folder = path.Clean(folder) // "." for the store's own
	var err error
	for range putTries {
		if err = s.put(ctx, folder, name, body); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return s.failed("put", key, err)
}

func (s *Store) put(ctx context.Context, folder, name string, body []byte) (err error) {
	if err := s.root.MkdirAll(folder, folderMode); err != nil {
		return err
	}
	d, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, done := s.swept.LoadOrStore(folder, true); !done {
		s.sweep(d)
	}
	// Spare a taken key the writing; publish decides.
	if err := unix.Fstatat(int(d.Fd()), name, new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return remote.ErrExists
	}

	temp := tempPrefix + rand.Text()
	f, err := openAt(d, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := s.write(ctx, f, body); err != nil {
		return errors.Join(err, removeAt(d, temp))
	}
	if err := s.publish(d, temp, name); err != nil {
		return errors.Join(err, removeAt(d, temp))
	}
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	for folder != "." {
		folder = path.Dir(folder)
		// A folder that is gone went with the object: somebody deleted it.
		if err := s.syncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// write fills f piece by piece, so that a cancelled Put of a big object on a
// slow disk ends soon, and syncs it. f stays locked until it is closed.
func (s *Store) write(ctx context.Context, f *os.File, body []byte) error {
	// Locks only spare f the sweep of others; a file system may have none.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	piece := 4 << 20
	if s.limit != nil {
		piece = min(64<<10, s.limit.Burst())
	}
	for len(body) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(body), piece)
		if s.limit != nil {
			if err := s.limit.WaitN(ctx, n); err != nil {
				return err
			}
		}
		if _, err := f.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return ctx.Err()
}

// sweep removes the leftovers of crashes from a folder. It is a courtesy: Put
// does not depend on it, so its errors are of no interest.
func (s *Store) sweep(d *os.File) {
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		f, err := openAt(d, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		fi, err := f.Stat()
		old := err == nil && fi.Mode().IsRegular() && s.now().Sub(fi.ModTime()) > tempAge
		if old && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = removeAt(d, name)
		}
		_ = f.Close() // nothing was written
	}
}

func openAt(d *os.File, name string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(d.Fd()), name, flags|unix.O_CLOEXEC, mode)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
		default:
			return os.NewFile(uintptr(fd), name), nil
		}
	}
}

func removeAt(d *os.File, name string) error {
	err := unix.Unlinkat(int(d.Fd()), name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	return nil
}
