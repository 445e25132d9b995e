package restore

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// handlesKept bounds how many directories of the target are held open that
// nobody uses at the moment.
const handlesKept = 256

// handles opens directories of the target by the inode numbers of their
// originals, each from its parent's handle, and never through a symbolic link.
type handles struct {
	tree *fs.Tree
	base uint64 // the one that the target folder stands for
	root int    // the target folder; -1: it is not there
	gid  uint32 // of what is made
	made bits   // by this run

	mu   sync.Mutex
	open map[uint64]*handle
	idle list.List // the back was idle longest
}

// handle is an open directory of the target.
type handle struct {
	ino uint64
	fd  int
	// plain: what is made in it gets the owner and the mode that it is made
	// with. In a directory that was there already, a default ACL, a setgid bit
	// or the way it is mounted may have it otherwise.
	plain bool
	dev   uint64

	users int
	idle  *list.Element
}

func newHandles(t *fs.Tree, base uint64, root int, gid uint32, made bits) *handles {
	return &handles{tree: t, base: base, root: root, gid: gid, made: made, open: make(map[uint64]*handle)}
}

// get opens a directory, which put gives back.
func (h *handles) get(ctx context.Context, ino uint64) (*handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.locked(ctx, ino)
}

func (h *handles) locked(ctx context.Context, ino uint64) (*handle, error) {
	if d := h.open[ino]; d != nil {
		h.use(d)
		return d, nil
	}
	// From here up to a directory that is open, and down again: a chain may be
	// longer than there are descriptors.
	var chain []view.Node
	var d *handle
	for at := ino; d == nil; {
		if d = h.open[at]; d != nil {
			h.use(d)
			break
		}
		if at == h.base {
			var err error
			if d, err = h.openBase(); err != nil {
				return nil, err
			}
			break
		}
		n, err := h.tree.Node(ctx, at)
		if err != nil {
			return nil, err
		}
		if n.Parent == 0 || len(chain) >= maxDepth {
			return nil, fmt.Errorf("directory %d is not below %d: %w", ino, h.base, view.ErrBad)
		}
		chain = append(chain, n)
		at = n.Parent
	}
	for i := len(chain) - 1; i >= 0; i-- {
		fd, err := openDir(d.fd, chain[i].Name)
		h.release(d)
		if err != nil {
			return nil, fmt.Errorf("open folder %q of the target: %w", chain[i].Name, err)
		}
		if d, err = h.enter(chain[i].Ino, fd); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (h *handles) openBase() (*handle, error) {
	if h.root < 0 {
		return nil, unix.ENOENT
	}
	fd, err := unix.FcntlInt(uintptr(h.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the target folder: %w", err)
	}
	return h.enter(h.base, fd)
}

// enter takes an open directory over.
func (h *handles) enter(ino uint64, fd int) (*handle, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("examine a folder of the target: %w", err), unix.Close(fd))
	}
	d := &handle{ino: ino, fd: fd, users: 1, dev: st.Dev}
	d.plain = h.made.has(ino) && st.Gid == h.gid && st.Mode&unix.S_ISGID == 0
	h.open[ino] = d
	return d, nil
}

func (h *handles) use(d *handle) {
	d.users++
	if d.idle != nil {
		h.idle.Remove(d.idle)
		d.idle = nil
	}
}

func (h *handles) put(d *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(d)
}

func (h *handles) release(d *handle) {
	if d.users--; d.users > 0 {
		return
	}
	d.idle = h.idle.PushFront(d)
	for h.idle.Len() > handlesKept {
		last := h.idle.Remove(h.idle.Back()).(*handle)
		last.idle = nil
		delete(h.open, last.ino)
		_ = unix.Close(last.fd) // nothing was written to it
	}
}

func (h *handles) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.open {
		_ = unix.Close(d.fd) // nothing was written to them
	}
	clear(h.open)
	h.idle.Init()
	if h.root < 0 {
		return nil
	}
	return unix.Close(h.root)
}

// openDir opens a directory by name, and nothing else.
func openDir(dirfd int, name string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// retry repeats what a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}
