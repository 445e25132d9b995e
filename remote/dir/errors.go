package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"git.eeqj.de/sneak/vaultik/remote"
)

// failed says what failed, with which object, and what to do about it; nil if
// err is.
func (s *Store) failed(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if err = explain(err); errors.Is(err, syscall.EIO) && (op == "get" || op == "read") {
		err = fmt.Errorf("%w: its disk fails: %w", remote.ErrUnreadable, err)
	}
	return &remote.StoreError{Op: op, Key: key, Where: "the folder " + s.root.Name(), Err: err}
}

// explain turns the system's errors into those of package remote, with the
// remedy where there is one.
func explain(err error) error {
	err = reason(err)
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w; mount it writable", remote.ErrDenied, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w; this user needs the right to read and write below the folder", remote.ErrDenied, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; make room there", err)
	}
	return err
}

// reason is err without the names that the system's calls add: they repeat the
// key, or are those of temporary files. Of several joined errors the first is
// the reason.
func reason(err error) error {
	for first := err; ; {
		switch e := first.(type) {
		case *fs.PathError:
			return e.Err
		case *os.SyscallError:
			return e.Err
		case interface{ Unwrap() []error }:
			first = e.Unwrap()[0]
		default:
			return err
		}
	}
}

// lookupError is for calls that look for an existing object: where a part of
// the key is an object itself, or no file can have such a name, there is none.
func lookupError(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, reason(err))
	}
	return err
}
