package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) certify(c *cli.Context) (err error) {
	maintainer := c.Bool("maintainer")
	from := remote.Seq(c.Uint64("from"))
	want, err := keyOption(c)
	switch {
	case maintainer && c.Bool("all-writers") && c.Args().Present():
		return errors.New("name the writers or say --all-writers, not both")
	case !maintainer && c.Bool("all-writers"):
		return errors.New("--all-writers goes with --maintainer")
	case maintainer && (c.IsSet("from") || c.IsSet("signer") || c.IsSet("purge-maintainer")):
		return errors.New("--from, --signer and --purge-maintainer are about a machine's key, not a maintainer's")
	case err != nil:
		return err
	case maintainer && want.IsZero():
		return errors.New("no key given; add --key with the maintainer's public key, as \"vaultik key generate\" makes it")
	case c.IsSet("signer") && c.Int("signer") < 1:
		return fmt.Errorf("--signer %d: signers are numbered from 1", c.Int("signer"))
	case c.IsSet("from") && (from < 1 || from > remote.MaxSeq):
		return fmt.Errorf("--from %d: runs are numbered from 1", from)
	}
	most := 1
	if maintainer {
		most = -1
	}
	if !maintainer && c.Args().Len() > 1 {
		return errors.New("one machine's key at a time: its key is compared with what that machine printed; only --maintainer takes several writers")
	}
	if !c.Bool("all-writers") {
		if err := words(c, 1, most); err != nil {
			return err
		}
	}
	for _, writer := range c.Args().Slice() {
		if err := remote.CheckName(writer); err != nil {
			return fmt.Errorf("WRITER: %w", err)
		}
	}
	store, err := a.openKitStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if !maintainer {
		return a.certifyWriter(c, store, c.Args().First(), want)
	}
	writers := c.Args().Slice()
	if c.Bool("all-writers") {
		if writers, err = remote.ListWriters(c.Context, store); err == nil && len(writers) == 0 {
			err = fmt.Errorf("%w: there is no writer in %q", remote.ErrNoStore, store.url.String())
		}
		if err != nil {
			return err
		}
	}
	for _, writer := range writers {
		if err := a.certifyMaintainer(c.Context, store, writer, want); err != nil {
			return err
		}
	}
	return nil
}

// certifyWriter certifies the key of a machine that put it into the store.
func (a *app) certifyWriter(c *cli.Context, store *kitStore, writer string, want remote.PublicKey) error {
	root := store.kit.Root.Public()
	there, err := signing.List(c.Context, store, writer)
	if err != nil {
		return err
	}
	state, err := remote.ReadChain(c.Context, store, root, writer)
	if err != nil {
		return err
	}
	n, err := signing.Choose(there, state.Signers, c.Int("signer"), want)
	if err != nil {
		return fmt.Errorf("writer %q in %s: %w", writer, store.url, err)
	}
	public := there[n]
	switch {
	case !want.IsZero() && !want.Equal(public):
		return fmt.Errorf("%w: the store holds the signing key %s for writer %q, not %s; do not certify it before you know whose it is",
			remote.ErrNotTrusted, public, writer, want)
	case public.IsZero():
		return fmt.Errorf("%s holds no signing key as \"vaultik init\" writes it", remote.SignerKey(writer, n))
	}
	if r, revoked := state.Signers.Revocation(public); revoked {
		return fmt.Errorf("%w: this key is revoked (signer %d of writer %q), and that is for good; make the machine a new one with \"vaultik key rotate\"",
			remote.ErrNotTrusted, r.N, writer)
	}
	cert := remote.Certificate{N: n, Key: public, Role: remote.RoleWriter, Writer: writer, From: remote.Seq(c.Uint64("from"))}
	certified := slices.ContainsFunc(state.Signers.Certificates, func(c remote.Certificate) bool { return c.N == n })
	if !certified {
		if cert.From == 0 {
			cert.From = signing.FirstRun(state)
		}
		if err := signing.CheckFrom(state, cert); err != nil {
			return err
		}
	}
	if cert.PurgeMaintainer = signing.Fenced(state.Signers); c.IsSet("purge-maintainer") {
		cert.PurgeMaintainer = c.Bool("purge-maintainer")
	}
	got, err := signing.Certify(c.Context, store, store.kit.Root, cert)
	if err != nil {
		return err
	}
	switch {
	case !certified:
		a.sayCertified("certified", got)
	case c.IsSet("from") && got.From != cert.From:
		return fmt.Errorf("signer %d of writer %q is certified already, from run %d on, and a certificate is never replaced; leave --from %d out",
			n, writer, uint64(got.From), uint64(cert.From))
	case c.IsSet("purge-maintainer") && got.PurgeMaintainer != cert.PurgeMaintainer:
		return fmt.Errorf("signer %d of writer %q is certified already, and a certificate is never replaced; run \"vaultik key rotate\" on that machine, "+
			"certify its new key with --purge-maintainer, and revoke this one", n, writer)
	default:
		a.sayCertified("was certified already", got)
	}
	if want.IsZero() {
		a.ui.Note("compare the key with what \"vaultik init\" or \"vaultik key rotate\" printed on that machine")
	}
	return nil
}

