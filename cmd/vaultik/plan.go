package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// planInit checks all that can be checked without touching anything.
func (a *app) planInit(c *cli.Context) (*setup, error) {
	if c.Args().Len() == 0 {
		return nil, errors.New("no PATH given; name what to back up: vaultik init --store URL PATH…")
	}
	where, err := state.FindAll(a.env, a.root, c.String("config"))
	if err != nil {
		return nil, err
	}
	s := &setup{app: a, where: where, writer: c.String("writer"), named: c.IsSet("writer"), recipients: c.StringSlice("recipient"), classic: c.Bool("x25519")}
	address := c.String("store")
	if address == "" {
		address = a.env("VAULTIK_STORE")
	}
	if address == "" {
		return nil, errors.New("no store given; add --store file:///folder or --store s3://bucket/prefix?endpoint=…")
	}
	if s.url, err = stores.ParseURL(address); err != nil {
		return nil, err
	}
	for _, word := range c.Args().Slice() {
		path, err := filepath.Abs(word)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(path); err != nil {
			return nil, fmt.Errorf("path to back up: %w", err)
		}
		if !utf8.ValidString(path) {
			return nil, fmt.Errorf("path %q is not UTF-8, which a config file cannot hold; name the folder above it instead", path)
		}
		s.paths = append(s.paths, path)
	}
	if err := s.chooseName(); err != nil {
		return nil, err
	}
	if s.kit = c.String("kit"); s.kit != "" {
		if s.kit, err = filepath.Abs(s.kit); err != nil {
			return nil, err
		}
	}
	for i, r := range s.recipients {
		if err := config.CheckRecipient(r); err != nil {
			return nil, fmt.Errorf("--recipient, number %d of them: %w", i+1, err)
		}
	}
	if err := lockOptions(c, &s.lockTime, &s.lockMode); err != nil {
		return nil, err
	}
	if root := c.String("root"); root != "" {
		if s.rootPublic, err = remote.ParsePublicKey(root); err != nil {
			return nil, fmt.Errorf("--root: %w", err)
		}
		s.further = true
		switch {
		case len(s.recipients) == 0:
			return nil, errors.New("--root without --recipient: name the recipients that the other machines' config lists")
		case s.kit != "" || s.classic:
			return nil, errors.New("--root is for a further machine, which gets no identity and no kit; leave --kit and --x25519 out, or --root")
		}
	}
	if s.further {
		if _, err := seal.ParseRecipients(s.recipients); err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
	}
	if err := s.checkPaths(c.Context); err != nil {
		return nil, err
	}
	return s, s.checkKit()
}

// checkPaths refuses paths that no backup would contain.
func (s *setup) checkPaths(ctx context.Context) error {
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	always := []string{state.Resolve(s.where.State), state.Resolve(s.where.Cache)}
	if s.url.Folder() != "" {
		always = append(always, state.Resolve(s.url.Folder()))
	}
	for _, path := range s.paths {
		if why := leftOut(ctx, disk, always, path); why != "" {
			return fmt.Errorf("path to back up %q: %s, which is always left out", path, why)
		}
	}
	return nil
}

// checkKit finds the folder that the kit will lie in, which is neither the
// store nor missing. If it is below what is backed up, farewell warns.
func (s *setup) checkKit() error {
	if s.further {
		return nil
	}
	s.kitFolder = filepath.Dir(s.kit)
	if s.kit == "" {
		var err error
		if s.kitFolder, err = os.Getwd(); err != nil {
			return fmt.Errorf("find the folder for the recovery kit: %w; give --kit FILE", err)
		}
	}
	if info, err := os.Stat(s.kitFolder); err != nil || !info.IsDir() {
		return fmt.Errorf("there is no folder %q for the recovery kit; make it, or mount its disk", s.kitFolder)
	}
	if s.url.Folder() != "" && state.Inside(s.kitFolder, s.url.Folder()) {
		return fmt.Errorf("the recovery kit must not lie in the store, %q, which it opens: whoever got hold of the store could read it all; give --kit FILE elsewhere", s.url.Folder())
	}
	return nil
}

// chooseName makes the host's name one that a writer may have.
func (s *setup) chooseName() error {
	if !s.named {
		host, err := s.app.hostname()
		if err != nil {
			return fmt.Errorf("ask for this machine's name: %w; give --writer NAME", err)
		}
		s.writer = writerName(host)
	}
	if err := remote.CheckName(s.writer); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	return nil
}

// writerName makes a host's name one that remote.CheckName accepts, short
// enough for a number behind it.
func writerName(host string) string {
	const longest = 56
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return r
		}
		return '-'
	}, host)
	name = strings.TrimLeft(name, "._-")
	if len(name) > longest {
		name = name[:longest]
	}
	if name = strings.TrimRight(name, "._-"); name == "" {
		return "host"
	}
	return name
}

// refuseExisting stops before files that are there already are in the way.
func (s *setup) refuseExisting() error {
	if _, err := os.Lstat(s.where.Config); err == nil {
		return fmt.Errorf("the config %q is there already: this machine is set up; edit it to add paths or sets, "+
			"or move it away to start a new writer (--config names another file)", s.where.Config)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the config: %w", err)
	}
	if s.kit == "" {
		return nil
	}
	if _, err := os.Lstat(s.kit); err == nil {
		return fmt.Errorf("the recovery kit %q is there already and is never overwritten; choose another --kit FILE", s.kit)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the recovery kit: %w", err)
	}
	return nil
}

// refuseSecondRoot stops where this would be a further machine and nobody said
// so: a second root key makes every reader distrust one half of the store.
func (s *setup) refuseSecondRoot(ctx context.Context) error {
	if s.further {
		return nil
	}
	names, err := remote.ListWriters(ctx, s.store)
	if errors.Is(err, remote.ErrDenied) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the store %s has writers already, %s, and with them a root key: for a further machine give --root and --recipient as their kit or config states them; "+
		"for keys of its own, choose a store of its own, in another folder or prefix", s.url, ui.QuoteAll(names))
}

// probe tries what the store can do, and tells what it cannot.
func (s *setup) probe(ctx context.Context) error {
	can, err := remote.Probe(ctx, s.store, s.app.random)
	if err != nil {
		return fmt.Errorf("try the store: %w", err)
	}
	for _, w := range can.Warnings() {
		s.app.ui.Warn("%s", w)
	}
	return nil
}
