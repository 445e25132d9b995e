package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// How contents are cut and packed. Every reader copes with other values; a
// writer that changes them stores everything once more.
const (
	chunker  = "fastcdc-v1.0.0" // keyed with the writer's secret
	chunkMin = 256 << 10        // bytes
	chunkAvg = 1 << 20
	chunkMax = 4 << 20
	blobSize = 32 << 20 // ciphertext at which a blob is closed
)

func (a *app) backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up all sets of the config, or those named", ArgsUsage: "[SET…]",
		OnUsageError: usageError,
		Description:  "The options about leaving out add to what the config says.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "tag", Usage: "keep `TEXT` with the snapshot; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Aliases: []string{"e"}, Usage: "leave out what matches `PATTERN` (gitignore syntax); may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-file", Usage: "patterns from `FILE`; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-if-present", Usage: "leave out what is in folders that hold a file `NAME`; may be repeated"},
			&cli.StringFlag{Name: "exclude-larger-than", Usage: "leave out files of more than `SIZE`, such as 100MiB"},
			&cli.BoolFlag{Name: "exclude-caches", Usage: "leave out what is in folders marked by a CACHEDIR.TAG"},
			&cli.BoolFlag{Name: "one-file-system", Aliases: []string{"x"}, Usage: "leave out what is mounted below the paths"},
			&cli.BoolFlag{Name: "cron", Usage: "print nothing unless something is wrong"},
		},
		Action: a.backup,
	}
}