// certifyMaintainer puts a maintainer's key beside a writer's own.
func (a *app) certifyMaintainer(ctx context.Context, store *kitStore, writer string, key remote.PublicKey) error {
	there, err := signing.List(ctx, store, writer)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		return fmt.Errorf("%s has no writer %q", store.url, writer)
	}
	signers, err := remote.LoadSigners(ctx, store, store.kit.Root.Public(), writer)
	if err != nil {
		return err
	}
	if r, revoked := signers.Revocation(key); revoked {
		return fmt.Errorf("%w: this key is revoked (signer %d of writer %q), and that is for good; make another", remote.ErrNotTrusted, r.N, writer)
	}
	for _, c := range signers.Certificates {
		if c.Key.Equal(key) {
			if c.Role != remote.RoleMaintainer {
				return fmt.Errorf("this is signer %d of writer %q itself, a machine's key; a maintainer needs another", c.N, writer)
			}
			a.sayCertified("was certified already", c)
			return nil
		}
	}
	n, last := 0, 0
	for number, public := range there {
		last = max(last, number)
		if public.Equal(key) {
			n = number // put by an earlier try
		}
	}
	if n == 0 {
		if n, err = signing.Put(ctx, store, writer, last+1, key); err != nil {
			return err
		}
	}
	c, err := signing.Certify(ctx, store, store.kit.Root, remote.Certificate{N: n, Key: key, Role: remote.RoleMaintainer, Writer: writer})
	if err != nil {
		return err
	}
	a.sayCertified("certified", c)
	return nil
}

func (a *app) sayCertified(how string, c remote.Certificate) {
	a.ui.Result(struct {
		Type            string      `json:"message_type"`
		Writer          string      `json:"writer"`
		Signer          int         `json:"signer"`
		Role            remote.Role `json:"role"`
		From            remote.Seq  `json:"from"` // 0 for a maintainer
		PurgeMaintainer bool        `json:"purge_maintainer"`
		Key             string      `json:"key"`
	}{"certified", c.Writer, c.N, c.Role, c.From, c.PurgeMaintainer, c.Key.String()})
	if c.Role == remote.RoleMaintainer {
		a.ui.Say("signer %d of writer %s %s, as a maintainer", c.N, c.Writer, how)
	} else {
		a.ui.Say("signer %d of writer %s %s, from run %d on", c.N, c.Writer, how, uint64(c.From))
	}
	if c.PurgeMaintainer {
		a.ui.Say("it may not forget snapshots; a maintainer may")
	}
	a.ui.Say("key %s", c.Key)
}
