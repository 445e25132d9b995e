package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/urfave/cli/v2"

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
	var k *kit
	if c.IsSet("kit") {
		if k, err = readKit(c.String("kit")); err != nil {
			return err
		}
	}
	w := &writing{}
	if w.where, err = a.folders(c.String("config")); err != nil {
		return err
	}
	if w.conf, err = readConfig(w.where.config); err != nil {
		return err
	}
	a.useStateDir(&w.where, w.conf)
	if err := w.complete(c, a); err != nil {
		return err
	}
	if w.conf.RootKey.IsZero() {
		return fmt.Errorf("%s: root_key is missing, so nobody could tell which signing keys count", w.conf.path)
	}
	unlock, err := lock(w.where.state)
	if err != nil {
		return err
	}
	defer unlock()
	writer := w.conf.Writer.string
	dir := filepath.Join(w.where.state, writer)
	next, err := indexedRun(c.Context, dir, writer)
	if err != nil {
		return err
	}
	if c.IsSet("certified") {
		return a.takeOver(dir, writer, next, remote.Seq(c.Uint64("certified")))
	}
	store, err := w.url.open(c.Context, a.route())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := w.checkStore(c.Context, store); err != nil {
		return err
	}
	r := rotation{store: store, root: w.conf.RootKey.PublicKey, writer: writer, dir: dir, random: a.random, from: next}
	lostKey, err := r.check(c.Context)
	if err != nil {
		return err
	}
	if k != nil {
		cert, err := r.rotate(c.Context, k.Root)
		if err != nil {
			return err
		}
		a.sayCertified("certified", cert)
		return nil
	}
	n, key, err := r.propose(c.Context)
	if err != nil {
		return err
	}
	a.sayWaits(w, n, key.Public(), next, lostKey)
	return nil
}

// indexedRun is the next run as the writer's index knows it.
func indexedRun(ctx context.Context, dir, writer string) (_ remote.Seq, err error) {
	x, err := index.Open(ctx, filepath.Join(dir, indexFile), index.Options{})
	if err != nil {
		return 0, lost("index", writer, err)
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	return nextRun(ctx, x)
}

// check makes sure that a new key makes sense. lostKey: the machine has none
// that counts, so that no run can be made until the new one is certified.
func (r rotation) check(ctx context.Context) (lostKey bool, err error) {
	current, err := readSigningKey(filepath.Join(r.dir, signingKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	signers, err := remote.LoadSigners(ctx, r.store, r.root, r.writer)
	if errors.Is(err, remote.ErrDenied) {
		return false, nil // these credentials may only write
	}
	if err != nil {
		return false, err
	}
	c, certified := signers.InCharge(r.from)
	_, refused := signers.For(r.from)
	switch revoked := (*remote.Revoked)(nil); {
	case errors.As(refused, &revoked) && revoked.Seq > revoked.Revocation.Through+1:
		return false, revokedHere(revoked)
	case errors.As(refused, &revoked):
		return true, nil
	case !certified:
		return false, fmt.Errorf("this machine's signing key %s is not certified yet, so there is nothing to change; certify it first, with \"vaultik key certify %s\"",
			current.Public(), r.writer)
	}
	return !c.Key.Equal(current.Public()), nil
}

// takeOver puts the next key in charge on a person's word.
func (a *app) takeOver(dir, writer string, next, from remote.Seq) error {
	key, err := readSigningKey(filepath.Join(dir, nextKeyFile))
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
			"make another new key: remove %q, and run \"vaultik key rotate\" again", uint64(from), writer, filepath.Join(dir, nextKeyFile))
	}
	if err := adopt(dir); err != nil {
		return err
	}
	a.ui.say("the new signing key signs from run %d on", uint64(next))
	a.ui.say("key %s", key.Public())
	return nil
}

func (a *app) sayWaits(w *writing, n int, key remote.PublicKey, next remote.Seq, lostKey bool) {
	writer := w.conf.Writer.string
	from := remote.Seq(0)
	if lostKey {
		from = next
	}
	line := certifyLine(writer, key, from, w.url)
	a.ui.result(struct {
		Type    string `json:"message_type"`
		Writer  string `json:"writer"`
		Signer  int    `json:"signer"`
		Key     string `json:"key"`
		Certify string `json:"certify"` // the command, for where the kit is
	}{"waiting", writer, n, key.String(), line})
	a.ui.say("signer %d of writer %s waits for its certificate; where the recovery kit is, run", n, writer)
	a.ui.say("")
	a.ui.say("  %s", line)
	a.ui.say("")
	if lostKey {
		a.ui.say("Until then this machine makes no backup: nobody would trust it.")
	} else {
		a.ui.say("Until then the old key signs.")
	}
}
