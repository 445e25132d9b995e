package audit

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

var (
	errMissing = errors.New("it is not in the store")
	errSum     = errors.New("wrong checksum")
	errSize    = errors.New("wrong size")
)

// listing is what a listing says of a writer's objects.
type listing struct {
	sizes    map[place]int64          // of blobs, dumps and lists
	modified map[remote.Seq]time.Time // of the manifests, by the store's clock
	strays   []string                 // keys
}

func newListing() *listing {
	return &listing{sizes: make(map[place]int64), modified: make(map[remote.Seq]time.Time)}
}

// note takes an object that is listed.
func (l *listing) note(info remote.Info) {
	k, err := remote.ParseKey(info.Key)
	switch {
	case err != nil:
		l.strays = append(l.strays, info.Key)
	case k.Kind == remote.KindManifest && !k.Signature:
		l.modified[k.Seq] = info.Modified
	case k.Kind == remote.KindBlob, k.Kind == remote.KindDump, k.Kind == remote.KindList:
		l.sizes[place{k.Kind, remote.Name{Seq: k.Seq, SHA256: k.Hash}}] = info.Size
	}
}

// countOthers counts what is listed and not named.
func (a *auditor) countOthers(l *listing, n *needs) {
	for _, key := range l.strays {
		a.Report(Finding{Kind: Stray, Writer: n.writer, Key: key, Err: errors.New("it is none of vaultik's, and stays alone")})
	}
	newest := remote.Seq(0)
	if m := n.newest(); m != nil {
		newest = m.Seq
	}
	// Without all manifests, or with a look at some, nobody knows what is named.
	whole := n.pins && n.state.Stopped() == nil && len(n.flaws) == 0
	for p, size := range l.sizes {
		switch _, named := n.sizes[p]; {
		case named:
		case p.name.Seq > newest:
			a.result.Pending.add(size)
		case whole && !n.kept[p]:
			a.result.Unreferenced.add(size)
		}
	}
}

// ask compares what is named with the listing, and with what the store says of
// each object. Of what the listing lacks, it is asked in any case: a listing
// may lie, or lag behind. It returns what is wrong, that with lists included,
// and the objects worth reading.
func (a *auditor) ask(ctx context.Context, n *needs, l *listing) (found []Finding, there []object, err error) {
	found = n.flaws
	flawed := make(map[place]bool)
	for _, f := range found {
		flawed[f.place] = true
	}
	var doubtful, rest []object
	var done, total Tally
	for p, size := range n.sizes {
		o := object{p, size, n.writer}
		total.add(size)
		a.result.Named.add(size)
		listed, ok := l.sizes[p]
		switch {
		case flawed[p]: // known already
		case !ok:
			doubtful = append(doubtful, o)
		case listed != size:
			found = append(found, about(WrongSize, n.writer, p, "%w: it has %d bytes instead of %d", errSize, listed, size))
			there = append(there, o)
		default:
			rest = append(rest, o)
		}
	}
	there = append(there, rest...)
	if !a.Sums {
		rest = nil
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(asks)
	for i, o := range append(doubtful, rest...) {
		g.Go(func() error {
			listed := i >= len(doubtful)
			info, err := a.Store.Stat(ctx, o.key(o.writer))
			if err == nil && !listed {
				listed, err = a.listsNow(ctx, o)
			}
			if ctx.Err() != nil || errors.Is(err, remote.ErrNoStore) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done.add(o.size)
			a.Progress(Progress{Writer: n.writer, Done: done, Total: total})
			if f := a.judge(answer{o, info, err, listed}); f != nil {
				found = append(found, *f)
			}
			return nil
		})
	}
	err = g.Wait()
	gone := make(map[place]bool)
	for _, f := range found {
		gone[f.place] = f.Kind == Missing
	}
	return found, slices.DeleteFunc(there, func(o object) bool { return gone[o.place] }), err
}

// listsNow looks again whether an object is listed that is there: it may have
// come after the listing.
func (a *auditor) listsNow(ctx context.Context, o object) (bool, error) {
	key := o.key(o.writer)
	for info, err := range a.Store.List(ctx, key) {
		if err != nil {
			return false, err
		}
		if info.Key == key {
			return true, nil
		}
	}
	return false, nil
}

// answer is what the store says of an object.
type answer struct {
	object
	info   remote.Info
	err    error
	listed bool // the listing has it, in the right size
}

func (a *auditor) judge(r answer) *Finding {
	finding := func(kind Kind, format string, args ...any) *Finding {
		f := about(kind, r.writer, r.place, format, args...)
		return &f
	}
	switch {
	case errors.Is(r.err, fs.ErrNotExist) && r.listed:
		return finding(Missing, "%w, though it is listed", errMissing)
	case errors.Is(r.err, fs.ErrNotExist), errors.Is(r.err, remote.ErrDenied) && !r.listed:
		return finding(Missing, "%w", errMissing)
	case r.err != nil:
		return finding(Unreadable, "the store does not say what it has: %w", r.err)
	case r.info.Size != r.size && !r.listed:
		return finding(WrongSize, "%w: it has %d bytes instead of %d, and is not listed", errSize, r.info.Size, r.size)
	case r.info.Size != r.size:
		return finding(WrongSize, "%w: it has %d bytes, though the listing says %d as it should be", errSize, r.info.Size, r.size)
	case r.info.SHA256.IsZero() && a.Sums:
		a.result.NoSums++
	case !r.info.SHA256.IsZero() && r.info.SHA256 != r.name.SHA256:
		return finding(WrongSum, "%w: the store recorded %s at its upload", errSum, r.info.SHA256)
	case !r.info.SHA256.IsZero():
		a.result.Sums++
	}
	if !r.listed {
		return finding(Unlisted, "it is there, but the listing hides it; backups take it for lost, and upload its content again")
	}
	return nil
}
