package remote

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lock is what a store is told to do to every object that is put into it.
type Lock struct {
	Mode LockMode
	// For is how long an object is locked from its upload on. The end is
	// reckoned with this machine's clock and watched over with the store's.
	For time.Duration
}

// Retention is that of an object put now.
func (l Lock) Retention(now time.Time) Retention {
	return Retention{Mode: l.Mode, Until: now.Add(l.For).UTC().Truncate(time.Second)}
}

// Locking is what a Versioned store may offer besides.
type Locking interface {
	// CheckLock returns nil if objects in this store can be locked, an
	// ErrNoLock if not, and an ErrDenied if the credentials do not allow to
	// ask.
	CheckLock(ctx context.Context) error

	// LockPuts makes every later Put lock what it puts; the zero Lock is
	// none. Call it before the store is used by several goroutines.
	LockPuts(l Lock)
}

// ErrNoLock: objects in this store cannot be locked.
var ErrNoLock = errors.New("this store cannot lock objects")

// LockPuts makes a store lock what is put into it. A store that certainly
// cannot is an ErrNoLock; where the credentials do not allow to ask, the first
// Put shows it.
func LockPuts(ctx context.Context, s Store, l Lock) error {
	locking, ok := offered[Locking](s)
	if !ok {
		return fmt.Errorf("%w: it keeps no versions", ErrNoLock)
	}
	if err := locking.CheckLock(ctx); err != nil && !errors.Is(err, ErrDenied) {
		return err
	}
	locking.LockPuts(l)
	return nil
}
