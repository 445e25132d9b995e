package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// writerPlan is what becomes of one writer's snapshots.
type writerPlan struct {
	writer   string
	signers  remote.Signers
	verdicts []retention.Verdict
	stones   []remote.Tombstone // unsigned, of those that go
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

// named are the verdicts about those of a writer's snapshots that were named.
// found collects, for each name, what it may mean.
func (p *purge) named(chain []retention.Snapshot, writer string, found map[string][]string) []retention.Verdict {
	var exact, begun []retention.Snapshot
	bySet := make(map[string][]remote.Seq)
	for _, word := range p.names {
		name := word
		if w, rest, ok := strings.Cut(word, "/"); ok {
			if w != writer {
				continue
			}
			name = rest
		}
		exact, begun = nil, nil
		for _, s := range chain {
			switch {
			case s.ID == name:
				exact = append(exact, s)
			case name != "" && strings.HasPrefix(s.ID, name):
				begun = append(begun, s)
			}
		}
		if len(exact) > 0 {
			begun = exact
		}
		for _, s := range begun {
			found[word] = append(found[word], writer+"/"+s.ID)
			bySet[s.Set] = append(bySet[s.Set], s.Seq)
		}
	}
	var of []retention.Verdict
	for set, seqs := range bySet {
		of = append(of, retention.Named(chain, seqs, p.policies.Of(set).MinAge)...)
	}
	slices.SortFunc(of, func(a, b retention.Verdict) int { return int(a.Seq) - int(b.Seq) })
	return of
}

// whose says of which writers snapshots can be forgotten.
func (p *purge) whose() string {
	switch {
	case p.writer != "":
		return fmt.Sprintf("writer %q", p.writer)
	case len(p.plans) > 1:
		return "the writers that the key is for"
	case p.key == nil || p.key.own:
		return fmt.Sprintf("writer %q, which this machine is; those of others take a maintainer's key, --key FILE, or --kit KIT", p.plans[0].writer)
	}
	return fmt.Sprintf("writer %q", p.plans[0].writer)
}

// checkNamed refuses names that mean nothing, or several snapshots, or one
// that has to stay: who names a snapshot wants to hear that.
func (p *purge) checkNamed(found map[string][]string) error {
	for _, word := range p.names {
		switch ids := found[word]; {
		case len(ids) == 0 && strings.HasSuffix(word, "latest"):
			return fmt.Errorf("%q: a writer's newest snapshot and each set's newest are never forgotten", word)
		case len(ids) == 0:
			return fmt.Errorf("%q: there is no such snapshot of %s; \"vaultik snapshot list\" shows them", word, p.whose())
		case len(ids) > 1:
			return fmt.Errorf("%q may mean several snapshots: %s", word, strings.Join(ids[:min(len(ids), 5)], ", "))
		}
	}
	for _, plan := range p.plans {
		for _, v := range plan.verdicts {
			if v.Keep {
				return fmt.Errorf("%s stays: %s; nothing was forgotten", v.ID, reasons(v))
			}
		}
	}
	return p.mayForget()
}
