package disk

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Remover deletes entries below the target folder, by their paths. It goes down to
// each by names that must be folders, and stays in the one where the next is.
type Remover struct {
	root int
	at   string
	fd   int
}

// Remover begins deleting; Close ends it.
func (t *Target) Remover() *Remover { return &Remover{root: t.root, fd: -1} }

// Enter goes to a folder, "" for the target folder.
func (r *Remover) Enter(dir string) (err error) {
	if r.fd >= 0 && dir == r.at {
		return nil
	}
	r.Close()
	if r.fd, err = descend(r.root, dir); err != nil {
		r.fd = -1
		return err
	}
	r.at = dir
	return nil
}

// Remove deletes an entry of the folder, which may be gone already. A directory
// must be empty.
func (r *Remover) Remove(name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(r.fd, name, flags); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Close leaves the folder.
func (r *Remover) Close() {
	if r.fd >= 0 && r.fd != r.root {
		_ = unix.Close(r.fd)
	}
	r.fd = -1
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
