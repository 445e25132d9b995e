package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) keyCommand() *cli.Command {
	return group("key", "work with the keys that are in the recovery kit",
		&cli.Command{
			Name: "certify", ArgsUsage: "WRITER", OnUsageError: usageError,
			Usage: "certify a further machine's signing key with the kit's root key",
			Description: "Give --key as \"vaultik init\" printed it on that machine: then a key that somebody else\n" +
				"put into the store cannot be certified by mistake.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "kit", Usage: "recovery kit `FILE`; always needed"},
				&cli.StringFlag{Name: "key", Usage: "the signing `KEY` that must be there"},
				&cli.IntFlag{Name: "signer", Value: 1, Usage: "the signer's `NUMBER`"},
				&cli.Uint64Flag{Name: "from", Value: 1, Usage: "the first run that it signs, a `NUMBER`"},
			},
			Action: a.certify,
		})
}

func (a *app) certify(c *cli.Context) (err error) {
	if err := words(c, 1, 1); err != nil {
		return err
	}
	writer, n, from := c.Args().First(), c.Int("signer"), remote.Seq(c.Uint64("from"))
	switch {
	case remote.CheckName(writer) != nil:
		return fmt.Errorf("WRITER: %w", remote.CheckName(writer))
	case c.String("kit") == "":
		return errors.New("no kit given; add --kit FILE, the recovery kit, which holds the root key")
	case n < 1:
		return fmt.Errorf("--signer %d: signers are numbered from 1", n)
	case from < 1 || from > remote.MaxSeq:
		return fmt.Errorf("--from %d: runs are numbered from 1", from)
	}
	var want remote.PublicKey
	if given := c.String("key"); given != "" {
		var err error
		if want, err = remote.ParsePublicKey(given); err != nil {
			return fmt.Errorf("--key is not a signing key as \"vaultik init\" prints it, RW…: %w", err)
		}
	}
	text, err := readSmall(c.String("kit"), identityLimit)
	if err != nil {
		return fmt.Errorf("read the recovery kit: %w", err)
	}
	k, err := parseKit(string(text))
	if err != nil {
		return fmt.Errorf("recovery kit %q: %w", c.String("kit"), err)
	}
	address := c.String("store")
	if address == "" {
		address = a.env("VAULTIK_STORE")
	}
	if address == "" {
		address = k.Store
	}
	u, err := parseStoreURL(address)
	if err != nil {
		return err
	}
	store, err := u.open(c.Context, a.route())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	object := remote.SignerKey(writer, n)
	public, err := fetch(c.Context, store, object, identityLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the store %s has no signer %d of writer %q; \"vaultik init\" on that machine puts it there", u, n, writer)
	}
	if err != nil {
		return err
	}
	key, err := remote.ParsePublicKey(string(public))
	if err != nil {
		return fmt.Errorf("%s: %w", object, err)
	}
	if !want.IsZero() && !want.Equal(key) {
		return fmt.Errorf("%w: the store holds the signing key %s for writer %q, not %s; do not certify it before you know whose it is",
			remote.ErrNotTrusted, key, writer, want)
	}
	signature := remote.SignCertificate(k.Root, remote.Certificate{N: n, Key: key, Role: remote.RoleWriter, Writer: writer, From: from})
	if _, err := remote.ParseCertificate(k.Root.Public(), writer, n, public, signature); err != nil {
		return fmt.Errorf("%s is not as \"vaultik init\" writes it: %w", object, err)
	}
	err = store.Put(c.Context, remote.SignatureKey(object), signature)
	if errors.Is(err, remote.ErrExists) {
		return a.certified(c, store, k, writer, n, public)
	}
	if err != nil {
		return err
	}
	a.sayCertified("certified", writer, n, from, key)
	if c.String("key") == "" {
		a.ui.note("compare the key with what \"vaultik init\" printed on that machine")
	}
	return nil
}

// certified is for a signer that has a certificate already: fine if it is
// from this root key.
func (a *app) certified(c *cli.Context, store remote.Store, k *kit, writer string, n int, public []byte) error {
	object := remote.SignatureKey(remote.SignerKey(writer, n))
	signature, err := fetch(c.Context, store, object, identityLimit)
	if err != nil {
		return err
	}
	there, err := remote.ParseCertificate(k.Root.Public(), writer, n, public, signature)
	if err != nil {
		return fmt.Errorf("%s is there already but not of this kit's root key: %w; run \"vaultik init\" on that machine again, under another name", object, err)
	}
	if from := remote.Seq(c.Uint64("from")); c.IsSet("from") && there.From != from {
		return fmt.Errorf("signer %d of writer %q is certified already, from run %d on, and a certificate is never replaced; leave --from %d out",
			n, writer, uint64(there.From), uint64(from))
	}
	a.sayCertified("was certified already", writer, n, there.From, there.Key)
	return nil
}

func (a *app) sayCertified(how, writer string, n int, from remote.Seq, key remote.PublicKey) {
	a.ui.result(struct {
		Type   string     `json:"message_type"`
		Writer string     `json:"writer"`
		Signer int        `json:"signer"`
		From   remote.Seq `json:"from"`
		Key    string     `json:"key"`
	}{"certified", writer, n, from, key.String()})
	a.ui.say("signer %d of writer %s %s, from run %d on", n, writer, how, uint64(from))
	a.ui.say("key %s", key)
}
