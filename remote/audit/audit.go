// Package audit looks whether a store still holds what its signed manifests
// promise, and whether they are as new as they should be. It needs no key that
// decrypts: a manifest names every object by the SHA-256 of its bytes.
//
// The levels differ in what they believe. The quick one believes the store's
// listing: signatures, the chain, presence and size. The next asks for each
// object and for the checksum that the store recorded; that proves what was
// uploaded, not what is on the store's disks today. Only reading the bytes
// proves those, so it can be done piece by piece, all of it in turn.
package audit

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Options say what to look at, and how closely. Store, Root, Writers and
// Report are needed.
type Options struct {
	Store   remote.Store // itself, without a cache in front of it
	StoreID string       // what Seen calls it
	Root    remote.PublicKey
	Seen    *remote.Seen // nil: no rollback is noticed
	Writers []string     // those to look at
	// Only limits the look at objects to some snapshots, by writer and seq; the
	// chain is checked as a whole. nil: all that are retained.
	Only map[string][]remote.Seq

	Sums bool  // ask for each object and its recorded checksum
	Read *Read // nil: no bytes of blobs and dumps are read
	// Memory says what was read before, of the objects that it calls Scope; nil:
	// nothing is remembered, and every rotation begins anew.
	Memory *Memory
	Scope  string

	// MaxAge returns how old a set's newest snapshot may be, 0 for as old as it
	// likes; "" for a writer that has none. nil: nothing is too old.
	MaxAge func(writer, set string) time.Duration

	Now      func() time.Time // nil: time.Now
	Report   func(Finding)    // called by one goroutine at a time
	Progress func(Progress)   // may be nil; called by one goroutine at a time
}

// Progress says how far an audit is.
type Progress struct {
	Writer      string // "" while bytes are read
	Done, Total Tally  // objects asked for, or read
}

// Tally counts objects.
type Tally struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (t *Tally) add(bytes int64) { t.Objects++; t.Bytes += bytes }

// Result is what was looked at. What was wrong went to Report.
type Result struct {
	Writers, Snapshots, Forgotten int
	Named                         Tally // by manifests: blobs, dumps and lists
	Unreferenced                  Tally // lie under committed runs, and no manifest names them: prune deletes them
	Pending                       Tally // lie under runs that have not committed, or never will
	Sums                          int64 // objects whose recorded checksum is right
	NoSums                        int64 // objects that the store has no checksum of
	Read                          Tally // what was read and hashed now
	// Coverage says what was read before; nil if no memory is kept.
	Coverage *Coverage
	// Unknown are writers that Seen did not know before: whether their newest
	// snapshots are hidden cannot be told.
	Unknown []string
}

// objects that are looked at side by side: small requests hide the store's
// latency, whole objects fill the line.
const (
	asks  = 16
	reads = 4
)

// clockSkew is how far clocks may be apart before somebody is told.
const clockSkew = 15 * time.Minute

type auditor struct {
	Options
	result  Result
	there   []object        // what may be read
	stopped map[string]bool // writers of which nothing may be deleted
}

// Run looks at the store. The error is about getting at it; whatever was
// found until then was reported.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	a := &auditor{Options: o, stopped: make(map[string]bool)}
	for _, writer := range o.Writers {
		if err := a.writer(ctx, writer); err != nil {
			return a.result, fmt.Errorf("writer %q: %w", writer, err)
		}
	}
	var err error
	if o.Read != nil {
		err = a.read(ctx)
	}
	if o.Memory != nil {
		a.result.Coverage = o.Memory.coverage(o.Scope, a.there)
	}
	return a.result, err
}

// writer looks at one writer, all but the bytes.
func (a *auditor) writer(ctx context.Context, writer string) error {
	if a.Only != nil && len(a.Only[writer]) == 0 {
		return nil
	}
	known := a.knows(writer)
	l := newListing()
	state, err := remote.Survey(ctx, a.Store, a.Root, writer, l.note)
	if err != nil {
		return a.outOfReach(ctx, writer, err)
	}
	a.result.Writers++
	if !known && len(state.Snapshots) > 0 {
		a.result.Unknown = append(a.result.Unknown, writer)
	}
	flaws := state.Flaws(a.Seen, a.StoreID, a.Now())
	a.stopped[writer] = state.StoppedBy(flaws) != nil
	for _, flaw := range flaws {
		a.Report(untrusted(writer, flaw))
	}
	if len(state.Signers.Certificates) == 0 {
		return nil
	}
	n, err := gather(ctx, a.Store, state, a.Only[writer])
	if err != nil {
		return a.outOfReach(ctx, writer, err)
	}
	a.result.Snapshots += len(n.chosen)
	a.result.Forgotten += len(state.Forgotten)
	a.countOthers(l, n)
	a.checkAge(state, l.modified)
	found, there, err := a.ask(ctx, n, l)
	if a.Read != nil || a.Memory != nil {
		a.there = append(a.there, there...)
	}
	return errors.Join(err, a.settle(ctx, writer, found))
}

