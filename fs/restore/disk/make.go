package disk

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Mkdir makes a directory for nobody else to look into as yet; ino is its
// original's. What is no directory is replaced, if that is asked for.
func (d *Folder) Mkdir(ino uint64, name string, replace bool) error {
	if replace {
		if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove what is in its place: %w", err)
		}
	}
	err := unix.Mkdirat(d.fd, name, 0o700)
	if err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if d.plain {
		d.t.made.Add(ino)
		return nil
	}
	// It may have inherited a setgid bit, a group and an ACL for all that is
	// made in it.
	fd, err := openDir(d.fd, name)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer unix.Close(fd)
	s := subject{fd: fd}
	err = errors.Join(append(s.strip(nil, false), unix.Fchownat(fd, "", -1, int(d.t.me.gid), unix.AT_EMPTY_PATH), s.chmod(0o700))...)
	if err != nil {
		return fmt.Errorf("make the folder private: %w", err)
	}
	d.t.made.Add(ino)
	return nil
}

// MayWrite makes sure that an ordinary user can write into a directory of their
// own, which gets its mode back in the end.
func (d *Folder) MayWrite() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("examine the folder: %w", err)
	}
	if st.Uid != d.t.me.uid || st.Mode&0o700 == 0o700 {
		return nil
	}
	return subject{fd: d.fd}.chmod(st.Mode&0o7777 | 0o700)
}

// Prepare gives a folder its metadata, but for the right to write into it, before
// anything is in it. If the run is interrupted, the next one finds it there and
// leaves it as it is.
func (d *Folder) Prepare(ctx context.Context, n *view.Node) error {
	d.plain = false
	open := *n
	open.Mode |= 0o700
	return d.t.apply(ctx, subject{fd: d.fd, again: true}, &open)
}

// Describe gives a folder its metadata but for its time. One that is there already
// may have anything, a fresh one has no attributes.
func (d *Folder) Describe(ctx context.Context, n *view.Node, fresh bool) error {
	return d.t.apply(ctx, subject{fd: d.fd, made: d.plain && fresh, mode: d.t.me.masked(0o700)}, n)
}

// Touch sets the modification time of the entry n, or of the folder itself if
// name is ".".
func (d *Folder) Touch(name string, n *view.Node) error { return touch(d.fd, name, n) }
