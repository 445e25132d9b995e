package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// How contents are cut and packed. Every reader copes with other values; a
// writer that changes them stores everything once more.
const (
	chunker  = "fastcdc-v1.0.0" // keyed with the writer's secret
	chunkMin = 256 << 10        // bytes
	chunkAvg = 1 << 20
	chunkMax = 4 << 20
	blobSize = 16 << 20 // ciphertext at which a blob is closed
)

// writing is what a backup works with.
type writing struct {
	where  state.Folders
	conf   *config.Config
	url    stores.URL
	config backup.Config
	sets   []backup.Set
	route  stores.Route // to the store
	closes []func() error
}

// close lets go of everything, in the reverse order.
func (w *writing) close() error {
	var all []error
	for _, f := range slices.Backward(w.closes) {
		all = append(all, f())
	}
	w.closes = nil
	return errors.Join(all...)
}

// openWriter gets everything ready, the lock first, the store last.
func (a *app) openWriter(c *cli.Context) (w *writing, err error) {
	if w, err = a.findWriter(c); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	w.route = a.route()
	if w.route.Limit, err = uploadLimit(c, w.conf); err != nil {
		return w, err
	}
	if w.sets, err = w.chooseSets(c); err != nil {
		return w, err
	}
	unlock, err := state.Lock(w.where.State)
	if err != nil {
		return w, err
	}
	w.closes = append(w.closes, func() error { unlock(); return nil })
	return w, a.wire(c.Context, w)
}

// findWriter reads what this machine is as a writer, and opens nothing.
func (a *app) findWriter(c *cli.Context) (w *writing, err error) {
	w = &writing{}
	if w.where, err = state.FindAll(a.env, a.root, c.String("config")); err != nil {
		return nil, err
	}
	if w.conf, err = config.Read(w.where.Config); err != nil {
		return nil, err
	}
	a.useStateDir(&w.where, w.conf)
	return w, w.complete(c, a)
}

// complete makes sure that the config says all that a backup needs.
func (w *writing) complete(c *cli.Context, a *app) (err error) {
	missing := func(what string) error {
		return fmt.Errorf("%s: %s is missing; \"vaultik init\" writes a complete config", w.conf.Path(), what)
	}
	switch {
	case w.conf.Writer.String() == "":
		return missing("writer")
	case len(w.conf.Recipients) == 0:
		return missing("recipients")
	case len(w.conf.Sets) == 0:
		return missing("a set, as [sets.default],")
	}
	if c.IsSet("compression") {
		if err := w.conf.Compression.UnmarshalText([]byte(c.String("compression"))); err != nil {
			return fmt.Errorf("--compression: %w", err)
		}
	}
	address := a.storeAddress(c)
	if address != "" {
		w.url, err = stores.ParseURL(address)
		return err
	}
	if w.conf.Store == nil {
		return missing("store")
	}
	w.url = *w.conf.Store
	return nil
}

