package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// ReadFile reads a file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, path, limit)
}

// ReadAll reads all of r, which must be at most limit bytes; name is for the
// error.
func ReadAll(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%q has more than %s", name, ui.Size(limit))
	}
	return b, nil
}

// MakePrivate makes a folder, and those above it, that only its owner may enter.
func MakePrivate(folder string) error {
	if folder == "" {
		return errors.New("there is no place for it, because HOME is not set")
	}
	return os.MkdirAll(folder, 0o700)
}

// Create writes a new file that only its owner may read, and syncs it and its
// folder. A file that is there is not touched: fs.ErrExist.
func Create(path string, content []byte) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".vaultik-") // 0600
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return &fs.PathError{Op: "create", Path: path, Err: failed.Err} // not the temporary name
	}
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() { err = errors.Join(err, IgnoreMissing(os.Remove(temp))) }()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike rename, link refuses a name that is taken.
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		if err = createHere(path, content); err != nil { // a file system without links
			return err
		}
	}
	return SyncFolder(filepath.Dir(path))
}

func createHere(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// SyncFolder makes sure that new names in a folder outlast a crash.
func SyncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// IgnoreMissing is err, or nil if that says that something does not exist.
func IgnoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
