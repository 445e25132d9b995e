package remote

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrWaiting: nobody has signed a signing key yet. It is an ErrNotTrusted.
var ErrWaiting = fmt.Errorf("%w: not certified yet", ErrNotTrusted)

// Uncertified says that the root key has certified no signer of a writer, so
// that nothing of it counts. It is an ErrNotTrusted.
type Uncertified struct {
	Writer string
	Root   PublicKey
	// Reasons are a *Problem for each signer; without any, the writer has no
	// signer at all.
	Reasons []error
	// Before is what the writer showed when it was trusted here, nil if it
	// never was. A machine that has just joined is no alarm, one that has
	// lost its certificate is.
	Before *Rollback
}

// Waiting reports whether all that the writer's signers lack is the word of
// whoever has the root key: this is a machine that has joined.
func (u *Uncertified) Waiting() bool {
	return len(u.Reasons) > 0 && !slices.ContainsFunc(u.Reasons, func(err error) bool { return !errors.Is(err, ErrWaiting) })
}

// Error says what is the matter, in one line, and what to do about it.
func (u *Uncertified) Error() string {
	var text string
	switch {
	case u.Waiting():
		text = fmt.Sprintf("writer %q is not certified, so its snapshots do not count; if it is one of yours, run \"vaultik key certify %s --kit KIT\" where the recovery kit is", u.Writer, u.Writer)
	case len(u.Reasons) == 0:
		text = fmt.Sprintf("writer %q has no signing key in the store, so its snapshots do not count", u.Writer)
	default:
		text = fmt.Sprintf("writer %q is not certified by root key %s, so its snapshots do not count (%v)", u.Writer, u.Root, u.Reasons[0])
	}
	if b := u.Before; b != nil {
		text += fmt.Sprintf("; but its run %d was trusted here on %s: either its certificate was removed or replaced, or this is not the store's root key", b.Remembered, b.When)
	}
	return text
}

// Unwrap makes an Uncertified an ErrNotTrusted.
func (u *Uncertified) Unwrap() error { return ErrNotTrusted }

func (s Signers) uncertified(root PublicKey) *Uncertified {
	return &Uncertified{Writer: s.Writer, Root: root, Reasons: s.Problems}
}

// StoppedBy returns those of the flaws, which are what Flaws returned, that
// forbid deleting anything of this writer: what the store itself shows, and that
// it shows less, or something else, than it did before. Nil if nothing does.
func (w *WriterState) StoppedBy(flaws []error) error {
	var stops []error
	for _, err := range flaws {
		u, p := (*Uncertified)(nil), (*Problem)(nil)
		switch {
		case errors.As(err, &u):
			stops = append(stops, err)
		case errors.As(err, &p):
			if p.Stops {
				stops = append(stops, err)
			}
		case errors.Is(err, ErrNotTrusted):
			stops = append(stops, err)
		}
	}
	if len(stops) == 0 {
		return w.Stopped() // whatever the caller made of it
	}
	return errors.Join(stops...)
}

// Flaws returns all that is wrong with the writer, each thing once: with its
// signers, its manifests, and with what it shows compared to what seen
// remembers of the store, which from now on remembers this as well. Without a
// memory, seen is nil. now is when this was read.
func (w *WriterState) Flaws(seen *Seen, store string, now time.Time) []error {
	var u *Uncertified
	for _, err := range w.Problems {
		errors.As(err, &u)
	}
	flaws := slices.Concat(w.Signers.Problems, w.Problems)
	var late error
	if seen != nil {
		var newest sighting               // zero: the store shows none
		if n := len(w.Snapshots); n > 0 { // a writer's newest is never forgotten
			v := w.Snapshots[n-1]
			newest = sighting{Seq: v.Manifest.Seq, Hash: v.Hash, Signer: v.Key.String()}
		}
		late = seen.check(store, w.Writer, newest, w.Signers, now)
	}
	switch {
	case u == nil && late == nil:
		return flaws
	case u == nil:
		return append(flaws, late)
	case len(u.Reasons) == 0 && late != nil:
		return []error{late} // it vanished as a whole
	}
	// That snapshots were removed would accuse the wrong one.
	told := *u
	errors.As(late, &told.Before)
	return []error{&told}
}
