// Package dir is a store in a local folder: an object is a plain file, its
// key the path below the folder.
//
// It promises what remote.Store promises, on every file system that has
// either renameat2(RENAME_NOREPLACE) or hard links, and for any number of
// processes and machines that share the folder: the file system decides who
// creates a key. Put returns after the file and every folder above it up to
// the store's own are synced.
//
// An object is first written to a file named ".tmp-…" in the folder where it
// will live. Such files are no objects: no key can name them and no listing
// shows them. Put removes what a crash left of them in the folder it writes
// to: a file that is a day old and that nobody holds locked (each maker keeps
// a flock on its own). Where locks do not reach, as between the machines of
// some network file systems, the worst that can happen is that a Put which
// takes longer than a day finds its file gone, and starts over.
//
// Files get the mode 0644 and folders 0755, less the umask: the objects are
// encrypted and signed, and whoever copies or audits a store is often another
// user than the one who writes it. To hide sizes and times too, give the
// store's folder the mode 0700.
//
// Not promised: that a folder which happens to be an unmounted mount point is
// noticed (it looks like an empty store), and that bytes on the disk stay as
// they were (readers check every hash).
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"git.eeqj.de/sneak/vaultik/remote"
)

const (
	tempPrefix = ".tmp-"
	// tempAge is how old a leftover must be before Put removes it. No upload
	// takes a day; see the package comment for what happens if one does.
	tempAge = 24 * time.Hour

	fileMode   = 0o644
	folderMode = 0o755
)

// Store is a remote.Store in a folder. Use Open or Create. It follows no
// symbolic link that leads out of the folder.
type Store struct {
	root    *os.Root
	folder  *os.File // the same folder, for openBeneath
	now     func() time.Time
	publish func(folder *os.File, from, to string) error // see link.go
	swept   sync.Map                                     // folders that Put looked for leftovers in
	limit   *rate.Limiter                                // nil: none
}

// Open opens the store in an existing folder. If there is none, or it is no
// folder, the error wraps remote.ErrNoStore.
func Open(folder string) (*Store, error) {
	root, err := os.OpenRoot(folder)
	if fi, statErr := os.Stat(folder); err != nil && statErr == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "open", Path: folder, Err: syscall.ENOTDIR} // OpenRoot has no errno here
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("open store in folder %q: %w (is its disk mounted? otherwise create the folder): %w", folder, remote.ErrNoStore, reason(err))
	case err != nil:
		return nil, fmt.Errorf("open store in folder %q: %w", folder, explain(err))
	}
	opened, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open store in folder %q: %w", folder, errors.Join(explain(err), root.Close()))
	}
	return &Store{root: root, folder: opened, now: time.Now, publish: publish}, nil
}

// Create makes the folder, and those above it, unless they exist, and opens
// the store in it.
func Create(folder string) (*Store, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("create store folder: %w", err)
	}
	var parents []string // of the folders that do not exist yet
	for f := folder; ; f = filepath.Dir(f) {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parents = append(parents, filepath.Dir(f))
	}
	if err := os.MkdirAll(folder, folderMode); err != nil {
		return nil, fmt.Errorf("create store folder %q: %w", folder, explain(err))
	}
	for _, parent := range parents {
		f, err := os.Open(parent)
		if err == nil {
			err = syncAndClose(f)
		}
		if err != nil {
			return nil, fmt.Errorf("create store folder %q: %w", folder, explain(err))
		}
	}
	return Open(folder)
}

// Limit slows all further Puts down together: a token of l is a byte written.
// Stores may share one. It must not be called while a Put is under way.
func (s *Store) Limit(l *rate.Limiter) { s.limit = l }

// Close lets go of the folder. Open readers stay valid.
func (s *Store) Close() error { return errors.Join(s.folder.Close(), s.root.Close()) }

// Stat implements remote.Store. A file system records no sums, so SHA256 is
// zero.
func (s *Store) Stat(ctx context.Context, key string) (remote.Info, error) {
	if err := checkCall(ctx, key); err != nil {
		return remote.Info{}, s.failed("stat", key, err)
	}
	fi, err := s.root.Stat(key)
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return remote.Info{}, s.failed("stat", key, lookupError(err))
	}
	return remote.Info{Key: key, Size: fi.Size(), Modified: fi.ModTime()}, nil
}

// Delete implements remote.Store. It also removes the folders above the
// object that it leaves empty, and syncs the folder that remains.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := checkCall(ctx, key); err != nil {
		return s.failed("delete", key, err)
	}
	fi, err := s.root.Lstat(key)
	if err == nil && fi.IsDir() {
		return nil // a folder of other objects, and so no object itself
	}
	if err == nil {
		err = s.remove(key)
	}
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return s.failed("delete", key, err)
	}
	folder := path.Dir(key)
	for folder != "." && s.root.Remove(folder) == nil { // fails as soon as one is not empty
		folder = path.Dir(folder)
	}
	if err := s.syncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.failed("delete", key, err)
	}
	return nil
}

// remove unlinks an object, through no symbolic link: a listing goes through
// none, so whoever may write to one writer's folder could otherwise swap a part
// of it for a link while somebody prunes, and have another's objects deleted.
func (s *Store) remove(key string) error {
	top, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	folder, err := unix.Openat2(int(top.Fd()), path.Dir(key), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // an old system, or a sandbox that forbids it
		return s.root.Remove(key)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("a folder that leads there is a symbolic link, through which nothing is deleted: %w", err)
	case err != nil:
		return err
	}
	defer unix.Close(folder)
	return unix.Unlinkat(folder, path.Base(key), 0)
}

func (s *Store) syncFolder(folder string) error {
	f, err := s.root.Open(folder)
	if err != nil {
		return err
	}
	return syncAndClose(f)
}

func syncAndClose(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system without fsync of folders
	}
	return errors.Join(err, f.Close())
}

// checkCall refuses keys that are no plain relative path or that name a
// temporary file. os.Root refuses the same escapes once more.
func checkCall(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if key == "." || !fs.ValidPath(key) || strings.ContainsRune(key, 0) {
		return errors.New("a key is a path of names with one \"/\" between two of them, none of them \".\" or \"..\"")
	}
	for name := range strings.SplitSeq(key, "/") {
		if strings.HasPrefix(name, tempPrefix) {
			return fmt.Errorf("names that begin with %q are reserved", tempPrefix)
		}
	}
	return nil
}
