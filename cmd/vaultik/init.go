package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/setup"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "set this machine up to back up PATHs to a store", ArgsUsage: "PATH…",
		OnUsageError: usageError,
		Description: "Writes the config with a set \"default\" of the PATHs, the writer's signing key, and\n" +
			"the recovery kit, without which nothing can be restored. Asks nothing.\n\n" +
			"On a further machine of the same store, give --root and --recipient as the first\n" +
			"machine's kit states them: no identity and no kit are made there.\n\n" +
			"On a machine that was set up and has lost its files, --from-kit KIT brings them back\n" +
			"from the store, and PATHs are left out: its newest snapshots say what they were.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kit", Usage: "write the recovery kit to `FILE` (default: ./vaultik-recovery-kit-WRITER.txt)"},
			&cli.StringFlag{Name: "writer", Usage: "the writer's `NAME` (default: the host's name, with a number if it is taken)"},
			&cli.StringSliceFlag{Name: "recipient", Usage: "encrypt to this age `KEY` as well, or with --root instead; may be repeated"},
			&cli.StringFlag{Name: "root", Usage: "the public root `KEY` of the store's other writers: this is a further machine"},
			&cli.StringFlag{Name: "object-lock", Usage: "lock every object against deletion for `TIME`, such as 30d, in a bucket made with object lock"},
			&cli.StringFlag{Name: "object-lock-mode", Usage: "`MODE` of the locks: compliance (default; nobody can lift them) or governance"},
			&cli.StringFlag{Name: "from-kit", Usage: "bring back what this machine had: config, keys and index of the writer that it is, with the recovery kit `FILE`"},
			&cli.BoolFlag{Name: "fewer-recipients", Usage: "with --from-kit: go on without recipients whose public keys are not given"},
			&cli.BoolFlag{Name: "x25519", Usage: "make a classic age identity instead of a post-quantum one, for age older than 1.3"},
		},
		Action: func(c *cli.Context) error {
			if c.IsSet("from-kit") {
				return a.fromKit(c)
			}
			s, err := a.planInit(c)
			if err != nil {
				return err
			}
			return s.Run(c.Context)
		},
	}
}

// planInit checks all that can be checked without touching anything.
func (a *app) planInit(c *cli.Context) (*setup.Plan, error) {
	if c.Args().Len() == 0 {
		return nil, errors.New("no PATH given; name what to back up: vaultik init --store URL PATH…")
	}
	where, err := state.FindAll(a.env, a.root, c.String("config"))
	if err != nil {
		return nil, err
	}
	s := &setup.Plan{Machine: a.machine(), Where: where, Named: c.IsSet("writer"), Recipients: c.StringSlice("recipient"), Classic: c.Bool("x25519")}
	address := a.storeAddress(c)
	if address == "" {
		return nil, errors.New("no store given; add --store file:///folder or --store s3://bucket/prefix?endpoint=…")
	}
	if s.URL, err = stores.ParseURL(address); err != nil {
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
		s.Paths = append(s.Paths, path)
	}
	if s.Writer, err = a.nameWriter(c); err != nil {
		return nil, err
	}
	if s.Kit = c.String("kit"); s.Kit != "" {
		if s.Kit, err = filepath.Abs(s.Kit); err != nil {
			return nil, err
		}
	}
	for i, r := range s.Recipients {
		if err := config.CheckRecipient(r); err != nil {
			return nil, fmt.Errorf("--recipient, number %d of them: %w", i+1, err)
		}
	}
	if err := lockOptions(c, &s.LockTime, &s.LockMode); err != nil {
		return nil, err
	}
	if root := c.String("root"); root != "" {
		if s.RootKey, err = remote.ParsePublicKey(root); err != nil {
			return nil, fmt.Errorf("--root: %w", err)
		}
		s.Further = true
		switch {
		case len(s.Recipients) == 0:
			return nil, errors.New("--root without --recipient: name the recipients that the other machines' config lists")
		case s.Kit != "" || s.Classic:
			return nil, errors.New("--root is for a further machine, which gets no identity and no kit; leave --kit and --x25519 out, or --root")
		}
	}
	if s.Further {
		if _, err := seal.ParseRecipients(s.Recipients); err != nil {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
	}
	if err := checkPaths(c.Context, s); err != nil {
		return nil, err
	}
	return s, s.CheckKit()
}

// checkPaths refuses paths that no backup would contain.
func checkPaths(ctx context.Context, s *setup.Plan) error {
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	always := []string{state.Resolve(s.Where.State), state.Resolve(s.Where.Cache)}
	if s.URL.Folder() != "" {
		always = append(always, state.Resolve(s.URL.Folder()))
	}
	for _, path := range s.Paths {
		if why := leftOut(ctx, disk, always, path); why != "" {
			return fmt.Errorf("path to back up %q: %s, which is always left out", path, why)
		}
	}
	return nil
}

// nameWriter is the name that was given, or the host's.
func (a *app) nameWriter(c *cli.Context) (string, error) {
	name := c.String("writer")
	if !c.IsSet("writer") {
		host, err := a.hostname()
		if err != nil {
			return "", fmt.Errorf("ask for this machine's name: %w; give --writer NAME", err)
		}
		name = writerName(host)
	}
	if err := remote.CheckName(name); err != nil {
		return "", fmt.Errorf("writer: %w", err)
	}
	return name, nil
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

// machine is this one, for whatever sets it up.
func (a *app) machine() setup.Machine {
	return setup.Machine{UI: a.ui, Now: a.now, Random: a.random, Route: a.route(), Version: buildInfo().Version}
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
	r := setup.Revival{Machine: a.machine()}
	if r.Where, err = state.FindAll(a.env, a.root, c.String("config")); err != nil {
		return err
	}
	s := &setup.Plan{Machine: r.Machine, Where: r.Where}
	if err := s.RefuseExisting(); err != nil {
		return err
	}
	if r.ID, err = a.identity(c.Context, c.String("from-kit"), nil); err != nil {
		return err
	}
	if r.ID.Kit == nil {
		return fmt.Errorf("%w: %q is an age identity without a root key; --from-kit needs the recovery kit", kit.ErrNoIdentity, r.ID.From)
	}
	address := cmp.Or(a.storeAddress(c), r.ID.Kit.Store)
	if r.URL, err = stores.ParseURL(address); err != nil {
		return err
	}
	r.Root = r.ID.Kit.Root.Public()
	defer collectOften()()
	v, err := setup.OpenRevival(c.Context, r, func(store remote.Store) (string, error) { return chooseWriter(c, store, r.URL) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	s.URL, s.Writer, s.RootKey = v.URL, v.Writer, v.Root
	return v.SetUp(c.Context, s, setup.Given{Paths: c.Args().Slice(), Recipients: c.StringSlice("recipient"), Fewer: c.Bool("fewer-recipients")})
}

// chooseWriter is the writer that is asked for, or the only one.
func chooseWriter(c *cli.Context, store remote.Store, u stores.URL) (string, error) {
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
