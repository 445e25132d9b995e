package restore

import (
	"context"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// write puts a chunk where it is used.
func (r *run) write(ctx context.Context, u *use, data []byte) error {
	if r.failed.Has(u.slot) {
		return nil
	}
	d, err := r.target.Get(ctx, u.dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if u.only {
		n, err := r.node(ctx, u.dir, u.slot)
		if err != nil {
			return err
		}
		if err := r.made(n, d.WriteFile(ctx, n, data, u.offset)); err != nil {
			return err
		}
	} else if err := d.WritePart(u.slot, data, u.offset); err != nil {
		return err
	}
	r.done.bytes.Add(int64(len(data)))
	return nil
}

// finishFile completes a file that has more than one piece, all of which were
// written, or tried to.
func (r *run) finishFile(ctx context.Context, dir, slot uint64) error {
	d, err := r.target.Get(ctx, dir)
	if err != nil {
		return err
	}
	defer r.target.Put(d)
	if r.failed.Has(slot) {
		d.Discard(slot) // the next run tries again
		return nil
	}
	n, err := r.node(ctx, dir, slot)
	if err != nil {
		return err
	}
	return r.made(n, d.Complete(ctx, n))
}

// made counts an entry that is complete.
func (r *run) made(n *metastore.Node, err error) error {
	if err := r.told(n, err); err != nil {
		return err
	}
	r.done.of(n.Type).Add(1)
	return nil
}

// sweep removes the temporary files of a run that ends early.
func (r *run) sweep() {
	ctx := context.Background() // local calls only
	for u, err := range r.uses.All() {
		if err != nil {
			return
		}
		if !u.last || u.only {
			continue
		}
		if d, err := r.target.Get(ctx, u.dir); err == nil {
			d.Discard(u.slot) // most are not there; the next run removes the rest
			r.target.Put(d)
		}
	}
}