func (a *auditor) knows(writer string) bool {
	if a.Seen == nil {
		return false
	}
	for _, name := range a.Seen.Writers(a.StoreID) {
		if name == writer {
			return true
		}
	}
	return false
}

// outOfReach makes a finding of what keeps one writer from being looked at,
// such as a policy, and an error of what keeps all of them.
func (a *auditor) outOfReach(ctx context.Context, writer string, err error) error {
	if ctx.Err() != nil || errors.Is(err, remote.ErrNoStore) {
		return err
	}
	a.Report(Finding{Kind: Unreadable, Writer: writer, Err: err})
	return nil
}

// settle reports what is wrong with a writer's objects, with who needs them and
// what to do. It looks at the manifests once more, for what is not needed any
// more may be gone: somebody may be purging and pruning meanwhile.
func (a *auditor) settle(ctx context.Context, writer string, found []Finding) error {
	if len(found) == 0 {
		return nil
	}
	state, err := remote.ReadWriter(ctx, a.Store, a.Root, writer)
	if err == nil {
		var n *needs
		if n, err = gather(ctx, a.Store, state, a.Only[writer]); err == nil {
			found = n.still(found)
			err = n.attribute(ctx, a.Store, found)
		}
		a.stopped[writer] = a.stopped[writer] || state.Stopped() != nil
	}
	for _, f := range found {
		if err == nil && f.Kind == Rotten && a.Read.Delete {
			f = a.remove(ctx, f)
		}
		f.Advice = f.advice()
		a.Report(f)
	}
	return err
}

// remove deletes a rotten object if the writer's next run then replaces it.
// Otherwise its undamaged parts are worth more than nothing. Where manifests are
// missing or not trusted, nobody can tell what that run counts on. Where the
// store has kept a version that is right, only what covers it goes.
func (a *auditor) remove(ctx context.Context, f Finding) Finding {
	whole, err := a.uncover(ctx, f)
	if err != nil {
		f.Err = fmt.Errorf("%w; an older version, if there is one, could not be put on top: %w", f.Err, err)
	}
	switch {
	case whole:
		f.uncovered = true
		f.Err = fmt.Errorf("%w; an older version was right, and is on top again", f.Err)
		return f
	case !f.replaced():
		return f
	case a.stopped[f.Writer]:
		f.Err = fmt.Errorf("%w; it was not deleted: first mend what is wrong with the writer's manifests", f.Err)
		return f
	}
	if err := a.Store.Delete(ctx, f.Key); err != nil {
		f.Err = fmt.Errorf("%w; deleting it failed: %w", f.Err, err)
		return f
	}
	f.Deleted = true
	return f
}

// uncover looks for a version of a rotten object that is right, and deletes those
// that cover it.
func (a *auditor) uncover(ctx context.Context, f Finding) (bool, error) {
	v, ok := remote.AsVersioned(a.Store)
	if !ok {
		return false, nil
	}
	if keeps, err := v.KeepsVersions(ctx); err != nil || !keeps {
		return false, nil // deleting does, where nobody may ask
	}
	var above []string
	for version, err := range v.Versions(ctx, f.Key) {
		if err != nil {
			return false, err
		}
		if version.Key != f.Key {
			continue
		}
		if !version.Marker && len(above) > 0 {
			r, err := v.GetVersion(ctx, f.Key, version.ID, 0, -1)
			if err == nil {
				var sum remote.Hash
				if sum, err = sumOf(r, func(int64) {}); err == nil && sum == f.place.name.SHA256 {
					err = dropVersions(ctx, v, f.Key, above)
					return err == nil, err
				}
			}
			if ctx.Err() != nil || errors.Is(err, remote.ErrNoStore) {
				return false, err
			}
		}
		above = append(above, version.ID)
	}
	return false, nil
}

func dropVersions(ctx context.Context, v remote.Versioned, key string, ids []string) error {
	for _, id := range ids {
		if err := v.DeleteVersion(ctx, key, id); err != nil {
			return err
		}
	}
	return nil
}

// says tells an error that is a finding about an object from one of getting at
// the store.
func says(err error) bool {
	return errors.Is(err, remote.ErrNotTrusted) || errors.Is(err, remote.ErrCorrupt) ||
		errors.Is(err, remote.ErrUnsupported) || errors.Is(err, iofs.ErrNotExist)
}
