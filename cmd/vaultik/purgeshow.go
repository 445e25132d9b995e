package main

import (
	"fmt"
	"strings"
	"time"

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

// finished is the time that rules go by, as JSON says it.
func finished(v retention.Verdict) string { return v.Finished.UTC().Format(time.RFC3339) }
