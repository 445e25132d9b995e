package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// revivedSet is a set as its newest snapshot describes it.
type revivedSet struct {
	name     string
	paths    []string
	excludes []string
}

// fromKit sets a machine up as the writer that it was: what was lost of config,
// signing key, chunker secret and index is made anew from the kit and the
// store; what is there stays. The config comes last, so that a machine without
// one is not set up, and the command can be given again.
func (a *app) fromKit(c *cli.Context) (err error) {
	for _, name := range []string{"kit", "root", "x25519"} {
		if c.IsSet(name) {
			return fmt.Errorf("--%s does not go with --from-kit, which brings back what was there", name)
		}
	}
	r := revival{}
	if r.where, err = a.folders(c.String("config")); err != nil {
		return err
	}
	s := &setup{app: a, where: r.where}
	if err := s.refuseExisting(); err != nil {
		return err
	}
	if r.id, err = a.identity(c.Context, c.String("from-kit"), nil); err != nil {
		return err
	}
	if r.id.kit == nil {
		return fmt.Errorf("%w: %q is an age identity without a root key; --from-kit needs the recovery kit", errNoIdentity, r.id.from)
	}
	address := c.String("store")
	if address == "" {
		address = a.env("VAULTIK_STORE")
	}
	if address == "" {
		address = r.id.kit.Store
	}
	if r.url, err = parseStoreURL(address); err != nil {
		return err
	}
	r.root = r.id.kit.Root.Public()
	defer collectOften()()
	v, err := a.openRevival(c.Context, r, func(store remote.Store) (string, error) { return chooseWriter(c, store, r.url) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	s.url, s.writer, s.rootPublic = v.url, v.writer, v.root
	return v.machine(c, s)
}

// machine makes everything that is not there.
func (r *revival) machine(c *cli.Context, s *setup) (err error) {
	if err := r.choosePaths(c, s); err != nil {
		return err
	}
	if s.recipients, err = r.recipients(c); err != nil {
		return err
	}
	rebuilt, err := r.needIndex(c.Context)
	if err != nil {
		return err
	}
	if err := r.describe(c.Context); err != nil {
		return err
	}
	if s.sets, err = r.sets(); err != nil {
		return err
	}
	if err := r.writeSecret(); err != nil {
		return err
	}
	key, certify, err := r.makeKey(c.Context)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.where.config), 0o755); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	if err := create(s.where.config, []byte(s.configText())); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	r.app.ui.done()
	r.welcomeBack(s, rebuilt, key, certify)
	return nil
}

// needIndex makes the index anew unless the one that is there goes on from
// what the store has. nil: it does.
func (r *revival) needIndex(ctx context.Context) (*index.Rebuilt, error) {
	if r.unread != nil {
		return nil, r.unread
	}
	last, status := int64(r.next)-1, r.there
	if status != nil && status.Writer == r.writer && (status.LastSeq == last || status.Intent != nil && status.Intent.Seq == last) {
		return nil, nil
	}
	made, err := r.index(ctx)
	return &made, err
}

// chooseWriter is the writer that is asked for, or the only one.
func chooseWriter(c *cli.Context, store remote.Store, u storeURL) (string, error) {
	names, err := remote.ListWriters(c.Context, store)
	if err != nil {
		return "", err
	}
	asked := c.String("writer")
	switch {
	case len(names) == 0:
		return "", fmt.Errorf("%w: there is no writer in %q; is its disk mounted, and is the address right?", remote.ErrNoStore, u.String())
	case asked == "" && len(names) == 1:
		return names[0], nil
	case asked == "":
		return "", fmt.Errorf("the store has several writers; say with --writer which of them this machine is: %s", strings.Join(names, ", "))
	case !slices.Contains(names, asked):
		return "", fmt.Errorf("the store has no writer %q; it has %s", asked, strings.Join(names, ", "))
	}
	return asked, nil
}

// recipients are the public keys that the newest snapshot is encrypted to. It
// has only their fingerprints: the keys themselves come from the kit and from
// --recipient.
func (r *revival) recipients(c *cli.Context) ([]string, error) {
	known := slices.Clone(r.id.kit.Recipients)
	for _, key := range r.id.keys {
		switch key := key.(type) {
		case *age.HybridIdentity:
			known = append(known, key.Recipient().String())
		case *age.X25519Identity:
			known = append(known, key.Recipient().String())
		}
	}
	var keep []string
	add := func(recipient string) {
		if !slices.Contains(keep, recipient) {
			keep = append(keep, recipient)
		}
	}
	if len(r.snapshots) == 0 {
		for _, k := range known {
			add(k)
		}
	} else {
		newest := r.snapshots[len(r.snapshots)-1]
		var missing []string
		given := c.StringSlice("recipient")
		for _, print := range newest.Manifest.Recipients {
			i := slices.IndexFunc(slices.Concat(known, given), func(k string) bool { return seal.Fingerprint(k) == print })
			if i < 0 {
				missing = append(missing, print)
				continue
			}
			add(slices.Concat(known, given)[i])
		}
		if len(missing) > 0 {
			text := fmt.Sprintf("snapshot %s has %s that neither the kit nor --recipient names; public keys are not in the store, only their SHA-256: %s",
				newest.ID, plural(int64(len(missing)), "recipient", "recipients"), strings.Join(missing, ", "))
			if !c.Bool("fewer-recipients") {
				return nil, fmt.Errorf("%s; give each as --recipient, or --fewer-recipients to go on without (everything is then uploaded anew)", text)
			}
			r.app.ui.warn("%s; they will not be able to read new snapshots, for which everything is uploaded anew", text)
		}
	}
	for i, recipient := range c.StringSlice("recipient") {
		if err := checkRecipient(recipient); err != nil {
			return nil, fmt.Errorf("--recipient, number %d of them: %w", i+1, err)
		}
		add(recipient)
	}
	if _, err := seal.ParseRecipients(keep); err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	return keep, nil
}

