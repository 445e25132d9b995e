package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Versioned is what a Store may offer that can keep what was deleted or
// written over, as a bucket with versioning does, and can refuse to delete it
// for a time, as one with object lock does. AsVersioned finds it.
//
// In a store that keeps versions, Delete hides an object and frees nothing:
// it puts a delete marker on top of the object's versions, and Get, Stat and
// List show what is on top.
type Versioned interface {
	Store

	// KeepsVersions reports whether this store keeps versions. If it does
	// not, the other methods need not work. An ErrDenied means that the
	// credentials do not allow to ask.
	KeepsVersions(ctx context.Context) (bool, error)

	// Versions yields every version of every object whose key begins with
	// prefix, and the delete markers, in ascending byte order of the keys and
	// from the newest to the oldest of each. An error ends the sequence.
	Versions(ctx context.Context, prefix string) iter.Seq2[Version, error]

	// GetVersion is Get for one version. A delete marker is fs.ErrNotExist.
	GetVersion(ctx context.Context, key, id string, off, n int64) (io.ReadCloser, error)

	// StatVersion is Stat for one version.
	StatVersion(ctx context.Context, key, id string) (Info, error)

	// DeleteVersion removes one version or delete marker for good; if it was
	// on top, what is below shows again. Removing an absent one is no error.
	// One that is locked is not removed: ErrLocked.
	DeleteVersion(ctx context.Context, key, id string) error

	// Retention returns how long a version is locked. The zero Retention is
	// one that is not.
	Retention(ctx context.Context, key, id string) (Retention, error)

	// Retain locks a version. It can lengthen a lock; whether it may shorten
	// one or change its mode is the store's decision, ErrLocked if it may
	// not.
	Retain(ctx context.Context, key, id string, r Retention) error
}

// Version is one of an object's versions, or the mark that it was deleted.
// SHA256 is not set, as in a listing.
type Version struct {
	Info          // Modified, by the store's clock, is when it was put on top
	ID     string // the store's name for it
	Marker bool   // a delete marker; its size is 0
	Latest bool   // it is on top: what Get shows, or hides if it is a marker
}

// LockMode says who may delete a locked version before its time.
type LockMode string

// The modes, as Amazon calls them.
const (
	// Governance: whoever has the permission s3:BypassGovernanceRetention.
	Governance LockMode = "GOVERNANCE"
	// Compliance: nobody, the account's owner included.
	Compliance LockMode = "COMPLIANCE"
)

// Retention is the lock of one version.
type Retention struct {
	Mode  LockMode  // "": it is not locked
	Until time.Time // by the store's clock, to the second
}

// ErrLocked: the store keeps this version until its retention ends.
var ErrLocked = errors.New("locked by the store")

// AsVersioned returns s as a Versioned if it is one, or if it is a wrapper
// with a method "Unwrap() Store" around one. Whether the store keeps versions
// is KeepsVersions' answer.
func AsVersioned(s Store) (Versioned, bool) { return offered[Versioned](s) }

// offered finds what a store, or the one in a wrapper, offers beyond Store.
func offered[T any](s Store) (T, bool) {
	for {
		if v, ok := s.(T); ok {
			return v, true
		}
		w, ok := s.(interface{ Unwrap() Store })
		if !ok {
			var none T
			return none, false
		}
		s = w.Unwrap()
	}
}

// Eraser deletes objects for good: with all of their versions where the store
// keeps versions. Use NewEraser. It is safe for concurrent use.
type Eraser struct {
	store Store
	all   Versioned // nil: the store keeps none
}

// NewEraser returns the Eraser of a store. If the credentials do not allow to
// ask whether the store keeps versions, the error is an ErrDenied.
func NewEraser(ctx context.Context, s Store) (*Eraser, error) {
	e := &Eraser{store: s}
	v, ok := AsVersioned(s)
	if !ok {
		return e, nil
	}
	keeps, err := v.KeepsVersions(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask whether the store keeps versions: %w", err)
	}
	if keeps {
		e.all = v
	}
	return e, nil
}

// KeepsVersions reports whether Erase has versions to delete.
func (e *Eraser) KeepsVersions() bool { return e.all != nil }

// Kept is an object with all its versions.
type Kept struct {
	Info        // Size is that of all versions together, Modified that of the newest
	Hidden bool // it lies below a delete marker: List does not show it
}

// Objects is Store.List for whatever uses space.
func (e *Eraser) Objects(ctx context.Context, prefix string) iter.Seq2[Kept, error] {
	return func(yield func(Kept, error) bool) {
		if e.all == nil {
			for info, err := range e.store.List(ctx, prefix) {
				if !yield(Kept{Info: info}, err) {
					return
				}
			}
			return
		}
		var sum Kept
		for v, err := range e.all.Versions(ctx, prefix) {
			switch {
			case err != nil:
				yield(Kept{}, err)
				return
			case v.Key == sum.Key:
				sum.Size += v.Size
				continue
			case sum.Key != "" && !yield(sum, nil):
				return
			}
			sum = Kept{Info: v.Info, Hidden: v.Marker}
		}
		if sum.Key != "" {
			yield(sum, nil)
		}
	}
}

// Erased says what came of an Erase, in bytes.
type Erased struct {
	Freed  int64
	Locked int64     // could not be deleted yet; Erase it again after Until
	Until  time.Time // when the last lock ends; zero if nothing is locked or the store does not say
}

// Erase deletes an object that Objects yielded (of object it needs the key, and
// the size in a store without versions). What is locked stays, which
// is no error; an object of which anything stays looks as it did before, or
// is hidden if it was. Erasing one that is gone is no error.
func (e *Eraser) Erase(ctx context.Context, object Info) (Erased, error) {
	if e.all == nil {
		if err := e.store.Delete(ctx, object.Key); err != nil {
			return Erased{}, err
		}
		return Erased{Freed: object.Size}, nil
	}
	var bodies, markers []Version
	for v, err := range e.all.Versions(ctx, object.Key) {
		switch {
		case err != nil:
			return Erased{}, err
		case v.Key != object.Key: // one that begins with this one
		case v.Marker:
			markers = append(markers, v)
		default:
			bodies = append(bodies, v)
		}
	}
	var done Erased
	locked := false
	for _, v := range bodies {
		err := e.all.DeleteVersion(ctx, v.Key, v.ID)
		switch {
		case errors.Is(err, ErrLocked):
			locked = true
			done.Locked += v.Size
			if r, err := e.all.Retention(ctx, v.Key, v.ID); err == nil && r.Until.After(done.Until) {
				done.Until = r.Until
			}
		case err != nil:
			return done, err
		default:
			done.Freed += v.Size
		}
	}
	if locked {
		return done, nil // without its markers a hidden object would show again
	}
	for _, v := range markers {
		if err := e.all.DeleteVersion(ctx, v.Key, v.ID); err != nil {
			return done, err
		}
	}
	return done, nil
}
