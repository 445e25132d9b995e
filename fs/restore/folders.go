package restore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// folders makes the directories, and those that are there ready to be written
// into.
func (r *run) folders(ctx context.Context) error {
	for e, err := range stepwise(ctx, r.dirs.all(), r.restoring) {
		if err != nil {
			return err
		}
		node, err := r.Tree.Node(ctx, e.slot)
		if err != nil {
			return err
		}
		if err := r.folder(ctx, e, &node); err != nil {
			if fatal(err) {
				return r.at(e.dir, e.slot, err)
			}
			r.fail(KindTarget, e.dir, e.slot, err) // what is below it fails as well
		}
	}
	return nil
}

func (r *run) folder(ctx context.Context, e *entry, n *view.Node) error {
	base := e.slot == r.place.base.Ino
	if e.flags&exists == 0 && !base {
		up, err := r.target.get(ctx, e.dir)
		if err != nil {
			return err
		}
		err = r.makeFolder(up, e, n.Name)
		r.target.put(up)
		if err != nil {
			return err
		}
	}
	if e.flags&exists == 0 {
		r.done.directories.Add(1)
	}
	if e.flags&passage == 0 && (r.me.root || e.flags&(exists|describe) != exists|describe) {
		return nil
	}
	d, err := r.target.get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&passage == 0 {
		return r.mayWrite(d)
	}
	// If this run is interrupted, the next one finds it there and leaves it as
	// it is; so it gets its metadata now, but for the right to write into it.
	d.plain = false
	open := *n
	open.Mode |= 0o700
	r.undescribed(e.dir, e.slot, r.apply(ctx, subject{fd: d.fd, again: true}, &open))
	return nil
}

// makeFolder makes a directory for nobody else to look into as yet.
func (r *run) makeFolder(up *handle, e *entry, name string) error {
	if e.flags&replace != 0 {
		if err := unix.Unlinkat(up.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove what is in its place: %w", err)
		}
	}
	err := unix.Mkdirat(up.fd, name, 0o700)
	if err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if up.plain {
		r.fresh.add(e.slot)
		return nil
	}
	// It may have inherited a setgid bit, a group and an ACL for all that is
	// made in it.
	fd, err := openDir(up.fd, name)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer unix.Close(fd)
	s := subject{fd: fd}
	err = errors.Join(append(s.strip(nil, false), unix.Fchownat(fd, "", -1, int(r.me.gid), unix.AT_EMPTY_PATH), s.chmod(0o700))...)
	if err != nil {
		return fmt.Errorf("make the folder private: %w", err)
	}
	r.fresh.add(e.slot)
	return nil
}

// mayWrite makes sure that an ordinary user can write into a directory of their
// own, which gets its mode back in the end.
func (r *run) mayWrite(d *handle) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("examine the folder: %w", err)
	}
	if st.Uid != r.me.uid || st.Mode&0o700 == 0o700 {
		return nil
	}
	return subject{fd: d.fd}.chmod(st.Mode&0o7777 | 0o700)
}

// finish gives the directories their metadata, what lies deeper first: whoever
// makes something in one changes its time.
func (r *run) finish(ctx context.Context) error {
	for e, err := range stepwise(ctx, r.dirs.backwards(), r.restoring) {
		if err != nil {
			return err
		}
		if e.flags&describe == 0 || r.failed.has(e.slot) {
			continue
		}
		if err := r.describe(ctx, e); err != nil {
			r.problem(KindMetadata, r.pathOf(e.dir, e.slot), err)
		}
	}
	r.restoring()
	return nil
}

func (r *run) describe(ctx context.Context, e *entry) error {
	n, err := r.Tree.Node(ctx, e.slot)
	if err != nil {
		return err
	}
	d, err := r.target.get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&exists != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(d.fd, &st); err != nil {
			return fmt.Errorf("examine the folder: %w", err)
		}
		self := n
		self.Name = "."
		if same, err := r.described(ctx, d.fd, &self, &st); err == nil && same {
			return nil
		}
	}
	// One that is there already may have anything, a new one has no attributes.
	s := subject{fd: d.fd, made: d.plain && e.flags&(exists|passage) == 0, mode: r.me.masked(0o700)}
	failed := r.apply(ctx, s, &n)
	if e.slot == r.place.base.Ino {
		return errors.Join(failed, touch(d.fd, ".", &n))
	}
	up, err := r.target.get(ctx, e.dir)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer r.target.put(up)
	return errors.Join(failed, touch(up.fd, n.Name, &n))
}
