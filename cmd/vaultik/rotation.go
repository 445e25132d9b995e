package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// nextKeyFile holds the signing key that shall follow the one in use, from
// when it was made until it is in charge. Where both files are, signingKeyFile
// signs: no run is ever signed with a key that readers do not accept.
const nextKeyFile = "signing.key.next"

// rotation gives a writer a new signing key, also where the old one is lost.
// Each step can be repeated after a crash, and none takes the old key away
// before the new one is certified. The caller holds the state folder's lock.
type rotation struct {
	store  remote.Store
	root   remote.PublicKey // whose certificates count
	writer string
	dir    string    // the writer's folder in the state folder
	random io.Reader // of the new key
	from   remote.Seq
	// from is the first run that the new key shall sign: the one after all that
	// the index or the store knows.
}

// rotate makes the new key, certifies it and puts it in the old one's place.
func (r rotation) rotate(ctx context.Context, root remote.SigningKey) (remote.Certificate, error) {
	if !root.Public().Equal(r.root) {
		return remote.Certificate{}, fmt.Errorf("%w: the kit's root key is %s, this machine's config trusts %s", remote.ErrNotTrusted, root.Public(), r.root)
	}
	n, key, err := r.propose(ctx)
	if err != nil {
		return remote.Certificate{}, err
	}
	signers, err := remote.LoadSigners(ctx, r.store, r.root, r.writer)
	if err != nil {
		return remote.Certificate{}, err
	}
	c := remote.Certificate{N: n, Key: key.Public(), Role: remote.RoleWriter, Writer: r.writer, From: r.from, PurgeMaintainer: fenced(signers)}
	if c, err = putCertificate(ctx, r.store, root, c); err != nil {
		return c, err
	}
	if signers, err = remote.LoadSigners(ctx, r.store, r.root, r.writer); err != nil {
		return c, err
	}
	if signs, err := signers.For(r.from); err != nil || !signs.Equal(key.Public()) {
		return c, fmt.Errorf("signer %d is certified, but is not in charge of run %d; run this again: %w", n, uint64(r.from), errors.Join(remote.ErrNotTrusted, err))
	}
	return c, adopt(r.dir)
}

// propose makes the next key, unless one is there, and puts its public half
// into the store for whoever has the root key to certify. It returns its
// number.
func (r rotation) propose(ctx context.Context) (int, remote.SigningKey, error) {
	signers, err := remote.LoadSigners(ctx, r.store, r.root, r.writer)
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
		if there, err = listSigners(ctx, r.store, r.writer); err != nil {
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
	n, err := putSigner(ctx, r.store, r.writer, last+1, key.Public())
	return n, key, err
}

// nextKey reads the next key or makes one. A revoked one is replaced.
func (r rotation) nextKey(signers remote.Signers) (remote.SigningKey, error) {
	path := filepath.Join(r.dir, nextKeyFile)
	key, err := readSigningKey(path)
	if err == nil {
		if _, revoked := signers.Revocation(key.Public()); !revoked {
			return key, nil
		}
		err = os.Remove(path)
	}
	if state.IgnoreMissing(err) != nil {
		return key, err
	}
	if key, err = remote.GenerateSigningKey(r.random); err != nil {
		return key, err
	}
	return key, state.Create(path, []byte(key.Text()))
}

// useless reports whether signer n is certified without being in charge of the
// next run: then a certificate under another number is needed.
func (r rotation) useless(signers remote.Signers, n int) bool {
	in, _ := signers.InCharge(r.from)
	return in.N != n && slices.ContainsFunc(signers.Certificates, func(c remote.Certificate) bool { return c.N == n })
}

// fenced reports whether the writer's newest certificate leaves forgetting to
// maintainers, which a new one then does as well.
func fenced(signers remote.Signers) bool {
	c, ok := signers.InCharge(remote.MaxSeq)
	return ok && c.PurgeMaintainer
}

// adopt makes the next key the one that signs.
func adopt(dir string) error {
	if err := os.Rename(filepath.Join(dir, nextKeyFile), filepath.Join(dir, state.SigningKeyFile)); err != nil {
		return err
	}
	return state.SyncFolder(dir)
}

// readSigningKey reads a secret key file; fs.ErrNotExist if there is none.
func readSigningKey(path string) (remote.SigningKey, error) {
	text, err := state.ReadFile(path, 4096)
	if err != nil {
		return remote.SigningKey{}, err
	}
	key, err := remote.ParseSigningKey(string(text))
	if err != nil {
		return key, fmt.Errorf("%q: %w", path, err)
	}
	return key, nil
}

// listSigners returns the public keys under a writer's signers by number; a
// zero one where there is something else. A writer without any is empty.
func listSigners(ctx context.Context, store remote.Store, writer string) (map[int]remote.PublicKey, error) {
	found := make(map[int]remote.PublicKey)
	for info, err := range store.List(ctx, remote.SignersPrefix(writer)) {
		if err != nil {
			return nil, fmt.Errorf("list the signers of writer %q: %w", writer, err)
		}
		k, err := remote.ParseKey(info.Key)
		if err != nil || k.Kind != remote.KindSigner || k.Signature {
			continue
		}
		text, err := stores.Fetch(ctx, store, info.Key, kit.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("read signer %d of writer %q: %w", k.N, writer, err)
		}
		found[k.N], _ = remote.ParsePublicKey(string(text)) // zero: none
	}
	return found, nil
}

// putSigner puts a public key under the first free number from n on.
func putSigner(ctx context.Context, store remote.Store, writer string, n int, key remote.PublicKey) (int, error) {
	for ; ; n++ {
		err := store.Put(ctx, remote.SignerKey(writer, n), key.File())
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, remote.ErrExists) {
			return 0, err
		}
	}
}

// putCertificate certifies the key that lies under c.N. A certificate is never
// replaced: if there is one of this root key and role, it is returned instead.
func putCertificate(ctx context.Context, store remote.Store, root remote.SigningKey, c remote.Certificate) (remote.Certificate, error) {
	object := remote.SignerKey(c.Writer, c.N)
	signature := remote.SignCertificate(root, c)
	err := store.Put(ctx, remote.SignatureKey(object), signature)
	if !errors.Is(err, remote.ErrExists) {
		return c, err
	}
	if signature, err = stores.Fetch(ctx, store, remote.SignatureKey(object), kit.MaxSize); err != nil {
		return c, err
	}
	there, err := remote.ParseCertificate(root.Public(), c.Writer, c.N, c.Key.File(), signature)
	if err != nil {
		return c, fmt.Errorf("%s is there already but not of this kit's root key: %w; put the key under another number, "+
			"with \"vaultik key rotate\" on that machine or, if it is new, \"vaultik init\" under another name", remote.SignatureKey(object), err)
	}
	if there.Role != c.Role {
		return c, fmt.Errorf("signer %d of writer %q is certified already, as a %s, and a certificate is never replaced", c.N, c.Writer, there.Role)
	}
	return there, nil
}
