package disk

import (
	"container/list"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// foldersKept bounds how many directories of the target are held open that
// nobody uses at the moment.
const foldersKept = 256

// Folder is an open directory of the target.
type Folder struct {
	Dev uint64 // as stat(2) has it

	t   *Target
	ino uint64
	fd  int
	// plain: what is made in it gets the owner and the mode that it is made
	// with. In a directory that was there already, a default ACL, a setgid bit
	// or the way it is mounted may have it otherwise.
	plain bool

	users int
	idle  *list.Element
}

// Get opens a directory by the inode number of its original, each from its
// parent's handle, and never through a symbolic link. Put gives it back.
func (t *Target) Get(ctx context.Context, ino uint64) (*Folder, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.locked(ctx, ino)
}

func (t *Target) locked(ctx context.Context, ino uint64) (*Folder, error) {
	if d := t.open[ino]; d != nil {
		t.use(d)
		return d, nil
	}
	// From here up to a directory that is open, and down again: a chain may be
	// longer than there are descriptors.
	var chain []view.Node
	var d *Folder
	for at := ino; d == nil; {
		if d = t.open[at]; d != nil {
			t.use(d)
			break
		}
		if at == t.base {
			var err error
			if d, err = t.openBase(); err != nil {
				return nil, err
			}
			break
		}
		n, err := t.tree.Node(ctx, at)
		if err != nil {
			return nil, err
		}
		if n.Parent == 0 || len(chain) >= maxDepth {
			return nil, fmt.Errorf("directory %d is not below %d: %w", ino, t.base, view.ErrBad)
		}
		chain = append(chain, n)
		at = n.Parent
	}
	for i := len(chain) - 1; i >= 0; i-- {
		fd, err := openDir(d.fd, chain[i].Name)
		t.release(d)
		if err != nil {
			return nil, fmt.Errorf("open folder %q of the target: %w", chain[i].Name, err)
		}
		if d, err = t.enter(chain[i].Ino, fd); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (t *Target) openBase() (*Folder, error) {
	if t.root < 0 {
		return nil, unix.ENOENT
	}
	fd, err := unix.FcntlInt(uintptr(t.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the target folder: %w", err)
	}
	return t.enter(t.base, fd)
}

// maxDepth bounds the way up in a view that leads in a circle.
const maxDepth = 4096

// enter takes an open directory over.
func (t *Target) enter(ino uint64, fd int) (*Folder, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("examine a folder of the target: %w", err), unix.Close(fd))
	}
	d := &Folder{t: t, ino: ino, fd: fd, users: 1, Dev: st.Dev}
	d.plain = t.made.Has(ino) && st.Gid == t.me.gid && st.Mode&unix.S_ISGID == 0
	t.open[ino] = d
	return d, nil
}

func (t *Target) use(d *Folder) {
	d.users++
	if d.idle != nil {
		t.idle.Remove(d.idle)
		d.idle = nil
	}
}

// Put gives a directory back.
func (t *Target) Put(d *Folder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(d)
}

func (t *Target) release(d *Folder) {
	if d.users--; d.users > 0 {
		return
	}
	d.idle = t.idle.PushFront(d)
	for t.idle.Len() > foldersKept {
		last := t.idle.Remove(t.idle.Back()).(*Folder)
		last.idle = nil
		delete(t.open, last.ino)
		_ = unix.Close(last.fd) // nothing was written to it
	}
}

// Close lets go of the folder and of all below it.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.open {
		_ = unix.Close(d.fd) // nothing was written to them
	}
	clear(t.open)
	t.idle.Init()
	if t.root < 0 {
		return nil
	}
	return unix.Close(t.root)
}

// Open opens a directory in it, which the snapshot need not have, to be looked
// at only. Close closes it.
func (d *Folder) Open(name string) (*Folder, error) {
	fd, err := openDir(d.fd, name)
	if err != nil {
		return nil, err
	}
	return &Folder{t: d.t, fd: fd}, nil
}

// Close closes a directory that Open opened.
func (d *Folder) Close() { _ = unix.Close(d.fd) } // nothing was written to it

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
