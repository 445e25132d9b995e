// Package renew keeps what is still needed locked.
//
// An object is locked when it is uploaded, but needed for longer: the blobs of
// a first backup are part of every later one. A writer cannot lock them anew,
// for it does not touch them again, and should not have to be allowed to. So
// once in a while somebody who may goes through the store with the root key,
// which says whose manifests count, and lengthens the locks of all that these
// name. Nothing is lengthened that no snapshot needs, so that prune can delete
// it some day.
package renew

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Options say how to renew.
type Options struct {
	Store remote.Store // one that is a remote.Versioned, see remote.AsVersioned
	Lock  remote.Lock  // what every object is to have
	// Now is this machine's clock.
	Now func() time.Time
	// DryRun changes nothing, and reports what would be changed.
	DryRun bool
	// Progress, unless nil, is called now and then with how many versions were
	// looked at, from any goroutine but one at a time.
	Progress func(looked int64)
}

// Report is what was found of one writer, in object versions unless it says
// otherwise.
type Report struct {
	Writer  string
	Needed  int64 // that retained manifests need
	Bytes   int64 // of them
	Renewed int64 // whose lock was lengthened, or would be in a dry run
	Missing int64 // objects that are needed, but that the store does not have in their size
	// Soonest is when the first lock ends of what is needed: after renewing,
	// but before it in a dry run. Zero if nothing is needed or something
	// needed is not locked at all.
	Soonest time.Time
	Flaws   []error // why the needed may be more than was found
}

// requests is how many objects are asked for at once: it hides the latency of
// the store.
const requests = 32

// due reports whether a lock is to be lengthened: when a quarter of the time is
// gone, so that an object costs no request for its lock at every run.
func due(r remote.Retention, l remote.Lock, now time.Time) bool {
	return r.Mode == "" || r.Until.Before(now.Add(l.For-l.For/4))
}

// Run lengthens the locks of everything that the retained manifests in state
// need. It is safe to be interrupted and to be repeated. A lock that holds
// keeps its mode. An error is about the store; ErrDenied if the credentials do
// not allow it.
func Run(ctx context.Context, o Options, state *remote.WriterState) (Report, error) {
	store, ok := remote.AsVersioned(o.Store)
	if !ok {
		return Report{}, fmt.Errorf("%w: it keeps no versions", remote.ErrNoLock)
	}
	n, err := collect(ctx, store, state)
	if err != nil {
		return Report{}, err
	}
	r := &renewal{o: o, store: store, report: Report{Writer: state.Writer, Flaws: n.flaws}}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(requests)
	err = r.walk(gctx, n, g)
	if waited := g.Wait(); waited != nil {
		err = waited // the walk only ended with it
	}
	if r.bare {
		r.report.Soonest = time.Time{}
	}
	return r.report, err
}

type renewal struct {
	o     Options
	store remote.Versioned

	mu     sync.Mutex
	report Report
	bare   bool // something is not locked
	looked int64
}

// walk goes through all that the store has of the writer.
func (r *renewal) walk(ctx context.Context, n *named, g *errgroup.Group) error {
	missing := int64(len(n.sizes))
	last := ""
	for v, err := range r.store.Versions(ctx, remote.WriterPrefix(n.writer)) {
		if err != nil {
			return err
		}
		r.look()
		size, needed := n.size(v.Key)
		// A version below a delete marker, or below garbage, may be all there is.
		if !needed || v.Marker || size != anySize && size != v.Size {
			continue
		}
		if size != anySize && v.Key != last {
			missing--
			last = v.Key
		}
		g.Go(func() error { return r.one(ctx, v) })
	}
	r.report.Missing = missing
	return nil
}

func (r *renewal) look() {
	const every = 1000
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looked++; r.o.Progress != nil && r.looked%every == 0 {
		r.o.Progress(r.looked)
	}
}

// one renews the lock of a version.
func (r *renewal) one(ctx context.Context, v remote.Version) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lock, err := r.store.Retention(ctx, v.Key, v.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // pruned meanwhile: it was needed by a snapshot that was just forgotten
	}
	if err != nil {
		return err
	}
	now := r.o.Now()
	renew := due(lock, r.o.Lock, now)
	if renew && !r.o.DryRun {
		longer := r.o.Lock.Retention(now)
		if lock.Mode != "" && lock.Until.After(now) {
			longer.Mode = lock.Mode
		}
		if err := r.store.Retain(ctx, v.Key, v.ID, longer); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		lock = longer
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Needed++
	r.report.Bytes += v.Size
	if renew {
		r.report.Renewed++
	}
	if lock.Mode == "" || !lock.Until.After(now) {
		r.bare = true
	} else if r.report.Soonest.IsZero() || lock.Until.Before(r.report.Soonest) {
		r.report.Soonest = lock.Until
	}
	return nil
}
