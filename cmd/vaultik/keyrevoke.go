package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// revoking is the revocation of one key of one writer in the making.
type revoking struct {
	store   *kitStore
	writer  string
	n       int
	key     remote.PublicKey
	through string // --through: a run, "none" or ""
	keep    bool   // --keep-tombstones
	dry     bool

	state *remote.WriterState
	cert  remote.Certificate
}

func (a *app) keyRevoke(c *cli.Context) (err error) {
	key, err := keyOption(c)
	all := c.Bool("all-writers")
	switch {
	case err != nil:
		return err
	case all && c.Args().Present():
		return errors.New("name the writers or say --all-writers, not both")
	case key.IsZero() == !c.IsSet("signer"):
		return errors.New("say which key is revoked: --key KEY, or --signer NUMBER, as \"vaultik key list\" shows them")
	case key.IsZero() && (all || c.NArg() > 1):
		return errors.New("--signer is a number of one writer; to revoke a key of several, give it as --key")
	}
	if !all {
		if err := words(c, 1, -1); err != nil {
			return err
		}
	}
	store, err := a.openKitStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	writers := c.Args().Slice()
	if all {
		if writers, err = remote.ListWriters(c.Context, store); err != nil {
			return err
		}
	}
	found := false
	for _, writer := range writers {
		r := &revoking{
			store: store, writer: writer, n: c.Int("signer"), key: key,
			through: c.String("through"), keep: c.Bool("keep-tombstones"), dry: c.Bool("dry-run"),
		}
		has, err := r.find(c.Context)
		if err != nil {
			return err
		}
		if !has && all {
			continue
		}
		if !has {
			names, err := remote.ListWriters(c.Context, store)
			if err == nil {
				_, err = pick(names, writer)
			}
			if err != nil {
				return err
			}
			return fmt.Errorf("writer %q in %s has no certified signer with that number or key; \"vaultik key list %s\" shows them", writer, store.url, writer)
		}
		found = true
		if err := a.revoke(c.Context, r); err != nil {
			return fmt.Errorf("writer %q: %w", writer, err)
		}
	}
	if !found {
		return fmt.Errorf("no writer in %s has that key", store.url)
	}
	return nil
}

// find reads the writer and looks for the certificate.
func (r *revoking) find(ctx context.Context) (bool, error) {
	if err := remote.CheckName(r.writer); err != nil {
		return false, fmt.Errorf("WRITER: %w", err)
	}
	var err error
	if r.state, err = remote.ReadWriter(ctx, r.store, r.store.kit.Root.Public(), r.writer); err != nil {
		return false, err
	}
	for _, c := range r.state.Signers.Certificates {
		if c.N == r.n || !r.key.IsZero() && c.Key.Equal(r.key) {
			r.n, r.key, r.cert = c.N, c.Key, c
			return true, nil
		}
	}
	return false, nil
}

// revoke signs the revocation, puts it, and tells what does not count any
// more.
func (a *app) revoke(ctx context.Context, r *revoking) error {
	if old, revoked := r.state.Signers.Revocation(r.key); revoked {
		return a.sayRevoked(ctx, r, old, "was revoked already")
	}
	revocation := remote.Revocation{Writer: r.writer, N: r.n, Key: r.key}
	var err error
	if revocation.Through, revocation.Manifest, err = r.lastRun(); err != nil {
		return err
	}
	for _, t := range r.state.Forgotten {
		by, err := t.Verify(r.state.Signers)
		if err != nil || !by.Key.Equal(r.key) {
			continue
		}
		there, err := r.present(ctx, t.Seq)
		if err != nil {
			return err
		}
		if r.keep || !there {
			revocation.Tombstones = append(revocation.Tombstones, remote.RevokedTombstone{Seq: t.Seq, SHA256: t.Hash()})
		}
	}
	if r.dry {
		return a.sayRevoked(ctx, r, revocation, "would be revoked")
	}
	if err := r.put(ctx, revocation); err != nil {
		return err
	}
	return a.sayRevoked(ctx, r, revocation, "is revoked")
}

