package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/setup"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) indexCommand() *cli.Command {
	return group("index", "work with this machine's record of its backups",
		&cli.Command{
			Name: "rebuild", OnUsageError: usageError,
			Usage: "make a lost index anew from the store",
			Description: "Reads the metadata of all this writer's snapshots, so that the next backup goes on\n" +
				"where the last one ended, reads what changed since, and uploads what the store does\n" +
				"not have. A lost chunker secret is put back. With the recovery kit a lost signing key\n" +
				"is replaced by a new one. Where the config is lost too: \"vaultik init --from-kit KIT\".",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "identity", Usage: "recovery kit or age identity `FILE`, \"-\" for standard input (VAULTIK_IDENTITY_FILE, VAULTIK_IDENTITY)"},
				&cli.BoolFlag{Name: "force", Usage: "also if the index is in order; the old one is kept beside it"},
			},
			Action: a.indexRebuild,
		})
}

func (a *app) indexRebuild(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	w, err := a.findWriter(c)
	if err != nil {
		return err
	}
	conf := w.conf
	r := setup.Revival{Machine: a.machine(), Where: w.where, URL: w.url}
	if r.ID, err = a.identity(c.Context, c.String("identity"), conf); err != nil {
		return err
	}
	if r.ID == nil {
		return errMissingIdentity()
	}
	if r.Root, err = rootOf(r.ID, conf); err != nil {
		return err
	}
	defer collectOften()()
	v, err := setup.OpenRevival(c.Context, r, func(store remote.Store) (string, error) {
		return conf.Writer.String(), w.checkStore(c.Context, store)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.RefuseHealthy(c.Bool("force")); err != nil {
		return err
	}
	made, err := v.RebuildIndex(c.Context)
	if err != nil {
		return err
	}
	if err := v.WriteSecret(); err != nil {
		return err
	}
	key, err := v.MakeKey(c.Context)
	if err != nil {
		return err
	}
	a.ui.Done()
	a.ui.Result(struct {
		Type      string `json:"message_type"`
		Writer    string `json:"writer"`
		Snapshots int64  `json:"snapshots"`
		Entries   int64  `json:"entries"`
		Blobs     int64  `json:"blobs"`
		Bytes     int64  `json:"bytes"`   // of the blobs
		Signer    string `json:"signer"`  // a new one; "" if the old one is there
		Certify   string `json:"certify"` // what has to be run where the kit is; "" if nothing
	}{"rebuilt", v.Writer, made.Runs, made.Entries, made.Blobs, made.Bytes, key.String(), key.Certify})
	a.ui.Say("the index of writer %s is made anew from %s", v.Writer, v.Sources(made))
	a.ui.Say("it knows %s, and %s with %s that need not be uploaded again",
		ui.Plural(made.Entries, "entry", "entries"), ui.Plural(made.Blobs, "blob", "blobs"), ui.Size(made.Bytes))
	v.SayKey(key)
	return nil
}

// rootOf is the root key that the config and the kit agree on.
func rootOf(id *kit.Identity, conf *config.Config) (root remote.PublicKey, err error) {
	if conf != nil {
		root = conf.RootKey.PublicKey
	}
	switch {
	case id.Kit == nil && root.IsZero():
		return root, errors.New("no root key: the config has none; give the recovery kit as --identity")
	case id.Kit == nil:
	case root.IsZero():
		root = id.Kit.Root.Public()
	case !root.Equal(id.Kit.Root.Public()):
		return root, fmt.Errorf("%w: the kit's root key is %s, this machine's config trusts %s; is this the kit of this store?",
			remote.ErrNotTrusted, id.Kit.Root.Public(), root)
	}
	return root, nil
}
