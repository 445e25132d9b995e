package dir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/remote"
)

// errStop ends a walk whose caller has seen enough.
var errStop = errors.New("stop")

// List implements remote.Store. It holds the names of one folder per level in
// memory. "lost+found", which some file systems put into their root, is left
// out.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		// The folder that holds everything with this prefix.
		folder := path.Clean(prefix[:strings.LastIndexByte(prefix, '/')+1])
		err := ctx.Err()
		if err == nil && fs.ValidPath(folder) {
			err = s.walk(ctx, folder, prefix, yield)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(remote.Info{}, s.failed("list", prefix, err))
		}
	}
}

// walk yields the objects in and below folder. A folder that vanished is
// empty: a Delete removed it.
func (s *Store) walk(ctx context.Context, folder, prefix string, yield func(remote.Info, error) bool) error {
	entries, err := s.readDir(folder)
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := path.Join(folder, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix), key == "lost+found":
		case e.IsDir():
			below := key + "/"
			if strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
				if err := s.walk(ctx, key, prefix, yield); err != nil {
					return err
				}
			}
		case strings.HasPrefix(key, prefix):
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted meanwhile
			} else if err != nil {
				return err
			}
			if !fi.Mode().IsRegular() {
				continue
			}
			if !yield(remote.Info{Key: key, Size: fi.Size(), Modified: fi.ModTime()}, nil) {
				return errStop
			}
		}
	}
	return nil
}

// readDir returns a folder's entries in the byte order of the keys that begin
// with them: the keys below folder "a" begin with "a/", which comes after
// "a-".
func (s *Store) readDir(folder string) ([]fs.DirEntry, error) {
	f, err := s.root.Open(folder)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	name := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(name(a), name(b)) })
	return entries, nil
}

var _ remote.FolderLister = (*Store)(nil)

// Folders implements remote.FolderLister. A folder that a killed Put left
// empty is named too.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.failed("list the folders in", prefix, err)
	}
	folder := path.Clean(prefix)
	entries, err := s.readDir(folder)
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, s.failed("list the folders in", prefix, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && path.Join(folder, e.Name()) != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
