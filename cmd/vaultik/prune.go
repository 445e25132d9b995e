package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/prune"
)

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "delete what no snapshot needs any more; needs no identity and no signing key", OnUsageError: usageError,
		Description: "It may run on any machine, beside backups, purges and other prunes, and may be\n" +
			"interrupted at any time: what is left is for the next one. Only what is forgotten\n" +
			"(\"vaultik snapshot purge\") or was left by interrupted backups can be deleted. Of a\n" +
			"writer whose manifests cannot all be believed nothing is, and the exit code is 13.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be deleted, with --verbose each object, and delete nothing"},
			&cli.StringFlag{Name: "writer", Usage: "only what is of the writer `NAME`"},
			&cli.StringFlag{Name: "identity", Usage: "recovery kit `FILE`, only for the store's address and the root key"},
			&cli.StringFlag{Name: "root", Usage: "public root `KEY` (default: the kit's or the config's)"},
		},
		Action: a.prune,
	}
}

// pruning is one call of the command.
type pruning struct {
	*app
	r       *reading
	store   remote.Store
	dry     bool
	flaws   []error
	stopped []string // writers of which nothing may be deleted, but for those that wait for a certificate
	failed  []error
	total   prune.Count
	last    time.Time // of the progress line
}

func (a *app) prune(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	names, err := r.writers(c.Context, c.String("writer"))
	if err != nil {
		return err
	}
	p := &pruning{app: a, r: r, store: r.uncached(), dry: c.Bool("dry-run")}
	for _, name := range names {
		err := p.writer(c.Context, name)
		if c.Context.Err() != nil || errors.Is(err, remote.ErrNoStore) {
			return err // the others would fail as well
		}
		if err != nil {
			a.ui.Warn("%v", err)
			p.failed = append(p.failed, err)
		}
	}
	if len(names) > 1 && p.total.Objects > 0 {
		a.ui.Say("%s %s in all", p.verb("freed", "would free"), ui.Size(p.total.Bytes))
	}
	return p.verdict(names)
}

// uncached is the store itself: nothing that a prune reads is worth a place in
// the cache, and what it deletes is gone from the store.
func (r *reading) uncached() remote.Store {
	if c, ok := r.store.(cachedStore); ok {
		return c.store
	}
	return r.store
}

// verdict tells what is wrong and decides how the command ends.
func (p *pruning) verdict(names []string) error {
	if err := p.r.noneCertified(p.flaws, names); err != nil {
		return err
	}
	p.tell(p.r, p.flaws)
	p.r.wrong = append(p.r.wrong, p.failed...)
	if len(p.stopped) > 0 {
		return &exitError{13, fmt.Errorf("nothing of %s was deleted: as long as what the warnings name is not mended, nobody knows what its snapshots need", ui.QuoteAll(p.stopped))}
	}
	return p.r.verdict()
}

func (p *pruning) verb(done, planned string) string {
	if p.dry {
		return planned
	}
	return done
}

// writer prunes one writer. What is wrong with it is no error.
func (p *pruning) writer(ctx context.Context, name string) error {
	p.ui.Progress("", "%s: reading the manifests", name)
	plan, err := prune.Look(ctx, prune.Options{
		Store: p.store, Root: p.r.root,
		Flaws: func(w *remote.WriterState) []error { return w.Flaws(p.r.seen, p.r.url.String(), p.now()) },
	}, name)
	if err != nil {
		return err
	}
	p.flaws = append(p.flaws, plan.Flaws...)
	if plan.Stopped != nil {
		if u := (*remote.Uncertified)(nil); !errors.As(plan.Stopped, &u) || u.Before != nil {
			p.stopped = append(p.stopped, name)
		}
		p.ui.Result(lineOfPlan(plan, prune.Freed{}, p.dry))
		p.ui.Say("%s: nothing is deleted, it cannot be trusted as it is", name)
		return nil
	}
	freed := plan.Freed()
	if p.dry {
		for _, o := range plan.Garbage {
			p.object(name, o)
		}
	} else {
		freed, err = plan.Delete(ctx, p.store, p.watch(plan))
	}
	p.total = p.total.Plus(freed.Total())
	p.ui.Result(lineOfPlan(plan, freed, p.dry))
	p.show(plan, freed)
	if len(plan.Missing) > 0 {
		missing := fmt.Errorf("writer %q: %s not there that its snapshots need, such as %s; \"vaultik audit\" says more, and the writer's next backup uploads again what it still has",
			name, ui.Plural(plan.Lost, "object is", "objects are"), plan.Missing[0])
		p.ui.Warn("%v", missing)
		p.r.wrong = append(p.r.wrong, missing)
	}
	return err
}

// watch follows the deletion.
func (p *pruning) watch(plan *prune.Plan) func(prune.Object, error) {
	var done prune.Count
	return func(o prune.Object, err error) {
		switch {
		case errors.Is(err, remote.ErrLocked):
			return // counted
		case err != nil:
			if p.ui.Verbose {
				p.ui.Warn("%v", err)
			}
			return
		}
		p.object(plan.Writer, o)
		done = done.Plus(prune.Count{Objects: 1, Bytes: o.Bytes})
		if now := p.now(); now.Sub(p.last) >= 200*time.Millisecond {
			p.last = now
			p.ui.Progress("", "%s: deleted %s of %s objects, %s", plan.Writer, ui.Count(done.Objects), ui.Count(int64(len(plan.Garbage))), ui.Size(done.Bytes))
		}
	}
}