// chooseSets are those named, or all of them, in the order of the config.
func (w *writing) chooseSets(c *cli.Context) ([]backup.Set, error) {
	names := c.Args().Slice()
	if len(names) == 0 {
		names = w.conf.SetNames()
	}
	var sets []backup.Set
	for i, n := range names {
		conf, ok := w.conf.Set(n)
		if !ok {
			return nil, fmt.Errorf("%s has no set %q; it has %s", w.conf.Path(), n, ui.QuoteAll(w.conf.SetNames()))
		}
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("set %q is named twice", n)
		}
		set := backup.Set{Name: n, Tags: c.StringSlice("tag")}
		if err := checkTags(set.Tags); err != nil {
			return nil, err
		}
		for _, p := range conf.Paths {
			set.Roots = append(set.Roots, p.String())
		}
		var err error
		if set.Rules, err = w.rules(c, conf); err != nil {
			return nil, fmt.Errorf("set %q: %w", n, err)
		}
		if _, err := exclude.Compile(set.Rules, set.Roots); err != nil {
			return nil, fmt.Errorf("set %q: %w", n, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// rules are the set's, those of the options, and what is always left out.
func (w *writing) rules(c *cli.Context, conf config.Set) (exclude.Rules, error) {
	r, err := conf.Rules()
	if err != nil {
		return r, err
	}
	r.Patterns = append(r.Patterns, c.StringSlice("exclude")...)
	for _, file := range c.StringSlice("exclude-file") {
		patterns, err := config.ReadPatterns(file)
		if err != nil {
			return r, err
		}
		r.Patterns = append(r.Patterns, patterns...)
	}
	r.IfPresent = append(r.IfPresent, c.StringSlice("exclude-if-present")...)
	if s := c.String("exclude-larger-than"); s != "" {
		limit, err := config.ParseSize(s)
		if err != nil {
			return r, fmt.Errorf("--exclude-larger-than: %w", err)
		}
		r.LargerThan = int64(limit)
	}
	r.CacheDirs = r.CacheDirs || c.Bool("exclude-caches")
	r.OneFileSystem = r.OneFileSystem || c.Bool("one-file-system")
	r.Always = []string{state.Resolve(w.where.State), state.Resolve(w.where.Cache)}
	if w.url.Folder() != "" {
		r.Always = append(r.Always, state.Resolve(w.url.Folder()))
	}
	return r, nil
}

// wire opens the writer's files and the store.
func (a *app) wire(ctx context.Context, w *writing) error {
	writer := w.conf.Writer.String()
	dir := filepath.Join(w.where.State, writer)
	secret, err := state.ReadSecret(filepath.Join(dir, state.SecretFile))
	if err != nil {
		return lost("chunker secret", writer, err)
	}
	host, err := a.hostname()
	if err != nil {
		return fmt.Errorf("ask for this machine's name: %w", err)
	}
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	store, err := w.url.Open(ctx, w.route)
	if err != nil {
		return err
	}
	w.closes = append(w.closes, store.Close)
	if err := stores.LockUploads(ctx, store, w.conf.Lock(a.now)); err != nil {
		return err
	}
	if err := w.checkStore(ctx, store); err != nil {
		return err
	}
	for _, set := range w.sets {
		for _, path := range set.Roots {
			if why := leftOut(ctx, disk, set.Rules.Always, path); why != "" {
				a.ui.Warn("set %s: %q is always left out: %s", set.Name, path, why)
			}
		}
	}
	x, err := index.Open(ctx, filepath.Join(dir, state.IndexFile), index.Options{})
	if err != nil {
		return lost("index", writer, err)
	}
	w.closes = append(w.closes, x.Close)
	signer, err := a.signer(ctx, w, store, x)
	if err != nil {
		return err
	}
	b := buildInfo()
	w.config = backup.Config{
		Store: store, Index: x, Source: disk, Writer: writer, Hostname: host,
		Version: b.Version, Revision: b.Revision, Recipients: w.conf.PublicKeys(), Signer: signer,
		Chunking: metastore.Chunking{Algorithm: chunker, Min: chunkMin, Avg: chunkAvg, Max: chunkMax, Secret: secret},
		Level:    seal.Level(w.conf.Compression), BlobSize: blobSize, Now: a.now,
		Root: w.conf.RootKey.PublicKey, CompactPerRun: int64(w.conf.CompactPerRun), ResealPerRun: int64(w.conf.ResealPerRun),
	}
	return nil
}

// uploadLimit is what all uploads of a run share: the option's rate, else the
// config's.
func uploadLimit(c *cli.Context, conf *config.Config) (*rate.Limiter, error) {
	r := conf.LimitUpload
	if s := c.String("limit-upload"); c.IsSet("limit-upload") {
		var err error
		if r, err = config.ParseRate(s); err != nil {
			return nil, fmt.Errorf("--limit-upload: %w", err)
		}
	}
	if r == 0 {
		return nil, nil
	}
	return rate.NewLimiter(rate.Limit(r), rateBurst), nil
}

// rateBurst is what may go out at once after a pause, in bytes.
const rateBurst = 256 << 10
