package prune

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// deletes is how many objects are deleted at once. It hides the store's
// latency.
const deletes = 16

// Key is where o lies, below the prefix of its writer.
func (o Object) Key(writer string) string {
	return remote.Key{Writer: writer, Kind: o.Kind, Seq: o.Seq, Hash: o.SHA256}.String()
}

// Delete deletes the plan's garbage from the store that it was made of, and
// calls told, unless it is nil, for every object with the error that deleting
// it met, one call at a time. What cannot be deleted is left and the rest goes
// on, until ctx ends or the store is gone. It returns what was deleted, also
// with an error; a store that was left in between is as valid as one before or
// after. Where the store keeps versions, these are deleted. Those that are
// locked stay: an object of which any does is Freed.Locked, and told with
// remote.ErrLocked; a later prune finds it again.
func (p *Plan) Delete(ctx context.Context, s remote.Store, told func(Object, error)) (Freed, error) {
	d := &deletion{plan: p, told: told}
	if p.Stopped != nil {
		return d.freed, fmt.Errorf("nothing of writer %q may be deleted: %w", p.Writer, p.Stopped)
	}
	var err error
	if d.eraser, err = remote.NewEraser(ctx, s); err != nil {
		return d.freed, err
	}
	manifests := 0
	for manifests < len(p.Garbage) && p.Garbage[manifests].Kind == remote.KindManifest {
		manifests++
	}
	err = d.all(ctx, p.Garbage[:manifests])
	if err == nil {
		err = d.all(ctx, p.Garbage[manifests:])
	}
	switch {
	case err != nil:
	case d.failed == 1:
		err = fmt.Errorf("an object of writer %q could not be deleted: %w", p.Writer, d.first)
	case d.failed > 0:
		err = fmt.Errorf("%d objects of writer %q could not be deleted, the first: %w", d.failed, p.Writer, d.first)
	}
	return d.freed, err
}

type deletion struct {
	plan   *Plan
	eraser *remote.Eraser
	told   func(Object, error)

	mu     sync.Mutex
	freed  Freed
	failed int
	first  error
}

// all deletes objects. The error is one that the rest would meet as well.
func (d *deletion) all(ctx context.Context, objects []Object) error {
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(deletes)
	for _, o := range objects {
		if group.Err() != nil {
			break
		}
		g.Go(func() error {
			if group.Err() != nil {
				return group.Err() // while it waited for its turn
			}
			key := o.Key(d.plan.Writer)
			// The one place where anything is deleted.
			erased, err := d.eraser.Erase(group, remote.Info{Key: key, Size: o.Bytes})
			if err == nil && erased.Locked > 0 {
				d.locked(erased)
				err = remote.ErrLocked
			}
			if err != nil {
				err = fmt.Errorf("delete %q: %w", key, err)
			}
			o.Bytes = erased.Freed // of all versions
			return d.done(group, o, err)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (d *deletion) done(ctx context.Context, o Object, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.freed.add(o)
	case errors.Is(err, remote.ErrLocked):
	case ctx.Err() != nil:
		return ctx.Err() // it says nothing about the object
	case errors.Is(err, remote.ErrNoStore):
		return err
	default:
		d.failed++
		if d.first == nil {
			d.first = err
		}
	}
	if d.told != nil {
		d.told(o, err)
	}
	return nil
}

func (d *deletion) locked(e remote.Erased) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freed.Locked.add(e.Locked)
	if e.Until.After(d.freed.Last.Until) {
		d.freed.Last = e
	}
}
