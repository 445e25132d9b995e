package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

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

// writerPlan is what becomes of one writer's snapshots.
type writerPlan struct {
	writer   string
	signers  remote.Signers
	verdicts []retention.Verdict
	stones   []remote.Tombstone // unsigned, of those that go
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

// plan decides about every snapshot. Writers are read one after the other, so
// that the manifests of one only are in memory.
func (p *purge) plan(ctx context.Context, writers []string) error {
	sets := make(map[string]bool)
	found := make(map[string][]string) // by name, the ids that it may mean
	ruled := false                     // there is a rule for some set
	for _, writer := range writers {
		p.ui.Progress("", "reading the manifests of %s", ui.Quote(writer))
		state, err := p.read(ctx, writer)
		if err != nil && len(writers) > 1 && ctx.Err() == nil && !errors.Is(err, remote.ErrNoStore) {
			p.ui.Warn("%v; nothing of it is forgotten", err)
			p.code = worse(p.code, exitCode(err))
			continue
		}
		if err != nil {
			return err
		}
		if state == nil {
			continue
		}
		chain, err := p.chain(ctx, state)
		if err != nil {
			return err
		}
		plan := &writerPlan{writer: writer, signers: state.Signers}
		for _, s := range chain {
			sets[s.Set] = true
		}
		if len(p.names) > 0 {
			plan.verdicts = p.named(chain, writer, found)
		} else {
			some, err := p.ruled(plan, chain)
			if err != nil {
				return err
			}
			ruled = ruled || some
		}
		if plan.stones, err = state.Tombstones(plan.goes(), p.now()); err != nil {
			return err
		}
		p.plans = append(p.plans, plan)
	}
	switch {
	case len(p.plans) == 0:
		return nil // told
	case len(p.names) > 0:
		return p.checkNamed(found)
	case p.set != "" && !sets[p.set]:
		return fmt.Errorf("there is no snapshot of a set %q; there are some of %s", p.set, ui.QuoteAll(slices.Sorted(maps.Keys(sets))))
	case !ruled:
		return fmt.Errorf("%w: give --keep-daily 7, --older-than 90d or the like, or write a [retention] into the config; nothing was forgotten", retention.ErrEmpty)
	}
	return p.mayForget()
}

// read reads a writer and tells what is wrong with it. One of which nothing
// may be deleted is nil.
func (p *purge) read(ctx context.Context, writer string) (*remote.WriterState, error) {
	state, err := remote.ReadChain(ctx, p.r.store, p.r.root, writer)
	if err != nil {
		return nil, fmt.Errorf("writer %q: %w", writer, err)
	}
	flaws := state.Flaws(p.r.seen, p.r.url.String(), p.now())
	p.tell(p.r, flaws)
	if state.StoppedBy(flaws) == nil {
		return state, nil
	}
	p.ui.Warn("writer %q: nothing of it is forgotten while that is so", writer)
	p.code = worse(p.code, exitCode(remote.ErrNotTrusted))
	return nil, nil
}

// chain is what rules need to know; the store's times only where one asks.
func (p *purge) chain(ctx context.Context, state *remote.WriterState) ([]retention.Snapshot, error) {
	chain, err := retention.Of(state, nil)
	if err != nil || !slices.ContainsFunc(chain, func(s retention.Snapshot) bool { return !p.policies.Of(s.Set).MinAge.IsZero() }) {
		return chain, err
	}
	stored, err := remote.ManifestTimes(ctx, p.r.store, state.Writer)
	if err != nil {
		return nil, err
	}
	return retention.Of(state, stored)
}

// ruled applies the rules to each set, and says whether there were any.
func (p *purge) ruled(plan *writerPlan, chain []retention.Snapshot) (some bool, err error) {
	sets := make(map[string]bool)
	for _, s := range chain {
		sets[s.Set] = p.set == "" || s.Set == p.set
	}
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		policy := p.policies.Of(set)
		if !sets[set] {
			continue
		}
		if policy.Empty() {
			p.ui.Note("writer %q: there is no rule for set %q, so all of it stays", plan.writer, set)
			continue
		}
		some = true
		verdicts, err := policy.Apply(chain, set, p.now())
		if e := (*retention.TimesError)(nil); errors.As(err, &e) {
			p.ui.Warn("writer %q: %v", plan.writer, e)
			p.code = worse(p.code, 1)
		} else if err != nil {
			return some, err
		}
		plan.verdicts = append(plan.verdicts, verdicts...)
	}
	return some, nil
}

// goes are the runs that are forgotten.
func (w *writerPlan) goes() []remote.Seq {
	var seqs []remote.Seq
	for _, v := range w.verdicts {
		if !v.Keep {
			seqs = append(seqs, v.Seq)
		}
	}
	return seqs
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

// finished is the time that rules go by, as JSON says it.
func finished(v retention.Verdict) string { return v.Finished.UTC().Format(time.RFC3339) }
