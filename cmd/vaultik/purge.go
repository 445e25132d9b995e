package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

func (a *app) purgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Usage: "forget snapshots, by rules or by name; needs a signing key, but no identity", ArgsUsage: "[SNAPSHOT…]",
		OnUsageError: usageError,
		Description: "The rules are the options, or else the config's [retention] and [sets.NAME.retention].\n" +
			"They are applied to each set of each writer by itself, by the time at which a\n" +
			"snapshot says it was finished, in UTC. A snapshot stays if any rule keeps it. A\n" +
			"writer's newest snapshot and each set's newest always stay.\n\n" +
			"It is this machine's snapshots that are forgotten, with its own signing key. With a\n" +
			"maintainer's key (--key), or the recovery kit (--kit), those of every writer that it\n" +
			"may. \"vaultik prune\" then frees the space.\n\n" +
			"SNAPSHOT is an id or the beginning of one, also behind WRITER/. --missing closes a gap\n" +
			"where a manifest was lost, which otherwise keeps prune and purge from deleting\n" +
			"anything of that writer.",
		Flags: append(policyFlags(),
			&cli.StringFlag{Name: "writer", Usage: "only snapshots of the writer `NAME`"},
			&cli.StringFlag{Name: "set", Usage: "only snapshots of the set `NAME`"},
			&cli.StringFlag{Name: "missing", Usage: "say that the manifests of the runs `SEQ[-SEQ]` of one writer are lost for good"},
			&cli.StringFlag{Name: "key", Usage: "sign with the minisign secret key in `FILE`, a maintainer's"},
			&cli.StringFlag{Name: "kit", Usage: "sign with the root key in the recovery kit `FILE`, as a maintainer"},
			&cli.StringFlag{Name: "root", Usage: "public root `KEY` (default: the kit's or the config's)"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "change nothing; print every snapshot and why it stays or goes"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "forget without asking"}),
		Action: a.purge,
	}
}

// purge is one run of the command.
type purge struct {
	*app
	r        *reading
	policies config.Policies
	names    []string // of snapshots; none: by rules
	writer   string   // only this one; "": all that the key is for
	set      string   // likewise
	dry      bool
	key      *purgeKey // nil: none is needed

	plans []*writerPlan
	code  int // what was told already and keeps the run from being a success
}

// forgets is how many snapshots are forgotten at once; each takes two short
// requests.
const forgets = 8

func (a *app) purge(c *cli.Context) (err error) {
	p := &purge{app: a, names: c.Args().Slice(), writer: c.String("writer"), set: c.String("set"), dry: c.Bool("dry-run")}
	if p.policies, err = readPolicies(c, nil); err != nil {
		return err
	}
	missing := c.String("missing")
	switch {
	case missing != "" && (p.policies.Given || len(p.names) > 0 || p.set != ""):
		return errors.New("--missing goes neither with names of snapshots nor with rules or --set")
	case len(p.names) > 0 && (p.policies.Given || p.set != ""):
		return errors.New("snapshots are forgotten by name or by rules, not both; leave out either the names, or the rules and --set")
	}
	if p.r, err = a.open(c, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.r.Close()) }()
	if err := p.r.pastCache(); err != nil {
		return err
	}
	p.policies.Config = p.r.conf
	if err := p.chooseKey(c); err != nil {
		return err
	}
	writers, err := p.writers(c.Context)
	if err != nil {
		return err
	}
	if missing != "" {
		err = p.closeGap(c, writers, missing)
	} else {
		err = p.byPlan(c, writers)
	}
	if err != nil {
		return err
	}
	if len(p.r.wrong) > 0 { // told, too
		p.code = worse(p.code, exitCode(errors.Join(p.r.wrong...)))
	}
	if p.code != 0 {
		return &exitError{code: p.code}
	}
	return nil
}

// byPlan makes the plan, shows it, asks, and does it.
func (p *purge) byPlan(c *cli.Context, writers []string) error {
	if err := p.plan(c.Context, writers); err != nil {
		return err
	}
	if len(p.plans) == 0 {
		return nil // it was told why
	}
	goes := p.show()
	if p.dry || goes == 0 {
		return nil
	}
	if ok, err := p.ask(c, fmt.Sprintf("forget %s?", p.amount(goes))); err != nil || !ok {
		return err
	}
	return p.carryOut(c.Context)
}

// ask asks, unless --yes has answered.
func (p *purge) ask(c *cli.Context, question string) (bool, error) {
	if c.Bool("yes") {
		return true, nil
	}
	ok, err := p.agreed(question)
	if err == nil && !ok {
		p.ui.Say("nothing was forgotten")
	}
	return ok, err
}

// writers are those whose snapshots are looked at.
func (p *purge) writers(ctx context.Context) ([]string, error) {
	only := p.writer
	if only == "" && (p.key == nil || p.key.own) { // without a key: a dry run of what this machine does
		only = p.r.own
	}
	return p.r.writers(ctx, only)
}

