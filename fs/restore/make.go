package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// makeOthers makes all that has no data, and mends metadata.
func (r *run) makeOthers(ctx context.Context) error {
	return inBatches(ctx, &r.others, func(ctx context.Context, e *entry) error {
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
func inBatches(ctx context.Context, s *spool[entry], do func(context.Context, *entry) error, then func()) error {
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
	for e, err := range s.all() {
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
	d, err := r.target.get(ctx, e.dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&fix != 0 {
		return r.mend(ctx, d, n)
	}
	if n.Type == metastore.Regular {
		return r.writeWhole(ctx, d, n, nil, 0)
	}
	temp := r.temporary(n.Cookie)
	if n.Type == metastore.Symlink {
		err = unix.Symlinkat(n.Target, d.fd, temp)
	} else {
		err = unix.Mknodat(d.fd, temp, n.Type.Format()|0o600, int(unix.Mkdev(n.RdevMajor, n.RdevMinor)))
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	if n.Type == metastore.Symlink && d.plain && r.owned(n) && !n.HasXattrs {
		err := errors.Join(touch(d.fd, temp, n), r.name(d, temp, n.Name))
		if err != nil {
			_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
			return err
		}
		r.done.symlinks.Add(1)
		return nil
	}
	fd, err := pathHandle(d.fd, temp, n.Type)
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return fmt.Errorf("open it: %w", err)
	}
	return r.complete(ctx, d, subject{fd: fd, path: true, made: d.plain, mode: r.me.masked(0o600)}, temp, n, nil)
}

// mend sets the metadata of something that is otherwise as it should be.
func (r *run) mend(ctx context.Context, d *handle, n *view.Node) error {
	fd, err := pathHandle(d.fd, n.Name, n.Type)
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	defer unix.Close(fd)
	r.undescribed(n.Parent, n.Cookie, errors.Join(r.apply(ctx, subject{fd: fd, path: true}, n), touch(d.fd, n.Name, n)))
	return nil
}
