package restore

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/fs/restore/spool"
	"git.eeqj.de/sneak/vaultik/metastore"
)

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
