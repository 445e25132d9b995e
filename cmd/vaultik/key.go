package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) keyCommand() *cli.Command {
	kitFlag := &cli.StringFlag{Name: "kit", Usage: "recovery kit `FILE`, which holds the root key"}
	return group("key", "list, certify, change and revoke signing keys",
		&cli.Command{
			Name: "list", ArgsUsage: "[WRITER…]", OnUsageError: usageError,
			Usage:  "list the signing keys in the store and what the root key says of them; needs no identity",
			Flags:  readingFlags(),
			Action: a.keyList,
		},
		&cli.Command{
			Name: "certify", ArgsUsage: "WRITER…", OnUsageError: usageError,
			Usage: "certify a machine's signing key with the kit's root key",
			Description: "Give --key as \"vaultik init\" or \"key rotate\" printed it on that machine: then a key that\n" +
				"somebody else put into the store cannot be certified by mistake.\n\n" +
				"A first key is certified from run 1 on. One that follows another is from the run after\n" +
				"the next one, which may be under way with the old key.\n\n" +
				"With --maintainer, the key given is put beside the writers' own, and may forget their\n" +
				"snapshots, whoever has it: it signs what \"snapshot purge\" does, and nothing else.",
			Flags: []cli.Flag{
				kitFlag,
				&cli.StringFlag{Name: "key", Usage: "the public signing `KEY` that must be there, or a file with it"},
				&cli.IntFlag{Name: "signer", Usage: "the signer's `NUMBER` (default: the one that waits)"},
				&cli.Uint64Flag{Name: "from", Usage: "the first run that it signs, a `NUMBER`"},
				&cli.BoolFlag{Name: "purge-maintainer", Usage: "the machine's key may not forget snapshots, a maintainer's may (default: as the key before)"},
				&cli.BoolFlag{Name: "maintainer", Usage: "certify --key as a maintainer's"},
				&cli.BoolFlag{Name: "all-writers", Usage: "with --maintainer: of every writer in the store"},
			},
			Action: a.certify,
		},
		&cli.Command{
			Name: "rotate", OnUsageError: usageError,
			Usage: "make this machine a new signing key, also where the old one was lost or revoked",
			Description: "With the kit, the new key signs from the next run on. Without it, the key waits: the old\n" +
				"one signs until the new one is certified with \"key certify\", where the kit is.\n\n" +
				"With credentials that may only put objects, a backup cannot see whether the key is\n" +
				"certified: say --certified FROM when the next run is the one from which it is.",
			Flags: []cli.Flag{
				kitFlag,
				&cli.Uint64Flag{Name: "certified", Usage: "the new key is certified from the run `FROM` on; take that on trust"},
			},
			Action: a.keyRotate,
		},
		&cli.Command{
			Name: "revoke", ArgsUsage: "WRITER…", OnUsageError: usageError,
			Usage: "revoke a signing key that somebody else may have, with the kit's root key",
			Description: "What the key signed up to the run --through still counts, and so do its tombstones of\n" +
				"snapshots that are gone. Nothing else that it signed does, whenever that was. The\n" +
				"objects that count no more are listed: who may delete objects should delete them,\n" +
				"because the writer needs their places.\n\n" +
				"Take the bucket's credentials from the thief first: whoever may delete objects can\n" +
				"delete a revocation as well.",
			Flags: []cli.Flag{
				kitFlag,
				&cli.StringFlag{Name: "key", Usage: "the public signing `KEY`, or a file with it"},
				&cli.IntFlag{Name: "signer", Usage: "the signer's `NUMBER`, instead of --key"},
				&cli.StringFlag{Name: "through", Usage: "the last `RUN` of the key that still counts, or none (default, where another key took over: the last before that)"},
				&cli.BoolFlag{Name: "keep-tombstones", Usage: "its tombstones of snapshots that are still there count, too"},
				&cli.BoolFlag{Name: "all-writers", Usage: "with --key: of every writer in the store that has this key"},
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be revoked and what would count no more"},
			},
			Action: a.keyRevoke,
		},
		&cli.Command{
			Name: "generate", ArgsUsage: "FILE", OnUsageError: usageError,
			Usage: "make a key for a maintainer: the secret half in FILE, the public one in FILE.pub",
			Description: "The files are minisign's, without a password: \"minisign -G -W\" makes such, too. Certify\n" +
				"the public half with \"key certify --maintainer\".",
			Action: a.keyGenerate,
		})
}

// kitStore is the kit and the store that it, or an option, names.
type kitStore struct {
	stores.Store
	kit *kit.Kit
	url stores.URL
}

// openKitStore reads the kit of --kit and opens its store.
func (a *app) openKitStore(c *cli.Context) (*kitStore, error) {
	k, err := kit.Read(c.String("kit"))
	if err != nil {
		return nil, err
	}
	address := cmp.Or(a.storeAddress(c), k.Store)
	u, err := stores.ParseURL(address)
	if err != nil {
		return nil, err
	}
	store, err := u.Open(c.Context, a.route())
	if err != nil {
		return nil, err
	}
	return &kitStore{store, k, u}, nil
}

// keyOption reads --key: a public key, or a file with one. Without it the key
// is zero.
func keyOption(c *cli.Context) (remote.PublicKey, error) {
	given := c.String("key")
	if given == "" {
		return remote.PublicKey{}, nil
	}
	key, err := remote.ParsePublicKey(given)
	if err == nil {
		return key, nil
	}
	text, unread := state.ReadFile(given, kit.MaxSize)
	if unread != nil {
		return key, fmt.Errorf("--key is not a signing key as \"vaultik init\" prints it, RW…, nor a file with one: %w", err)
	}
	if key, err = remote.ParsePublicKey(string(text)); err != nil {
		return key, fmt.Errorf("--key %q: %w; give the public half, FILE.pub", given, err)
	}
	return key, nil
}

// keyGenerate makes a maintainer's key.
func (a *app) keyGenerate(c *cli.Context) error {
	if err := words(c, 1, 1); err != nil {
		return err
	}
	path, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	key, err := remote.GenerateSigningKey(a.random)
	if err != nil {
		return err
	}
	if err := state.Create(path, []byte(key.Text())); err != nil {
		return err
	}
	if err := state.Create(path+".pub", key.Public().File()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	a.ui.Result(struct {
		Type   string `json:"message_type"`
		Secret string `json:"secret"`
		Public string `json:"public"`
		Key    string `json:"key"`
	}{"generated", path, path + ".pub", key.Public().String()})
	a.ui.Say("secret key %s, without a password: keep it on the machine that forgets snapshots, and nowhere else", ui.Quote(path))
	a.ui.Say("public key %s", ui.Quote(path+".pub"))
	a.ui.Say("%s", key.Public())
	return nil
}
