package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// signer returns the key that signs the writer's next run: of this machine's
// keys, the one in charge of it. A new key that is in charge takes the old
// one's place for good. If neither is, because they are revoked or another
// machine's took over, nothing may be signed.
//
// A machine whose first key waits for the kit's word is only warned: the
// certificate will cover what was made before it.
func (a *app) signer(ctx context.Context, w *writing, store remote.Store, x *index.Index) (none remote.SigningKey, err error) {
	writer, first := w.conf.Writer.String(), w.config.Store == nil // several sets are told once
	dir := filepath.Join(w.where.State, writer)
	current, lostKey := signing.ReadKey(filepath.Join(dir, state.SigningKeyFile))
	if lostKey != nil && !errors.Is(lostKey, fs.ErrNotExist) {
		return none, lostKey
	}
	next, noNext := signing.ReadKey(filepath.Join(dir, signing.NextKeyFile))
	if noNext != nil && !errors.Is(noNext, fs.ErrNotExist) {
		return none, noNext
	}
	if lostKey != nil && noNext != nil {
		return none, fmt.Errorf("signing key of writer %q: %w; make a new one with \"vaultik key rotate\"", writer, lostKey)
	}
	if w.conf.RootKey.IsZero() && lostKey == nil {
		return current, nil // whom readers trust is somebody else's business
	}
	seq, err := signing.NextRun(ctx, x)
	if err != nil {
		return none, err
	}
	signers, err := remote.LoadSigners(ctx, store, w.conf.RootKey.PublicKey, writer)
	if errors.Is(err, remote.ErrDenied) && lostKey == nil {
		if noNext == nil && first {
			a.ui.Note("a new signing key waits, but these credentials cannot see whether it is certified; the old one signs (see \"vaultik key rotate --help\")")
		}
		return current, nil // these credentials may only write
	}
	if err != nil {
		return none, err
	}
	c, certified := signers.InCharge(seq)
	if r, revoked := signers.Revocation(c.Key); certified && revoked && seq > r.Through {
		err := signing.RevokedHere(&remote.Revoked{Revocation: r, Seq: seq})
		if noNext == nil && seq == r.Through+1 {
			err = fmt.Errorf("%w, which waits for its certificate; where the recovery kit is, run: %s", err, signing.CertifyCommand(writer, next.Public(), seq, w.url))
		}
		return none, err
	}
	switch {
	case noNext == nil && certified && c.Key.Equal(next.Public()):
		if err := signing.Adopt(dir); err != nil {
			return none, fmt.Errorf("put the new signing key in the old one's place: %w", err)
		}
		a.ui.Note("the new signing key is certified, and signs from now on: %s", next.Public())
		return next, nil
	case lostKey != nil:
		return none, fmt.Errorf("%w: the signing key of writer %q is lost, and the new one is not in charge of run %d; where the recovery kit is, run: %s",
			remote.ErrNotTrusted, writer, uint64(seq), signing.CertifyCommand(writer, next.Public(), seq, w.url))
	case certified && c.Key.Equal(current.Public()):
		if noNext == nil && first {
			a.ui.Note("a new signing key waits for its certificate; until then the old one signs; where the recovery kit is, run: %s", signing.CertifyCommand(writer, next.Public(), 0, w.url))
		}
		return current, nil
	case certified:
		return none, fmt.Errorf("%w: signer %d of writer %q is in charge of run %d (key %s), and this machine's key is another (%s): is a second machine at work as this writer? "+
			"If this is the one that shall go on, run \"vaultik key rotate\"", remote.ErrNotTrusted, c.N, writer, uint64(seq), c.Key, current.Public())
	}
	if first {
		a.ui.Warn("this machine's signing key is not certified, so no reader trusts its snapshots; where the recovery kit is, run: %s",
			signing.CertifyCommand(writer, current.Public(), 0, w.url))
	}
	return current, nil
}
