package main

import (
	"fmt"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// show prints the plan: all of it in a dry run, else what goes. It returns how
// many snapshots that are.
func (p *purge) show() (goes int) {
	p.ui.Done()
	var rows [][]string
	kept := 0
	for _, plan := range p.plans {
		for _, v := range plan.verdicts {
			word := "forget"
			if v.Keep {
				word = "keep"
				kept++
			} else {
				goes++
			}
			why := reasons(v)
			p.ui.Result(verdictLine{"verdict", v.ID, plan.writer, v.Set, v.Seq, finished(v), v.Tags, word, v.Reasons, why})
			if p.dry || p.ui.Verbose || !v.Keep && !p.ui.Quiet {
				rows = append(rows, []string{v.ID, v.Set, ui.When(v.Finished), word, why})
			}
		}
	}
	if len(rows) > 0 {
		p.ui.Table([]string{"SNAPSHOT", "SET", "FINISHED", "WHAT", "WHY"}, rows)
	}
	p.ui.Result(struct {
		Type   string `json:"message_type"`
		Keep   int    `json:"keep"`
		Forget int    `json:"forget"`
		DryRun bool   `json:"dry_run"`
	}{"plan", kept, goes, p.dry})
	rest := ""
	if len(p.names) == 0 { // of the others nothing was asked
		rest = ", " + ui.Plural(int64(kept), "stays", "stay")
	}
	switch {
	case goes == 0:
		p.ui.Say("nothing to forget; %s", ui.Plural(int64(kept), "snapshot stays", "snapshots stay"))
	case p.dry:
		p.ui.Say("%s would be forgotten%s", p.amount(goes), rest)
	default:
		p.ui.Say("%s to forget%s", p.amount(goes), rest)
	}
	return goes
}

// amount is how many snapshots go, and of how many writers, if of several.
func (p *purge) amount(goes int) string {
	writers := 0
	for _, plan := range p.plans {
		if len(plan.goes()) > 0 {
			writers++
		}
	}
	text := ui.Plural(int64(goes), "snapshot", "snapshots")
	if writers > 1 {
		text += fmt.Sprintf(" of %d writers", writers)
	}
	return text
}

// verdictLine is what JSON says of a snapshot.
type verdictLine struct {
	Type     string             `json:"message_type"`
	Snapshot string             `json:"snapshot"`
	Writer   string             `json:"writer"`
	Set      string             `json:"set"`
	Seq      remote.Seq         `json:"seq"`
	Finished string             `json:"finished"`
	Tags     []string           `json:"tags"`
	Action   string             `json:"action"` // keep or forget
	Reasons  []retention.Reason `json:"reasons"`
	Why      string             `json:"why"` // the reasons, for people
}

func reasons(v retention.Verdict) string {
	words := make([]string, len(v.Reasons))
	for i, r := range v.Reasons {
		words[i] = r.String()
	}
	return strings.Join(words, "; ")
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