// carryOut forgets what the plans say. Where one snapshot cannot be forgotten,
// because something was put into its tombstone's place, the others still are.
func (p *purge) carryOut(ctx context.Context) error {
	var done atomic.Int64
	var failed []error
	for _, plan := range p.plans {
		if len(plan.stones) == 0 {
			continue
		}
		signers, err := p.certified(ctx, plan.writer, plan.signers)
		if ctx.Err() != nil || errors.Is(err, remote.ErrNoStore) {
			return err
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		ids := make(map[remote.Seq]string)
		for _, v := range plan.verdicts {
			ids[v.Seq] = v.ID
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(forgets)
		errs := make([]error, len(plan.stones))
		for i, t := range plan.stones {
			g.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				errs[i] = remote.Forget(ctx, p.r.store, signers, t, p.key.SigningKey)
				if errors.Is(errs[i], remote.ErrNoStore) || ctx.Err() != nil {
					return errs[i]
				}
				if errs[i] != nil {
					return nil
				}
				p.ui.Progress("", "%s forgotten", ui.Plural(done.Add(1), "snapshot", "snapshots"))
				p.ui.Result(struct {
					Type     string     `json:"message_type"`
					Snapshot string     `json:"snapshot"`
					Writer   string     `json:"writer"`
					Seq      remote.Seq `json:"seq"`
				}{"forgotten", ids[t.Seq], plan.writer, t.Seq})
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			p.ui.Done()
			p.ui.Note("%s forgotten; the same command goes on from there", ui.Plural(done.Load(), "snapshot was", "snapshots were"))
			return err
		}
		failed = append(failed, slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
	}
	p.ui.Done()
	for _, err := range failed[:max(0, len(failed)-1)] {
		p.ui.Warn("%v", err)
	}
	p.ui.Say("%s forgotten; \"vaultik prune\" frees what only they needed", ui.Plural(done.Load(), "snapshot", "snapshots"))
	if n := len(failed); n > 0 {
		return failed[n-1]
	}
	return nil
}

// policyFlags are the rules as options.
func policyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "keep-last", Usage: "keep the newest `N` snapshots"},
		&cli.StringFlag{Name: "keep-hourly", Usage: "keep the newest snapshot of each of the newest `N` hours that have one"},
		&cli.StringFlag{Name: "keep-daily", Usage: "likewise of `N` days"},
		&cli.StringFlag{Name: "keep-weekly", Usage: "likewise of `N` weeks, from Monday on"},
		&cli.StringFlag{Name: "keep-monthly", Usage: "likewise of `N` months"},
		&cli.StringFlag{Name: "keep-yearly", Usage: "likewise of `N` years"},
		&cli.StringFlag{Name: "keep-within", Usage: "keep what is not older than the set's newest by more than `SPAN`: 12h, 30d, 6w, 3mo, 1y"},
		&cli.StringSliceFlag{Name: "keep-tag", Usage: "keep what has the tag `TEXT`; may be repeated"},
		&cli.StringFlag{Name: "older-than", Usage: "forget only what is older than `SPAN`, counted from now; without a --keep option, all of it"},
		&cli.StringSliceFlag{Name: "set-aside", Usage: "keep the snapshot `ID`, and let no rule go by its time, which a wrong clock made; may be repeated"},
		&cli.StringFlag{Name: "min-age", Usage: "forget nothing that the store took less than `SPAN` before the writer's newest, by its own clock"},
	}
}

func readPolicies(c *cli.Context, conf *config.Config) (config.Policies, error) {
	p := config.Policies{Config: conf}
	o := &p.Option
	for name, field := range map[string]*int{
		"keep-last": &o.Last, "keep-hourly": &o.Hourly, "keep-daily": &o.Daily, "keep-weekly": &o.Weekly, "keep-monthly": &o.Monthly, "keep-yearly": &o.Yearly,
	} {
		if !c.IsSet(name) {
			continue
		}
		var n config.KeepCount
		if err := n.UnmarshalText([]byte(c.String(name))); err != nil {
			return p, fmt.Errorf("--%s: %w", name, err)
		}
		*field = int(n)
	}
	for name, field := range map[string]*retention.Span{"keep-within": &o.Within, "older-than": &o.OlderThan, "min-age": &o.MinAge} {
		if !c.IsSet(name) {
			continue
		}
		var err error
		if *field, err = retention.ParseSpan(c.String(name)); err != nil {
			return p, fmt.Errorf("--%s: %w", name, err)
		}
	}
	o.Tags, o.Aside = c.StringSlice("keep-tag"), c.StringSlice("set-aside")
	for _, tag := range o.Tags {
		if err := remote.CheckTag(tag); err != nil {
			return p, fmt.Errorf("--keep-tag: no snapshot has such a tag: %w", err)
		}
	}
	for _, f := range policyFlags() {
		p.Given = p.Given || !slices.Contains([]string{"min-age", "set-aside"}, f.Names()[0]) && c.IsSet(f.Names()[0])
	}
	return p, nil
}