// sets are those of which there are snapshots, sorted by name.
func (r *revival) sets() ([]revivedSet, error) {
	var sets []revivedSet
	for _, name := range slices.Sorted(maps.Keys(r.newest)) {
		about := r.newest[name]
		set := revivedSet{name: name}
		for _, path := range about.Roots {
			if !utf8.ValidString(path) {
				return nil, fmt.Errorf("set %q: path %q is not UTF-8, which a config cannot hold", name, path)
			}
			set.paths = append(set.paths, path)
		}
		for _, pattern := range about.Excludes {
			if !utf8.ValidString(pattern) {
				r.app.ui.warn("set %q: exclude %q is not UTF-8, which a config cannot hold; put it into a file that exclude_file names", name, pattern)
				continue
			}
			set.excludes = append(set.excludes, pattern)
		}
		sets = append(sets, set)
	}
	for _, s := range r.snapshots {
		if _, known := r.newest[s.Set]; !known && !slices.ContainsFunc(sets, func(have revivedSet) bool { return have.name == s.Set }) {
			return nil, fmt.Errorf("what set %q backs up is lost with the metadata of its snapshots; write the config by hand: docs/CONFIG.md lists its keys", s.Set)
		}
	}
	return sets, nil
}

// choosePaths takes the paths from the command line where no snapshot tells
// them, and only there.
func (r *revival) choosePaths(c *cli.Context, s *setup) error {
	switch given := c.Args().Slice(); {
	case len(r.snapshots) > 0 && len(given) > 0:
		return errors.New("leave the PATHs out: the snapshots say what is backed up, and the config can be edited afterwards")
	case len(r.snapshots) == 0 && len(given) == 0:
		return fmt.Errorf("writer %q has no snapshot that says what to back up; name the PATHs", r.writer)
	default:
		for _, word := range given {
			path, err := filepath.Abs(word)
			if err != nil {
				return err
			}
			s.paths = append(s.paths, path)
		}
	}
	return nil
}

// welcomeBack says what was brought back, and what could not be.
func (r *revival) welcomeBack(s *setup, rebuilt *index.Rebuilt, key remote.PublicKey, certify string) {
	u := r.app.ui
	var names []string
	for _, set := range s.sets {
		names = append(names, set.name)
	}
	u.result(struct {
		Type    string   `json:"message_type"`
		Writer  string   `json:"writer"`
		Store   string   `json:"store"`
		Config  string   `json:"config"`
		State   string   `json:"state"`
		Sets    []string `json:"sets"`
		Index   bool     `json:"index_rebuilt"`
		Signer  string   `json:"signer"` // a new one; "" if the old one is there
		NextRun uint64   `json:"next_run"`
	}{"revived", s.writer, s.url.String(), s.where.config, s.stateDir(), append([]string{}, names...), rebuilt != nil, textOf(key), uint64(r.firstFree())})

	u.say("Writer:  %s", s.writer)
	u.say("Store:   %s", s.url)
	u.say("Config:  %s", quote(s.where.config))
	u.say("State:   %s", quote(s.stateDir()))
	for _, set := range s.sets {
		u.say("Set:     %s, as on %s: %s", set.name, when(r.newest[set.name].Started.Time()), quote(strings.Join(set.paths, " ")))
	}
	if rebuilt != nil {
		u.say("Index:   made anew from %s: %s, %s", r.sources(*rebuilt),
			plural(rebuilt.Entries, "entry", "entries"), plural(rebuilt.Blobs, "blob", "blobs"))
	} else {
		u.say("Index:   was there")
	}
	u.say("")
	r.sayKey(key, certify)
	u.say("Not in the store, so look at the config before the next backup: excludes other than")
	u.say("patterns, one_file_system, compression, limits, retention, and what runs vaultik, such")
	u.say("as cron. Patterns from the command line or from files are in the config now.")
	for _, set := range s.sets {
		for _, path := range set.paths {
			if _, err := os.Lstat(path); errors.Is(err, iofs.ErrNotExist) {
				u.warn("set %s: %q is not there; restore it before the next backup, or take it out of the config", set.name, path)
			}
		}
	}
	u.say("")
	u.say("If another machine goes on as %s, this one must not: remove the config again.", s.writer)
}
