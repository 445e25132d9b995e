package restore

import (
	"context"
	"errors"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// folders makes the directories, and those that are there ready to be written
// into.
func (r *run) folders(ctx context.Context) error {
	for e, err := range stepwise(ctx, r.dirs.All(), r.restoring) {
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

func (r *run) folder(ctx context.Context, e *entry, n *metastore.Node) error {
	base := e.slot == r.place.base.Ino
	if e.flags&exists == 0 && !base {
		up, err := r.target.Get(ctx, e.dir)
		if err != nil {
			return err
		}
		err = up.Mkdir(e.slot, n.Name, e.flags&replace != 0)
		r.target.Put(up)
		if err != nil {
			return err
		}
	}
	if e.flags&exists == 0 {
		r.done.directories.Add(1)
	}
	if e.flags&passage == 0 && (r.Root || e.flags&(exists|describe) != exists|describe) {
		return nil
	}
	d, err := r.target.Get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if e.flags&passage == 0 {
		return d.MayWrite()
	}
	r.undescribed(e.dir, e.slot, d.Prepare(ctx, n))
	return nil
}

// finish gives the directories their metadata, what lies deeper first: whoever
// makes something in one changes its time.
func (r *run) finish(ctx context.Context) error {
	for e, err := range stepwise(ctx, r.dirs.Backwards(), r.restoring) {
		if err != nil {
			return err
		}
		if e.flags&describe == 0 || r.failed.Has(e.slot) {
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
	d, err := r.target.Get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if e.flags&exists != 0 {
		if same, err := d.DescribedItself(ctx, &n); err != nil || same {
			return err
		}
	}
	failed := d.Describe(ctx, &n, e.flags&(exists|passage) == 0)
	if e.slot == r.place.base.Ino {
		return errors.Join(failed, d.Touch(".", &n))
	}
	up, err := r.target.Get(ctx, e.dir)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer r.target.Put(up)
	return errors.Join(failed, up.Touch(n.Name, &n))
}