func (a *app) backup(c *cli.Context) (err error) {
	if c.Bool("cron") {
		a.ui.quiet = true
	}
	w, err := a.openWriter(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	worst := 0
	for _, set := range w.sets {
		err := a.backupSet(c, w, set)
		if c.Context.Err() != nil {
			return err
		}
		code := exitCode(err)
		if err != nil && !errors.Is(err, errIncomplete) {
			if len(w.sets) > 1 {
				err = fmt.Errorf("backup of %s: %w", set.Name, err)
			}
			a.ui.fail(err, code)
		}
		worst = worse(worst, code)
	}
	if worst != 0 {
		return &exitError{code: worst}
	}
	return nil
}

// writing is what a backup works with.
type writing struct {
	where  folders
	conf   *config
	url    storeURL
	config backup.Config
	sets   []backup.Set
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
	w = &writing{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.where, err = a.folders(c.String("config")); err != nil {
		return w, err
	}
	if w.conf, err = readConfig(w.where.config); err != nil {
		return w, err
	}
	a.useStateDir(&w.where, w.conf)
	if err := w.complete(c, a); err != nil {
		return w, err
	}
	if w.sets, err = w.chooseSets(c); err != nil {
		return w, err
	}
	unlock, err := lock(w.where.state)
	if err != nil {
		return w, err
	}
	w.closes = append(w.closes, func() error { unlock(); return nil })
	return w, a.wire(c.Context, w)
}

// complete makes sure that the config says all that a backup needs.
func (w *writing) complete(c *cli.Context, a *app) (err error) {
	missing := func(what string) error {
		return fmt.Errorf("%s: %s is missing; \"vaultik init\" writes a complete config", w.conf.path, what)
	}
	switch {
	case w.conf.Writer.string == "":
		return missing("writer")
	case len(w.conf.Recipients) == 0:
		return missing("recipients")
	case len(w.conf.Sets) == 0:
		return missing("a set, as [sets.default],")
	}
	address := c.String("store")
	if address == "" {
		address = a.env("VAULTIK_STORE")
	}
	if address != "" {
		w.url, err = parseStoreURL(address)
		return err
	}
	if w.conf.Store == nil {
		return missing("store")
	}
	w.url = *w.conf.Store
	return nil
}

// chooseSets are those named, or all of them, in the order of their names.
func (w *writing) chooseSets(c *cli.Context) ([]backup.Set, error) {
	names := c.Args().Slice()
	if len(names) == 0 {
		names = w.conf.setNames()
	}
	var sets []backup.Set
	for i, n := range names {
		conf, ok := w.conf.Sets[name{n}]
		if !ok {
			return nil, fmt.Errorf("%s has no set %q; it has %q", w.conf.path, n, w.conf.setNames())
		}
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("set %q is named twice", n)
		}
		set := backup.Set{Name: n, Tags: c.StringSlice("tag")}
		for _, p := range conf.Paths {
			set.Roots = append(set.Roots, p.string)
		}
		var err error
		if set.Rules, err = w.rules(c, conf); err != nil {
			return nil, fmt.Errorf("set %q: %w", n, err)
		}
		if _, err := backup.Compile(set.Rules, set.Roots); err != nil {
			return nil, fmt.Errorf("set %q: %w", n, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// rules are the set's, those of the options, and what is always left out.
func (w *writing) rules(c *cli.Context, conf setConfig) (backup.Rules, error) {
	r, err := conf.rules()
	if err != nil {
		return r, err
	}
	r.Patterns = append(r.Patterns, c.StringSlice("exclude")...)
	for _, file := range c.StringSlice("exclude-file") {
		patterns, err := readPatterns(file)
		if err != nil {
			return r, err
		}
		r.Patterns = append(r.Patterns, patterns...)
	}
	r.IfPresent = append(r.IfPresent, c.StringSlice("exclude-if-present")...)
	if s := c.String("exclude-larger-than"); s != "" {
		limit, err := parseSize(s)
		if err != nil {
			return r, fmt.Errorf("--exclude-larger-than: %w", err)
		}
		r.LargerThan = int64(limit)
	}
	r.CacheDirs = r.CacheDirs || c.Bool("exclude-caches")
	r.OneFileSystem = r.OneFileSystem || c.Bool("one-file-system")
	r.Always = []string{real(w.where.state), real(w.where.cache)}
	if w.url.folder != "" {
		r.Always = append(r.Always, real(w.url.folder))
	}
	return r, nil
}

// wire opens the writer's files and the store.
func (a *app) wire(ctx context.Context, w *writing) error {
	writer := w.conf.Writer.string
	dir := filepath.Join(w.where.state, writer)
	text, err := readSmall(filepath.Join(dir, signingKeyFile), 4096)
	if err != nil {
		return fmt.Errorf("signing key of writer %q: %w (was the state folder lost? then move the config away and run \"vaultik init\" again)", writer, err)
	}
	signer, err := remote.ParseSigningKey(string(text))
	if err != nil {
		return fmt.Errorf("%q: %w", filepath.Join(dir, signingKeyFile), err)
	}
	secret, err := readSecret(filepath.Join(dir, secretFile))
	if err != nil {
		return fmt.Errorf("chunker secret of writer %q: %w", writer, err)
	}
	host, err := a.hostname()
	if err != nil {
		return fmt.Errorf("ask for this machine's name: %w", err)
	}
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	store, err := w.url.open(ctx)
	if err != nil {
		return err
	}
	w.closes = append(w.closes, store.Close)
	index, err := metastore.OpenIndex(ctx, filepath.Join(dir, indexFile), metastore.Options{})
	if err != nil {
		return err
	}
	w.closes = append(w.closes, index.Close)
	b := buildInfo()
	w.config = backup.Config{
		Store: store, Index: index, Source: disk, Writer: writer, Hostname: host,
		Version: b.Version, Revision: b.Revision, Recipients: w.conf.recipients(), Signer: signer,
		Chunking: metastore.Chunking{Algorithm: chunker, Min: chunkMin, Avg: chunkAvg, Max: chunkMax, Secret: secret},
		Level:    seal.Level(w.conf.Compression), BlobSize: blobSize, Now: a.now,
	}
	return nil
}

// backupSet makes one snapshot and says what came of it.
func (a *app) backupSet(c *cli.Context, w *writing, set backup.Set) error {
	watch := &watcher{ui: a.ui, set: set.Name, now: a.now}
	conf := w.config
	conf.Report = watch.report
	r, err := backup.Run(c.Context, conf, set)
	a.ui.done()
	if err != nil {
		return err
	}
	if c.Bool("cron") && r.Incomplete() {
		a.ui.quiet = false // what was saved belongs to what went wrong
		defer func() { a.ui.quiet = true }()
	}
	a.summary(r)
	if r.Incomplete() {
		return errIncomplete
	}
	return nil
}

// summary says what a run did.
func (a *app) summary(r *backup.Result) {
	took := r.Finished.Sub(r.Started)
	problems := 0
	for _, p := range r.Problems {
		if p.Kind == backup.Unreadable || p.Kind == backup.Lost {
			problems++
		}
	}
	a.ui.result(struct {
		Type      string      `json:"message_type"`
		Snapshot  string      `json:"snapshot"`
		Set       string      `json:"set"`
		Seq       remote.Seq  `json:"seq"`
		Manifest  remote.Hash `json:"manifest"`
		Files     int64       `json:"files"`
		Changed   int64       `json:"changed"`
		Removed   int64       `json:"removed"`
		Bytes     int64       `json:"bytes"`
		BytesRead int64       `json:"bytes_read"`
		BytesNew  int64       `json:"bytes_new"`
		Stored    int64       `json:"bytes_stored"`
		Metadata  int64       `json:"bytes_metadata"`
		Blobs     int         `json:"blobs"`
		Missed    int         `json:"unreadable"`
		Complete  bool        `json:"complete"`
		Started   string      `json:"started"`
		Finished  string      `json:"finished"`
		Seconds   float64     `json:"seconds"`
	}{
		"summary", r.Snapshot, r.Set, r.Seq, r.Manifest, r.Entries, r.Changed, r.Removed, r.Bytes, r.Read, r.NewBytes, r.Stored, r.Metadata,
		r.Blobs, problems, !r.Incomplete(), r.Started.UTC().Format(time.RFC3339), r.Finished.UTC().Format(time.RFC3339), took.Seconds(),
	})
	a.ui.say("set %s: %s, %s; %s new or changed, %s gone", r.Set,
		plural(r.Entries, "entry", "entries"), size(r.Bytes), count(r.Changed), count(r.Removed))
	a.ui.say("read %s, %s of it new; stored %s in %s, and %s of metadata, in %s",
		size(r.Read), size(r.NewBytes), size(r.Stored), plural(int64(r.Blobs), "blob", "blobs"), size(r.Metadata), duration(took))
	if problems > 0 {
		a.ui.say("snapshot %s saved, but %s could not be read", r.Snapshot, plural(int64(problems), "source", "sources"))
		return
	}
	a.ui.say("snapshot %s saved", r.Snapshot)
}

// duration is a time span as people say it, with as many digits as they read.
func duration(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// watcher passes on the news of a run: problems at once, progress five times
// a second on a terminal, once a second as JSON.
type watcher struct {
	ui  *ui
	set string
	now func() time.Time

	mu   sync.Mutex
	last time.Time
}

func (w *watcher) report(e backup.Event) {
	if e.Problem != nil {
		w.problem(*e.Problem)
		return
	}
	every := 200 * time.Millisecond
	if w.ui.json {
		every = time.Second
	}
	w.mu.Lock()
	now := w.now()
	due := now.Sub(w.last) >= every
	if due {
		w.last = now
	}
	w.mu.Unlock()
	if !due {
		return
	}
	p := e.Progress
	if w.ui.json && !w.ui.quiet {
		w.ui.result(struct {
			Type    string `json:"message_type"`
			Set     string `json:"set"`
			Files   int64  `json:"files"`
			Changed int64  `json:"changed"`
			Read    int64  `json:"bytes_read"`
			New     int64  `json:"bytes_new"`
			Stored  int64  `json:"bytes_stored"`
		}{"status", w.set, p.Seen, p.Changed, p.Read, p.NewBytes, p.Stored})
		return
	}
	w.ui.progress("%s: %s entries, %s changed, read %s, stored %s  %s",
		w.set, count(p.Seen), count(p.Changed), size(p.Read), size(p.Stored), p.Path)
}

// problem tells one: what is missing always, the rest unless --quiet.
func (w *watcher) problem(p backup.Problem) {
	missing := p.Kind == backup.Unreadable || p.Kind == backup.Lost
	if w.ui.json {
		w.ui.result(struct {
			Type    string             `json:"message_type"`
			Set     string             `json:"set"`
			Kind    backup.ProblemKind `json:"kind"`
			Path    string             `json:"path"` // bytes that are not UTF-8 are replaced
			Message string             `json:"message"`
		}{"problem", w.set, p.Kind, p.Path, p.Err.Error()})
		return
	}
	text := p.Err.Error()
	if p.Path != "" {
		text = fmt.Sprintf("%s: %s: %v", p.Kind, quote(p.Path), p.Err)
	}
	if missing {
		w.ui.warn("%s", text)
	} else {
		w.ui.note("%s", text)
	}
}