// present reports whether a run's manifest is in the store.
func (r *revoking) present(ctx context.Context, seq remote.Seq) (bool, error) {
	_, err := r.store.Stat(ctx, remote.ManifestKey(r.writer, seq))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lastRun decides up to which run the key's manifests hold.
func (r *revoking) lastRun() (remote.Seq, remote.Hash, error) {
	first, last := charge(r.state.Signers, r.cert)
	if r.cert.Role == remote.RoleMaintainer || first == 0 {
		if r.through != "" && r.through != "none" {
			return 0, remote.Hash{}, fmt.Errorf("--through %s: this key is in charge of no run", r.through)
		}
		return 0, remote.Hash{}, nil
	}
	hashes := map[remote.Seq]remote.Hash{} // of the manifests that this key signed
	var newest []string
	for _, t := range r.state.Forgotten {
		if t.Seq >= first && (last == 0 || t.Seq <= last) {
			hashes[t.Seq] = t.Manifest
		}
	}
	for _, s := range r.state.Snapshots {
		if s.Key.Equal(r.key) {
			hashes[s.Manifest.Seq] = s.Hash
			newest = append(newest, fmt.Sprintf("%d (%s, finished %s as it claims)", uint64(s.Manifest.Seq), s.Manifest.Snapshot, s.Manifest.Finished))
		}
	}
	switch r.through {
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
	n, err := strconv.ParseUint(r.through, 10, 64)
	if err != nil || n < 1 || remote.Seq(n) > remote.MaxSeq {
		return 0, remote.Hash{}, fmt.Errorf("--through %q is neither the number of a run nor \"none\"", r.through)
	}
	h, ok := hashes[remote.Seq(n)]
	if !ok {
		return 0, remote.Hash{}, fmt.Errorf("--through %d: there is no trusted run %d by this key in the store", n, n)
	}
	return remote.Seq(n), h, nil
}

// put puts the text, then its signature. An earlier try may have come as far
// as the text; other bytes there are not this revocation, and are in its way.
func (r *revoking) put(ctx context.Context, revocation remote.Revocation) error {
	object, signature := remote.SignRevocation(r.store.kit.Root, revocation)
	key := remote.RevocationKey(r.writer, r.n)
	for _, o := range []struct {
		key  string
		body []byte
	}{{key, object}, {remote.SignatureKey(key), signature}} {
		err := r.store.Put(ctx, o.key, o.body)
		if errors.Is(err, remote.ErrExists) {
			var there []byte
			if there, err = stores.Fetch(ctx, r.store, o.key, remote.MaxRevocation); err == nil && !bytes.Equal(there, o.body) {
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

// refused are the keys of the objects that the revoked key signed, or may have
// signed, and that do not count. The writer needs their places.
func (r *revoking) refused(ctx context.Context, revocation remote.Revocation) ([]string, error) {
	signers := r.state.Signers
	if _, revoked := signers.Revocation(r.key); !revoked {
		signers.Revocations = append(slices.Clone(signers.Revocations), revocation)
	}
	var keys []string
	for info, err := range r.store.List(ctx, remote.MetadataPrefix(r.writer)) {
		if err != nil {
			return nil, err
		}
		k, err := remote.ParseKey(info.Key)
		if err != nil || k.Kind != remote.KindManifest {
			continue
		}
		c, ok := signers.InCharge(k.Seq)
		if ok && c.Key.Equal(r.key) && k.Seq > revocation.Through {
			keys = append(keys, info.Key)
		}
	}
	for info, err := range r.store.List(ctx, remote.ForgottenPrefix(r.writer)) {
		if err != nil {
			return nil, err
		}
		object, err := stores.Fetch(ctx, r.store, info.Key, remote.MaxTombstone)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if t, err := remote.DecodeTombstone(object); err == nil && t.SignedBy(r.key) {
			if _, err := t.Verify(signers); err != nil {
				keys = append(keys, info.Key)
			}
		}
	}
	return keys, nil
}

func (a *app) sayRevoked(ctx context.Context, r *revoking, revocation remote.Revocation, how string) error {
	refused, err := r.refused(ctx, revocation)
	if err != nil {
		return err
	}
	a.ui.Result(struct {
		Type       string      `json:"message_type"`
		Writer     string      `json:"writer"`
		Signer     int         `json:"signer"`
		Key        string      `json:"key"`
		Through    remote.Seq  `json:"through"` // 0: none
		Manifest   remote.Hash `json:"manifest"`
		Tombstones int         `json:"tombstones"`
		Refused    []string    `json:"refused"` // keys of objects
		DryRun     bool        `json:"dry_run"`
	}{"revoked", r.writer, revocation.N, revocation.Key.String(), revocation.Through, revocation.Manifest, len(revocation.Tombstones), append([]string{}, refused...), r.dry})
	a.ui.Say("signer %d of writer %s %s (key %s)", revocation.N, r.writer, how, revocation.Key)
	switch {
	case r.cert.Role == remote.RoleMaintainer:
	case revocation.Through > 0:
		a.ui.Say("its snapshots count up to run %d", uint64(revocation.Through))
	default:
		a.ui.Say("none of its snapshots counts")
	}
	if n := len(revocation.Tombstones); n > 0 {
		a.ui.Say("%s of it still %s", ui.Plural(int64(n), "tombstone", "tombstones"), map[bool]string{true: "counts", false: "count"}[n == 1])
	}
	if len(refused) > 0 {
		a.ui.Say("")
		a.ui.Say("These objects do not count. Delete them with credentials that may, and the versions")
		a.ui.Say("behind them if the bucket keeps any, so that the writer can go on:")
		for _, key := range refused {
			a.ui.Say("  %s", ui.Quote(key))
		}
	}
	if next, ok := r.state.Signers.InCharge(revocation.Through + 1); r.cert.Role == remote.RoleWriter && !r.dry && ok && next.Key.Equal(r.key) {
		a.ui.Note("where the writer's machine is, or the one that takes its place: \"vaultik key rotate\"")
	}
	return nil
}
