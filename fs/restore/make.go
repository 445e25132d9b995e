package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/fs/restore/spool"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
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

func (r *run) folder(ctx context.Context, e *entry, n *view.Node) error {
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

// makeOthers makes all that has no data, and mends metadata.
func (r *run) makeOthers(ctx context.Context) error {
	return inBatches(ctx, r.others, func(ctx context.Context, e *entry) error {
		if err := r.other(ctx, e); err != nil {
			if fatal(err) || ctx.Err() != nil {
				return r.at(e.dir, e.slot, err)
			}
			r.fail(KindTarget, e.dir, e.slot, err)
		}
		return nil
	}, r.restoring)
}

// inBatches calls do for every entry, several at a time, and then after each
// few hundred.
func inBatches(ctx context.Context, s *spool.Records[entry], do func(context.Context, *entry) error, then func()) error {
	const batch = 256
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	send := func(entries []entry) {
		g.Go(func() error {
			for i := range entries {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := do(ctx, &entries[i]); err != nil {
					return err
				}
			}
			then()
			return nil
		})
	}
	var entries []entry
	for e, err := range s.All() {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if entries = append(entries, *e); len(entries) == batch {
			send(entries)
			entries = nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	send(entries)
	return g.Wait()
}

func (r *run) other(ctx context.Context, e *entry) error {
	n, err := r.node(ctx, e.dir, e.slot)
	if err != nil {
		return err
	}
	d, err := r.target.Get(ctx, e.dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	switch {
	case e.flags&fix != 0:
		return r.told(n, d.Mend(ctx, n))
	case n.Type == metastore.Regular:
		return r.made(n, d.WriteFile(ctx, n, nil, 0))
	}
	return r.made(n, d.Make(ctx, n))
}

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
