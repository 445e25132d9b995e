package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/metastore/index"
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
	r := revival{}
	if r.where, err = a.folders(c.String("config")); err != nil {
		return err
	}
	conf, err := readConfig(r.where.config)
	if err != nil {
		return err
	}
	a.useStateDir(&r.where, conf)
	w := &writing{where: r.where, conf: conf}
	if err := w.complete(c, a); err != nil {
		return err
	}
	r.url = w.url
	if r.id, err = a.identity(c.Context, c.String("identity"), conf); err != nil {
		return err
	}
	if r.id == nil {
		return errMissingIdentity()
	}
	if r.root, err = rootOf(r.id, conf); err != nil {
		return err
	}
	defer collectOften()()
	v, err := a.openRevival(c.Context, r, func(store remote.Store) (string, error) {
		return conf.Writer.string, w.checkStore(c.Context, store)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	if err := v.refuseHealthy(c.Bool("force")); err != nil {
		return err
	}
	made, err := v.index(c.Context)
	if err != nil {
		return err
	}
	if err := v.writeSecret(); err != nil {
		return err
	}
	key, certify, err := v.makeKey(c.Context)
	if err != nil {
		return err
	}
	a.ui.done()
	a.ui.result(struct {
		Type      string `json:"message_type"`
		Writer    string `json:"writer"`
		Snapshots int64  `json:"snapshots"`
		Entries   int64  `json:"entries"`
		Blobs     int64  `json:"blobs"`
		Bytes     int64  `json:"bytes"`   // of the blobs
		Signer    string `json:"signer"`  // a new one; "" if the old one is there
		Certify   string `json:"certify"` // what has to be run where the kit is; "" if nothing
	}{"rebuilt", v.writer, made.Runs, made.Entries, made.Blobs, made.Bytes, textOf(key), certify})
	a.ui.say("the index of writer %s is made anew from %s", v.writer, v.sources(made))
	a.ui.say("it knows %s, and %s with %s that need not be uploaded again",
		plural(made.Entries, "entry", "entries"), plural(made.Blobs, "blob", "blobs"), size(made.Bytes))
	v.sayKey(key, certify)
	return nil
}

// sayKey tells of a new signing key, if there is one.
func (r *revival) sayKey(key remote.PublicKey, certify string) {
	switch {
	case certify != "":
		r.app.ui.say("the signing key was lost; a new one is made, and signs once it is certified; where the recovery kit is, run")
		r.app.ui.say("")
		r.app.ui.say("  %s", certify)
	case !key.IsZero():
		r.app.ui.say("the signing key was lost; a new one is made and certified from run %d on: %s", uint64(r.firstFree()), key)
	}
}

func textOf(key remote.PublicKey) string {
	if key.IsZero() {
		return ""
	}
	return key.String()
}

// rootOf is the root key that the config and the kit agree on.
func rootOf(id *identity, conf *config) (root remote.PublicKey, err error) {
	if conf != nil {
		root = conf.RootKey.PublicKey
	}
	switch {
	case id.kit == nil && root.IsZero():
		return root, errors.New("no root key: the config has none; give the recovery kit as --identity")
	case id.kit == nil:
	case root.IsZero():
		root = id.kit.Root.Public()
	case !root.Equal(id.kit.Root.Public()):
		return root, fmt.Errorf("%w: the kit's root key is %s, this machine's config trusts %s; is this the kit of this store?",
			remote.ErrNotTrusted, id.kit.Root.Public(), root)
	}
	return root, nil
}

// refuseHealthy stops where the index is there and of use. One that has decided
// on a commit is not given up even by force: the store may have got it, or get it
// yet.
func (r *revival) refuseHealthy(force bool) error {
	status := r.there
	switch {
	case r.decided():
		return fmt.Errorf("the index %q is there and in the middle of committing run %d; run \"vaultik backup\" first, which finishes it",
			r.file(indexFile), uint64(r.next))
	case force:
		return nil
	case r.unread != nil || status == nil:
		return r.unread
	}
	there := fmt.Sprintf("the index %q is there and in order: it belongs to writer %q and knows its runs up to %d, the store has run %d",
		r.file(indexFile), status.Writer, status.LastSeq, uint64(r.next)-1)
	if status.LastSeq == int64(r.next)-1 {
		return fmt.Errorf("%s; nothing is lost, and \"vaultik backup\" goes on from it (--force makes it anew all the same, and keeps the old one)", there)
	}
	return fmt.Errorf("%s; if it is an old copy, --force makes it anew and keeps the old one; "+
		"if another machine is at work as this writer, this one must become a new writer instead", there)
}

// unfinished looks for a run that was decided on and not committed. If it was
// signed its number is taken, and only the index that has it can finish it.
func (r *revival) unfinished(ctx context.Context) error {
	key := remote.SignatureKey(remote.ManifestKey(r.writer, r.next))
	signature, err := fetch(ctx, r.store, key, identityLimit)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("look for an unfinished run: %w", err)
	}
	r.there, r.unread = r.standing(ctx)
	if err != nil || r.decided() && bytes.Equal(signature, r.there.Intent.Signature) {
		return nil
	}
	return fmt.Errorf("run %d of writer %q was interrupted in the middle of its commit: its signature is in the store, its manifest is not, and no index that is here can finish it. "+
		"If no other machine is at work as this writer, delete the object %s from the store, and run this again", uint64(r.next), r.writer, key)
}

// decided reports whether the index has an intent for the next run: its bytes,
// and no others, are what that run commits.
func (r *revival) decided() bool {
	s := r.there
	return s != nil && s.Writer == r.writer && s.Intent != nil && s.Intent.Seq == int64(r.next)
}

// firstFree is the first run that is not signed yet.
func (r *revival) firstFree() remote.Seq {
	if r.decided() {
		return r.next + 1
	}
	return r.next
}

// standing is where the index stands; nil if there is none, or none of use.
func (r *revival) standing(ctx context.Context) (*index.Status, error) {
	x, err := index.Open(ctx, r.file(indexFile), index.Options{})
	if err == nil {
		var status index.Status
		if err = x.Verify(ctx); err == nil {
			status, err = x.Status(ctx)
		}
		if err = errors.Join(err, x.Close()); err == nil {
			return &status, nil
		}
	}
	switch {
	case errors.Is(err, iofs.ErrNotExist):
	case errors.Is(err, index.ErrNotIndex), errors.Is(err, index.ErrDamaged), errors.Is(err, index.ErrVersion):
		r.app.ui.warn("%v", err)
	default:
		return nil, err
	}
	return nil, nil
}
