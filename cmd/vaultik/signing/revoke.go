package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Revoking is the revocation of one key of one writer in the making: Find, then
// Plan, then Put.
type Revoking struct {
	Store   remote.Store
	Root    remote.SigningKey
	Writer  string
	N       int              // of the signer, where Key is zero
	Key     remote.PublicKey // or else N
	Through string           // the last run that counts, or "none"; "": what nobody has to say
	Keep    bool             // tombstones of snapshots that are still there

	State *remote.WriterState // this and Cert are set by Find
	Cert  remote.Certificate
}

// Find reads the writer and looks for the certificate of the key; false if it has
// none.
func (r *Revoking) Find(ctx context.Context) (bool, error) {
	if err := remote.CheckName(r.Writer); err != nil {
		return false, fmt.Errorf("WRITER: %w", err)
	}
	var err error
	if r.State, err = remote.ReadWriter(ctx, r.Store, r.Root.Public(), r.Writer); err != nil {
		return false, err
	}
	for _, c := range r.State.Signers.Certificates {
		if c.N == r.N || !r.Key.IsZero() && c.Key.Equal(r.Key) {
			r.N, r.Key, r.Cert = c.N, c.Key, c
			return true, nil
		}
	}
	return false, nil
}

// Plan is the revocation as it is to be put, which changes nothing yet.
func (r *Revoking) Plan(ctx context.Context) (remote.Revocation, error) {
	revocation := remote.Revocation{Writer: r.Writer, N: r.N, Key: r.Key}
	var err error
	if revocation.Through, revocation.Manifest, err = r.lastRun(); err != nil {
		return revocation, err
	}
	for _, t := range r.State.Forgotten {
		by, err := t.Verify(r.State.Signers)
		if err != nil || !by.Key.Equal(r.Key) {
			continue
		}
		there, err := r.present(ctx, t.Seq)
		if err != nil {
			return revocation, err
		}
		if r.Keep || !there {
			revocation.Tombstones = append(revocation.Tombstones, remote.RevokedTombstone{Seq: t.Seq, SHA256: t.Hash()})
		}
	}
	return revocation, nil
}

// present reports whether a run's manifest is in the store.
func (r *Revoking) present(ctx context.Context, seq remote.Seq) (bool, error) {
	_, err := r.Store.Stat(ctx, remote.ManifestKey(r.Writer, seq))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lastRun decides up to which run the key's manifests hold.
func (r *Revoking) lastRun() (remote.Seq, remote.Hash, error) {
	first, last := charge(r.State.Signers, r.Cert)
	if r.Cert.Role == remote.RoleMaintainer || first == 0 {
		if r.Through != "" && r.Through != "none" {
			return 0, remote.Hash{}, fmt.Errorf("--through %s: this key is in charge of no run", r.Through)
		}
		return 0, remote.Hash{}, nil
	}
	hashes := map[remote.Seq]remote.Hash{} // of the manifests that this key signed
	var newest []string
	for _, t := range r.State.Forgotten {
		if t.Seq >= first && (last == 0 || t.Seq <= last) {
			hashes[t.Seq] = t.Manifest
		}
	}
	for _, s := range r.State.Snapshots {
		if s.Key.Equal(r.Key) {
			hashes[s.Manifest.Seq] = s.Hash
			newest = append(newest, fmt.Sprintf("%d (%s, finished %s as it claims)", uint64(s.Manifest.Seq), s.Manifest.Snapshot, s.Manifest.Finished))
		}
	}
	switch r.Through {
	case "none":
		return 0, remote.Hash{}, nil
	case "":
		if last > 0 { // another key took over
			for seq := last; seq >= first; seq-- {
				if h, ok := hashes[seq]; ok {
					return seq, h, nil
				}
			}
			return 0, remote.Hash{}, nil
		}
		if len(hashes) == 0 {
			return 0, remote.Hash{}, nil
		}
		return 0, remote.Hash{}, fmt.Errorf("say up to which run this key is to be believed, as --through RUN or --through none: the last one that the honest machine made; the newest by this key are %s",
			strings.Join(newest[max(0, len(newest)-5):], ", "))
	}
	n, err := strconv.ParseUint(r.Through, 10, 64)
	if err != nil || n < 1 || remote.Seq(n) > remote.MaxSeq {
		return 0, remote.Hash{}, fmt.Errorf("--through %q is neither the number of a run nor \"none\"", r.Through)
	}
	h, ok := hashes[remote.Seq(n)]
	if !ok {
		return 0, remote.Hash{}, fmt.Errorf("--through %d: there is no trusted run %d by this key in the store", n, n)
	}
	return remote.Seq(n), h, nil
}

// Put signs the revocation and puts its text, then its signature. An earlier try may have come as far
// as the text; other bytes there are not this revocation, and are in its way.
func (r *Revoking) Put(ctx context.Context, revocation remote.Revocation) error {
	object, signature := remote.SignRevocation(r.Root, revocation)
	key := remote.RevocationKey(r.Writer, r.N)
	for _, o := range []struct {
		key  string
		body []byte
	}{{key, object}, {remote.SignatureKey(key), signature}} {
		err := r.Store.Put(ctx, o.key, o.body)
		if errors.Is(err, remote.ErrExists) {
			var there []byte
			if there, err = stores.Fetch(ctx, r.Store, o.key, remote.MaxRevocation); err == nil && !bytes.Equal(there, o.body) {
				err = fmt.Errorf("%w: %s is there with other content and revokes nothing; delete it and its %s, and run this again",
					remote.ErrNotTrusted, o.key, remote.SignatureKey(key))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Refused are the keys of the objects that the revoked key signed, or may have
// signed, and that do not count. The writer needs their places.
func (r *Revoking) Refused(ctx context.Context, revocation remote.Revocation) ([]string, error) {
	signers := r.State.Signers
	if _, revoked := signers.Revocation(r.Key); !revoked {
		signers.Revocations = append(slices.Clone(signers.Revocations), revocation)
	}
	var keys []string
	for info, err := range r.Store.List(ctx, remote.MetadataPrefix(r.Writer)) {
		if err != nil {
			return nil, err
		}
		k, err := remote.ParseKey(info.Key)
		if err != nil || k.Kind != remote.KindManifest {
			continue
		}
		c, ok := signers.InCharge(k.Seq)
		if ok && c.Key.Equal(r.Key) && k.Seq > revocation.Through {
			keys = append(keys, info.Key)
		}
	}
	for info, err := range r.Store.List(ctx, remote.ForgottenPrefix(r.Writer)) {
		if err != nil {
			return nil, err
		}
		object, err := stores.Fetch(ctx, r.Store, info.Key, remote.MaxTombstone)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if t, err := remote.DecodeTombstone(object); err == nil && t.SignedBy(r.Key) {
			if _, err := t.Verify(signers); err != nil {
				keys = append(keys, info.Key)
			}
		}
	}
	return keys, nil
}
