package remote

import (
	"errors"
	"fmt"
	"strings"
)

// ErrMissing: a manifest is not there, and no tombstone says that it was
// forgotten. It was lost or taken away.
var ErrMissing = errors.New("missing from the chain")

// Problem is something wrong with one object of a writer. Err wraps
// ErrNotTrusted, ErrCorrupt, ErrUnsupported, ErrMissing, or what keeps the object
// from being read: ErrUnreadable or ErrDenied. It says why.
type Problem struct {
	Key string // of the object
	Err error
	// Stops: nothing of this writer may be deleted while the problem is
	// there, because what a manifest nobody can read refers to is unknown.
	Stops bool
}

// Error names the key and the reason, in one line.
func (p *Problem) Error() string {
	return fmt.Sprintf("%q: %s", p.Key, strings.ReplaceAll(p.Err.Error(), "\n", "; "))
}

// Unwrap returns the reason.
func (p *Problem) Unwrap() error { return p.Err }
