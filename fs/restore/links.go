package restore

import (
	"context"
	"fmt"
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
	if r.failed.Has(first.slot) {
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
	from, err := r.target.Get(ctx, first.dir)
	if err != nil {
		return err
	}
	defer r.target.Put(from)
	d, err := r.target.Get(ctx, l.dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	made, err := d.Link(from, is.Name, n, func() string { return r.pathOf(first.dir, first.slot) })
	if err != nil || !made {
		return err
	}
	r.done.links.Add(1)
	return nil
}
