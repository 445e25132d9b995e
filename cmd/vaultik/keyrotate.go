package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// keyRotate gives this machine a new signing key.
func (a *app) keyRotate(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	if c.IsSet("certified") && c.IsSet("kit") {
		return errors.New("--certified is for a key that was certified elsewhere; leave --kit out")
	}
	var k *kit.Kit
	if c.IsSet("kit") {
		if k, err = kit.Read(c.String("kit")); err != nil {
			return err
		}
	}
	w, err := a.findWriter(c)
	if err != nil {
		return err
	}
	if w.conf.RootKey.IsZero() {
		return fmt.Errorf("%s: root_key is missing, so nobody could tell which signing keys count", w.conf.Path())
	}
	unlock, err := state.Lock(w.where.State)
	if err != nil {
		return err
	}
	defer unlock()
	writer := w.conf.Writer.String()
	dir := filepath.Join(w.where.State, writer)
	next, err := indexedRun(c.Context, dir, writer)
	if err != nil {
		return err
	}
	if c.IsSet("certified") {
		return a.takeOver(dir, writer, next, remote.Seq(c.Uint64("certified")))
	}
	store, err := w.url.Open(c.Context, a.route())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := w.checkStore(c.Context, store); err != nil {
		return err
	}
	r := signing.Rotation{Store: store, Root: w.conf.RootKey.PublicKey, Writer: writer, Dir: dir, Random: a.random, From: next}
	lostKey, err := r.Check(c.Context)
	if err != nil {
		return err
	}
	if k != nil {
		cert, err := r.Rotate(c.Context, k.Root)
		if err != nil {
			return err
		}
		a.sayCertified("certified", cert)
		return nil
	}
	n, key, err := r.Propose(c.Context)
	if err != nil {
		return err
	}
	a.sayWaits(w, n, key.Public(), next, lostKey)
	return nil
}

// takeOver puts the next key in charge on a person's word.
func (a *app) takeOver(dir, writer string, next, from remote.Seq) error {
	key, err := signing.ReadKey(filepath.Join(dir, signing.NextKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no new signing key waits here; \"vaultik key rotate\" makes one")
	}
	switch {
	case err != nil:
		return err
	case next < from:
		return fmt.Errorf("the next run of writer %q is %d, and the old key signs the runs before %d; say --certified %d again when run %d is made",
			writer, uint64(next), uint64(from), uint64(from), uint64(from)-1)
	case next > from:
		return fmt.Errorf("run %d of writer %q is made already, signed by the old key, which is not in charge of it; "+
			"make another new key: remove %q, and run \"vaultik key rotate\" again", uint64(from), writer, filepath.Join(dir, signing.NextKeyFile))
	}
	if err := signing.Adopt(dir); err != nil {
		return err
	}
	a.ui.Say("the new signing key signs from run %d on", uint64(next))
	a.ui.Say("key %s", key.Public())
	return nil
}

func (a *app) sayWaits(w *writing, n int, key remote.PublicKey, next remote.Seq, lostKey bool) {
	writer := w.conf.Writer.String()
	from := remote.Seq(0)
	if lostKey {
		from = next
	}
	line := signing.CertifyCommand(writer, key, from, w.url)
	a.ui.Result(struct {
		Type    string `json:"message_type"`
		Writer  string `json:"writer"`
		Signer  int    `json:"signer"`
		Key     string `json:"key"`
		Certify string `json:"certify"` // the command, for where the kit is
	}{"waiting", writer, n, key.String(), line})
	a.ui.Say("signer %d of writer %s waits for its certificate; where the recovery kit is, run", n, writer)
	a.ui.Say("")
	a.ui.Say("  %s", line)
	a.ui.Say("")
	if lostKey {
		a.ui.Say("Until then this machine makes no backup: nobody would trust it.")
	} else {
		a.ui.Say("Until then the old key signs.")
	}
}

// indexedRun is the next run as the writer's index knows it.
func indexedRun(ctx context.Context, dir, writer string) (_ remote.Seq, err error) {
	x, err := index.Open(ctx, filepath.Join(dir, state.IndexFile), index.Options{})
	if err != nil {
		return 0, lost("index", writer, err)
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	return signing.NextRun(ctx, x)
}
