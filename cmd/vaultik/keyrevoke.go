package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

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
		r := &signing.Revoking{
			Store: store, Root: store.kit.Root, Writer: writer, N: c.Int("signer"), Key: key,
			Through: c.String("through"), Keep: c.Bool("keep-tombstones"),
		}
		has, err := r.Find(c.Context)
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
		if err := a.revoke(c.Context, r, c.Bool("dry-run")); err != nil {
			return fmt.Errorf("writer %q: %w", writer, err)
		}
	}
	if !found {
		return fmt.Errorf("no writer in %s has that key", store.url)
	}
	return nil
}

// revoke signs the revocation, puts it, and tells what does not count any
// more.
func (a *app) revoke(ctx context.Context, r *signing.Revoking, dry bool) error {
	if old, revoked := r.State.Signers.Revocation(r.Key); revoked {
		return a.sayRevoked(ctx, r, old, "was revoked already", dry)
	}
	revocation, err := r.Plan(ctx)
	if err != nil {
		return err
	}
	if dry {
		return a.sayRevoked(ctx, r, revocation, "would be revoked", dry)
	}
	if err := r.Put(ctx, revocation); err != nil {
		return err
	}
	return a.sayRevoked(ctx, r, revocation, "is revoked", dry)
}

func (a *app) sayRevoked(ctx context.Context, r *signing.Revoking, revocation remote.Revocation, how string, dry bool) error {
	refused, err := r.Refused(ctx, revocation)
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
	}{"revoked", r.Writer, revocation.N, revocation.Key.String(), revocation.Through, revocation.Manifest, len(revocation.Tombstones), append([]string{}, refused...), dry})
	a.ui.Say("signer %d of writer %s %s (key %s)", revocation.N, r.Writer, how, revocation.Key)
	switch {
	case r.Cert.Role == remote.RoleMaintainer:
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
	if next, ok := r.State.Signers.InCharge(revocation.Through + 1); r.Cert.Role == remote.RoleWriter && !dry && ok && next.Key.Equal(r.Key) {
		a.ui.Note("where the writer's machine is, or the one that takes its place: \"vaultik key rotate\"")
	}
	return nil
}
