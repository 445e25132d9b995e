package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote"
)

// reading is what the commands that look into a store have in common. With a
// config they need nothing else; without one, --store and --root or the
// recovery kit make up for it.
type reading struct {
	where state.Folders
	conf  *config.Config // nil: this machine has none
	url   stores.URL
	store stores.Store
	root  remote.PublicKey
	id    *kit.Identity // nil if none was given
	own   string        // this machine's writer in the store; "" if it is none
	seen  *remote.Seen  // nil if it cannot be kept
	past  bool          // the store is shown as it was: --as-of
	temp  string        // folder to remove in the end; "" if there is none
	wrong []error       // what is wrong with the store; it was told

	cacheSize int64 // bytes of fetched contents to keep; 0: none
}

// readingFlags are the options of commands that need no identity.
func readingFlags(more ...cli.Flag) []cli.Flag {
	return append(append(more,
		&cli.StringFlag{Name: "identity", Usage: "recovery kit or age identity `FILE`, \"-\" for standard input (VAULTIK_IDENTITY_FILE, VAULTIK_IDENTITY)"},
		&cli.StringFlag{Name: "root", Usage: "public root `KEY` (default: the kit's or the config's)"},
		asOfFlag()), cacheFlags()...)
}

// open gets a reading command ready. Where an identity is not needed, none is
// asked for, but a kit that was given tells store and root key.
func (a *app) open(c *cli.Context, needIdentity bool) (_ *reading, err error) {
	r := &reading{}
	if r.where, err = state.Find(a.env, a.root, c.String("config")); err != nil {
		return nil, err
	}
	if r.where.Config != "" {
		r.conf, err = config.Read(r.where.Config)
	}
	if errors.Is(err, config.ErrMissing) {
		if named := c.String("config"); named != "" {
			return nil, fmt.Errorf("%w: %q does not exist; correct --config or leave it out: the recovery kit, as --identity KIT, says all that is needed to read", config.ErrMissing, named)
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	a.useStateDir(&r.where, r.conf)
	if kit := c.String("kit"); kit != "" { // of a command that needs no identity, but the root key
		if r.id, err = kitAlone(kit); err != nil {
			return nil, err
		}
	} else if needIdentity || c.String("identity") != "" || a.env("VAULTIK_IDENTITY") != "" || a.env("VAULTIK_IDENTITY_FILE") != "" {
		if r.id, err = a.identity(c.Context, c.String("identity"), r.conf); err != nil {
			return nil, err
		}
		if r.id == nil {
			return nil, errMissingIdentity()
		}
	}
	if err := a.findStore(c, r); err != nil {
		return nil, err
	}
	if err := findRoot(c, r); err != nil {
		return nil, err
	}
	if err := r.chooseCache(c); err != nil {
		return nil, err
	}
	if r.store, err = r.url.Open(c.Context, a.route()); err != nil {
		return nil, err
	}
	if locking, ok := r.store.(remote.Locking); ok && r.conf != nil && r.conf.Store != nil && r.conf.Store.String() == r.url.String() {
		locking.LockPuts(r.conf.Lock(a.now)) // if the command puts anything
	}
	if err := errors.Join(a.goBack(c, r), r.needCache()); err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	r.store = a.cached(r)
	if r.past {
		return r, nil // an older state is no rollback, and nothing to remember
	}
	if r.seen, err = state.OpenSeen(r.where.State); err != nil {
		a.ui.Warn("what this store shows cannot be remembered, so that a rollback would go unnoticed: %v", err)
	}
	return r, nil
}

func (r *reading) Close() error {
	err := r.store.Close()
	if r.temp != "" {
		err = errors.Join(err, os.RemoveAll(r.temp))
	}
	return err
}

// useStateDir lets the config's state_dir count where the environment is
// silent.
func (a *app) useStateDir(where *state.Folders, c *config.Config) {
	if c != nil && c.StateDir.String() != "" && a.env("VAULTIK_STATE_DIR") == "" {
		where.State = c.StateDir.String()
	}
}

// findStore decides which store, and by that who is meant by "this writer".
func (a *app) findStore(c *cli.Context, r *reading) (err error) {
	address := a.storeAddress(c)
	switch {
	case address != "":
		if r.url, err = stores.ParseURL(address); err != nil {
			return err
		}
	case r.conf != nil && r.conf.Store != nil:
		r.url = *r.conf.Store
	case r.id != nil && r.id.Kit != nil:
		if r.url, err = stores.ParseURL(r.id.Kit.Store); err != nil {
			return err
		}
	default:
		return errors.New("no store given; add --store URL, or --identity KIT with a recovery kit, which names it")
	}
	if r.conf != nil && r.conf.Store != nil && r.conf.Store.String() == r.url.String() {
		r.own = r.conf.Writer.String()
	}
	return nil
}

// findRoot decides whom to trust: what was said last counts.
func findRoot(c *cli.Context, r *reading) (err error) {
	switch {
	case c.String("root") != "":
		if r.root, err = remote.ParsePublicKey(c.String("root")); err != nil {
			return fmt.Errorf("--root: %w", err)
		}
	case r.id != nil && r.id.Kit != nil:
		r.root = r.id.Kit.Root.Public()
	case r.conf != nil && !r.conf.RootKey.IsZero():
		r.root = r.conf.RootKey.PublicKey
	default:
		return errors.New("no root key given, so that nothing in the store could be trusted; add --root KEY, as the recovery kit states it, or --identity KIT")
	}
	return nil
}

// catalog reads all manifests of the store and says what is wrong with them.
// Without a single snapshot that is trusted, but with some that are not, the
// command has failed.
func (a *app) catalog(ctx context.Context, r *reading) (*fs.Catalog, error) {
	c, err := r.newCatalog(r.seen)
	if err != nil {
		return nil, err
	}
	_, err = c.Refresh(ctx)
	shown, flaws := len(c.Snapshots()), c.Problems()
	switch none := r.noneCertified(flaws, c.Writers()); {
	case err != nil && shown == 0:
	case none != nil:
		err = none
	case len(flaws) > 0 && shown == 0:
		err = errors.Join(flaws...)
	case len(c.Writers()) == 0:
		err = r.noWriter()
	default:
		if err != nil {
			flaws = append([]error{err}, flaws...)
		}
		a.tell(r, flaws)
		return c, nil
	}
	return nil, errors.Join(err, c.Close())
}

// newCatalog makes a catalogue that has not looked yet.
func (r *reading) newCatalog(seen *remote.Seen) (*fs.Catalog, error) {
	o := fs.CatalogOptions{Store: r.store, StoreID: r.url.String(), Root: r.root, Cache: r.where.Cache, Seen: seen}
	if r.id != nil {
		o.Identities = r.id.Keys
	}
	if err := state.MakePrivate(r.where.Cache); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	return fs.NewCatalog(o)
}

// writers are the names of the store's writers, or only the one that is asked
// for. That there is none at all is an error.
func (r *reading) writers(ctx context.Context, only string) ([]string, error) {
	names, err := remote.WritersToRead(ctx, r.store, r.seen, r.url.String())
	switch {
	case err != nil:
		return nil, err
	case len(names) == 0:
		return nil, r.noWriter()
	case only != "":
		return pick(names, only)
	}
	return names, nil
}

func pick(names []string, only string) ([]string, error) {
	for _, n := range names {
		if n == only {
			return []string{n}, nil
		}
	}
	return nil, fmt.Errorf("the store has no writer %q; it has %s", only, ui.QuoteAll(names))
}

// noWriter: a store that somebody set up has a writer.
func (r *reading) noWriter() error {
	if r.past {
		return fmt.Errorf("%w: at the time that --as-of says there was no writer in %q yet, or the store has not kept what there was", remote.ErrNoStore, r.url.String())
	}
	return fmt.Errorf("%w: there is no writer in %q; is its disk mounted, and is the address right?", remote.ErrNoStore, r.url.String())
}

// noneCertified is the error if the root key has certified nobody: where one
// key is wrong, nobody wants to read about every writer. If all that is
// missing is its word, they are told one by one, with what to do.
func (r *reading) noneCertified(flaws []error, writers []string) error {
	refused, waiting := 0, true
	for _, err := range flaws {
		if u := (*remote.Uncertified)(nil); errors.As(err, &u) {
			refused++
			waiting = waiting && u.Waiting() && u.Before == nil
		}
	}
	switch {
	case refused == 0 || refused < len(writers):
		return nil
	case waiting:
		return errors.Join(flaws...)
	}
	return fmt.Errorf("%w: nothing in %q is certified by root key %s; is this the kit or the root key of this store? (its writers: %s)",
		remote.ErrNotTrusted, r.url.String(), r.root, ui.QuoteAll(writers))
}

// tell warns of what is wrong with a store, and keeps for verdict what is more
// than a machine that was not certified yet.
func (a *app) tell(r *reading, flaws []error) {
	for _, err := range flaws {
		a.ui.Warn("%v", err)
		if u := (*remote.Uncertified)(nil); !errors.As(err, &u) || u.Before != nil {
			r.wrong = append(r.wrong, err)
		}
	}
}

// verdict is how a command ends that has shown all that it could of a store
// with which something may be wrong.
func (r *reading) verdict() error {
	if len(r.wrong) == 0 {
		return nil
	}
	return &exitError{code: exitCode(errors.Join(r.wrong...))} // told above
}

// identity is the one that the option, the environment or the config tells; nil
// if none of them does.
func (a *app) identity(ctx context.Context, option string, conf *config.Config) (*kit.Identity, error) {
	s := kit.Sources{Option: option, Env: a.env, Stdin: a.stdin, Stderr: a.stderr}
	if conf != nil {
		s.Command = conf.IdentityCommand
	}
	return s.Find(ctx)
}

// errMissingIdentity tells how to give one.
func errMissingIdentity() error {
	return fmt.Errorf("%w: give the recovery kit, or another file with the age identity, as --identity FILE "+
		"(or VAULTIK_IDENTITY_FILE, VAULTIK_IDENTITY, identity_command in the config)", kit.ErrNoIdentity)
}
