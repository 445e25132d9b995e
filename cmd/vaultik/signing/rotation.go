package signing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Rotation gives a writer a new signing key, also where the old one is lost.
// Each step can be repeated after a crash, and none takes the old key away
// before the new one is certified. The caller holds the state folder's lock.
type Rotation struct {
	Store  remote.Store
	Root   remote.PublicKey // whose certificates count
	Writer string
	Dir    string    // the writer's folder in the state folder
	Random io.Reader // of the new key
	From   remote.Seq
	// From is the first run that the new key shall sign: the one after all that
	// the index or the store knows.
}

// Rotate makes the new key, certifies it with the root key and puts it in the old
// one's place.
func (r Rotation) Rotate(ctx context.Context, root remote.SigningKey) (remote.Certificate, error) {
	if !root.Public().Equal(r.Root) {
		return remote.Certificate{}, fmt.Errorf("%w: the kit's root key is %s, this machine's config trusts %s", remote.ErrNotTrusted, root.Public(), r.Root)
	}
	n, key, err := r.Propose(ctx)
	if err != nil {
		return remote.Certificate{}, err
	}
	signers, err := remote.LoadSigners(ctx, r.Store, r.Root, r.Writer)
	if err != nil {
		return remote.Certificate{}, err
	}
	c := remote.Certificate{N: n, Key: key.Public(), Role: remote.RoleWriter, Writer: r.Writer, From: r.From, PurgeMaintainer: Fenced(signers)}
	if c, err = Certify(ctx, r.Store, root, c); err != nil {
		return c, err
	}
	if signers, err = remote.LoadSigners(ctx, r.Store, r.Root, r.Writer); err != nil {
		return c, err
	}
	if signs, err := signers.For(r.From); err != nil || !signs.Equal(key.Public()) {
		return c, fmt.Errorf("signer %d is certified, but is not in charge of run %d; run this again: %w", n, uint64(r.From), errors.Join(remote.ErrNotTrusted, err))
	}
	return c, Adopt(r.Dir)
}

// Propose makes the next key, unless one is there, and puts its public half
// into the store for whoever has the root key to certify. It returns its
// number.
func (r Rotation) Propose(ctx context.Context) (int, remote.SigningKey, error) {
	signers, err := remote.LoadSigners(ctx, r.Store, r.Root, r.Writer)
	blind := errors.Is(err, remote.ErrDenied) // these credentials may only write
	if err != nil && !blind {
		return 0, remote.SigningKey{}, err
	}
	key, err := r.nextKey(signers)
	if err != nil {
		return 0, key, fmt.Errorf("make a new signing key: %w", err)
	}
	there := map[int]remote.PublicKey{1: {}}
	if !blind {
		if there, err = List(ctx, r.Store, r.Writer); err != nil {
			return 0, key, err
		}
	}
	last := 0
	for n, public := range there {
		if public.Equal(key.Public()) && !r.useless(signers, n) {
			return n, key, nil // put by an earlier try
		}
		last = max(last, n)
	}
	n, err := Put(ctx, r.Store, r.Writer, last+1, key.Public())
	return n, key, err
}

// nextKey reads the next key or makes one. A revoked one is replaced.
func (r Rotation) nextKey(signers remote.Signers) (remote.SigningKey, error) {
	path := filepath.Join(r.Dir, NextKeyFile)
	key, err := ReadKey(path)
	if err == nil {
		if _, revoked := signers.Revocation(key.Public()); !revoked {
			return key, nil
		}
		err = os.Remove(path)
	}
	if state.IgnoreMissing(err) != nil {
		return key, err
	}
	if key, err = remote.GenerateSigningKey(r.Random); err != nil {
		return key, err
	}
	return key, state.Create(path, []byte(key.Text()))
}

// useless reports whether signer n is certified without being in charge of the
// next run: then a certificate under another number is needed.
func (r Rotation) useless(signers remote.Signers, n int) bool {
	in, _ := signers.InCharge(r.From)
	return in.N != n && slices.ContainsFunc(signers.Certificates, func(c remote.Certificate) bool { return c.N == n })
}

// Check makes sure that a new key makes sense. lostKey: the machine has none
// that counts, so that no run can be made until the new one is certified.
func (r Rotation) Check(ctx context.Context) (lostKey bool, err error) {
	current, err := ReadKey(filepath.Join(r.Dir, state.SigningKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	signers, err := remote.LoadSigners(ctx, r.Store, r.Root, r.Writer)
	if errors.Is(err, remote.ErrDenied) {
		return false, nil // these credentials may only write
	}
	if err != nil {
		return false, err
	}
	c, certified := signers.InCharge(r.From)
	_, refused := signers.For(r.From)
	switch revoked := (*remote.Revoked)(nil); {
	case errors.As(refused, &revoked) && revoked.Seq > revoked.Revocation.Through+1:
		return false, RevokedHere(revoked)
	case errors.As(refused, &revoked):
		return true, nil
	case !certified:
		return false, fmt.Errorf("this machine's signing key %s is not certified yet, so there is nothing to change; certify it first, with \"vaultik key certify %s\"",
			current.Public(), r.Writer)
	}
	return !c.Key.Equal(current.Public()), nil
}
