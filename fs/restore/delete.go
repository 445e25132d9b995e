package restore

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// delete removes what the plan says, what lies deeper first. It goes down to
// each by names that must be folders, and stays in the one where the next is.
func (r *run) delete(ctx context.Context) error {
	if r.extra.Count() == 0 {
		return nil
	}
	at, fd := "", -1
	leave := func() {
		if fd >= 0 && fd != r.target.root {
			_ = unix.Close(fd)
		}
	}
	defer func() { leave() }()
	return r.extra.Each(func(p string, dir bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		up, name := path.Split(p)
		if fd < 0 || up != at {
			leave()
			var err error
			if fd, err = descend(r.target.root, up); err != nil {
				fd = -1
				r.problem(KindExtra, p, err)
				return nil
			}
			at = up
		}
		flags := 0
		if dir {
			flags = unix.AT_REMOVEDIR
		}
		switch err := unix.Unlinkat(fd, name, flags); {
		case fatal(err):
			return err
		case err != nil && !errors.Is(err, unix.ENOENT):
			r.problem(KindExtra, p, fmt.Errorf("delete: %w", err))
		case !litter(name):
			r.tally.deleted.Add(1)
		}
		return nil
	})
}

// descend opens a folder below another by a path, "" for the other itself.
func descend(root int, p string) (int, error) {
	fd := root
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if name == "" {
			continue
		}
		next, err := openDir(fd, name)
		if fd != root {
			_ = unix.Close(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("open folder %q of the target: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}