// object tells of one, with --verbose.
func (p *pruning) object(writer string, o prune.Object) {
	if !p.ui.Verbose {
		return
	}
	p.ui.Result(struct {
		Type  string      `json:"message_type"`
		Kind  remote.Kind `json:"kind"`
		Key   string      `json:"key"`
		Bytes int64       `json:"bytes"`
	}{p.verb("deleted", "garbage"), o.Kind, o.Key(writer), o.Bytes})
	p.ui.Say("%s %s (%s)", p.verb("deleted", "would delete"), o.Key(writer), ui.Size(o.Bytes))
}

// show says what became of a writer's objects.
func (p *pruning) show(plan *prune.Plan, freed prune.Freed) {
	var kinds []string
	for _, k := range []struct {
		count     prune.Count
		one, many string
	}{
		{freed.Blobs, "blob", "blobs"}, {freed.Dumps, "part of a dump", "parts of dumps"},
		{freed.Lists, "blob list", "blob lists"}, {freed.Manifests, "manifest", "manifests"},
	} {
		if k.count.Objects > 0 {
			kinds = append(kinds, ui.Plural(k.count.Objects, k.one, k.many))
		}
	}
	if len(kinds) == 0 && freed.Locked.Objects > 0 {
		p.ui.Say("%s: nothing can be freed yet", plan.Writer)
	} else if len(kinds) == 0 {
		p.ui.Say("%s: nothing to free", plan.Writer)
	} else {
		p.ui.Say("%s: %s %s in %s", plan.Writer, p.verb("freed", "would free"), ui.Size(freed.Total().Bytes), strings.Join(kinds, ", "))
	}
	if l := freed.Locked; l.Objects > 0 {
		until := "the store does not say until when"
		if end := freed.Last.Until; !end.IsZero() {
			until = "the last until " + ui.When(end)
		}
		p.ui.Say("  stays: %s, %s, that the store has locked, %s; a later prune frees them", ui.Size(l.Bytes), ui.Plural(l.Objects, "object", "objects"), until)
	}
	snapshots := ui.Plural(int64(plan.Snapshots), "snapshot", "snapshots")
	for _, s := range []struct {
		count          prune.Count
		one, many, why string
	}{
		{plan.Stays.Blobs, "blob", "blobs", "needed by " + snapshots},
		{plan.Stays.Pinned, "blob", "blobs", "that the next backup may use"},
		{plan.Stays.Metadata, "object", "objects", "of metadata"},
		{plan.Stays.Newer, "object", "objects", "of a backup that is under way or was interrupted; another backup and a prune free what is left of it"},
		{plan.Stays.Strays, "object", "objects", "that no vaultik put there"},
	} {
		if s.count.Objects > 0 {
			p.ui.Say("  stays: %s, %s, %s", ui.Size(s.count.Bytes), ui.Plural(s.count.Objects, s.one, s.many), s.why)
		}
	}
}

// planLine is what JSON says of a writer.
type planLine struct {
	Type      string     `json:"message_type"`
	Writer    string     `json:"writer"`
	DryRun    bool       `json:"dry_run"`
	Newest    remote.Seq `json:"newest"` // run of the newest manifest
	Snapshots int        `json:"snapshots"`
	Forgotten int        `json:"forgotten"`
	Stopped   string     `json:"stopped"` // why nothing may be deleted, "" if it may be
	Freed     freedLine  `json:"freed"`   // or would be
	Stays     staysLine  `json:"stays"`
	Lost      int64      `json:"missing"` // objects that a snapshot needs
}

type freedLine struct {
	Blobs     countLine `json:"blobs"`
	Dumps     countLine `json:"dumps"`
	Lists     countLine `json:"lists"`
	Manifests countLine `json:"manifests"`
}

type staysLine struct {
	Blobs    countLine `json:"blobs"`
	Pinned   countLine `json:"pinned"`
	Metadata countLine `json:"metadata"`
	Newer    countLine `json:"newer"`
	Locked   countLine `json:"locked"` // garbage that cannot be deleted yet; known when it was tried
	Strays   countLine `json:"strays"`
}

type countLine struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func lineOfPlan(p *prune.Plan, f prune.Freed, dry bool) planLine {
	s := p.Stays
	line := planLine{
		Type: "prune", Writer: p.Writer, DryRun: dry, Newest: p.Newest, Snapshots: p.Snapshots, Forgotten: p.Forgotten,
		Freed: freedLine{countLine(f.Blobs), countLine(f.Dumps), countLine(f.Lists), countLine(f.Manifests)},
		Stays: staysLine{countLine(s.Blobs), countLine(s.Pinned), countLine(s.Metadata), countLine(s.Newer), countLine(f.Locked), countLine(s.Strays)},
		Lost:  p.Lost,
	}
	if p.Stopped != nil {
		line.Stopped = p.Stopped.Error()
	}
	return line
}
