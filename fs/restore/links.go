package restore

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// links makes the further names of inodes.
func (r *run) links(ctx context.Context) error {
	var first name
	for l, err := range stepwise(ctx, r.names.All(), r.restoring) {
		if err != nil {
			return err
		}
		if l.first {
			first = *l
			continue
		}
		if first.ino != l.ino {
			continue // its plan failed
		}
		if err := r.link(ctx, &first, l); err != nil {
			if fatal(err) {
				return r.at(l.dir, l.slot, err)
			}
			r.fail(KindTarget, l.dir, l.slot, err)
		}
	}
	return nil
}

func (r *run) link(ctx context.Context, first, l *name) error {
	if r.failed.has(first.slot) {
		return fmt.Errorf("it is another name of %q, which could not be restored", r.pathOf(first.dir, first.slot))
	}
	is, err := r.node(ctx, first.dir, first.slot)
	if err != nil {
		return err
	}
	n, err := r.node(ctx, l.dir, l.slot)
	if err != nil {
		return err
	}
	from, err := r.target.get(ctx, first.dir)
	if err != nil {
		return err
	}
	defer r.target.put(from)
	d, err := r.target.get(ctx, l.dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	var a, b unix.Stat_t
	if err := unix.Fstatat(from.fd, is.Name, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("it is another name of %q: %w", r.pathOf(first.dir, first.slot), err)
	}
	if err := unix.Fstatat(d.fd, n.Name, &b, unix.AT_SYMLINK_NOFOLLOW); err == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil
	}
	temp := r.temporary(n.Cookie)
	if err := unix.Linkat(from.fd, is.Name, d.fd, temp, 0); err != nil {
		return fmt.Errorf("link it to %q: %w", r.pathOf(first.dir, first.slot), err)
	}
	if err := r.name(d, temp, n.Name); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return err
	}
	r.done.links.Add(1)
	return nil
}
