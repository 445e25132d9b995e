package dir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
			err = s.list(ctx, folder, prefix, yield)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(remote.Info{}, s.failed("list", prefix, err))
		}
	}
}

func (s *Store) list(ctx context.Context, folder, prefix string, yield func(remote.Info, error) bool) error {
	f, err := s.openBeneath(folder)
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	base := folder + "/"
	if folder == "." {
		base = ""
	}
	return walk(ctx, f, base, prefix, yield)
}

// walk yields the objects in and below the folder f, which it closes. base is
// what their keys begin with. A folder that vanished is empty: a Delete removed
// it.
func walk(ctx context.Context, f *os.File, base, prefix string, yield func(remote.Info, error) bool) error {
	defer func() { _ = f.Close() }() // nothing was written
	names, err := readDir(f)
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := base + name
		switch isFolder := strings.HasSuffix(name, "/"); {
		case strings.HasPrefix(name, tempPrefix), key == lostAndFound:
		case isFolder:
			if strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key) {
				if err := walkBelow(ctx, f, name, key, prefix, yield); err != nil {
					return err
				}
			}
		case strings.HasPrefix(key, prefix):
			switch info, ok, err := describe(f, name, key); {
			case err != nil:
				return err
			case ok && !yield(info, nil):
				return errStop
			}
		}
	}
	return nil
}

// walkBelow walks a folder in f. Like what is in it, it is opened by its name
// alone: nothing that is put in its place meanwhile leads anywhere else.
func walkBelow(ctx context.Context, f *os.File, name, base, prefix string, yield func(remote.Info, error) bool) error {
	below, err := openAt(f, strings.TrimSuffix(name, "/"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return walk(ctx, below, base, prefix, yield)
}

// describe says what is known of a file in f. It is not ok if there is none, or
// no object.
func describe(f *os.File, name, key string) (info remote.Info, ok bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		return info, false, nil
	case err != nil:
		return info, false, &fs.PathError{Op: "fstatat", Path: key, Err: err}
	}
	return remote.Info{Key: key, Size: st.Size, Modified: time.Unix(st.Mtim.Unix())}, st.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// lostAndFound is a folder that some file systems have in their root.
const lostAndFound = "lost+found/"

// readDir returns the names in a folder, those of folders with a "/" at the
// end, in the byte order of the keys that begin with them: the keys below
// folder "a" begin with "a/", which comes after "a-".
func readDir(f *os.File) ([]string, error) {
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
		if e.IsDir() {
			names[i] += "/"
		}
	}
	slices.Sort(names)
	return names, nil
}

var _ remote.FolderLister = (*Store)(nil)

// Folders implements remote.FolderLister. A folder that a killed Put left
// empty is named too.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.failed("list the folders in", prefix, err)
	}
	f, err := s.openBeneath(path.Clean(prefix))
	var entries []string
	if err == nil {
		entries, err = readDir(f)
		err = errors.Join(err, f.Close())
	}
	if err = lookupError(err); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, s.failed("list the folders in", prefix, err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e, "/"); ok && prefix+e != lostAndFound {
			names = append(names, name)
		}
	}
	return names, nil
}
