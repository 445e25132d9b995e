package main

import (
	"cmp"
	"fmt"
	"strings"
)

// A goal is what vaultik means to reach on one kind of corpus: that a figure
// is at most so many times another's, or so many units.
type goal struct {
	kind, step, what string
	most             float64
	unit             string
	figure           func(*results, key) int64
	other            string  // whose figure to divide by, or "": then
	scale            float64 // a unit in what the figure counts
	otherStep        string  // of the figure to divide by, "" for the same one
}

const (
	kib    = 1 << 10
	mib    = 1 << 20
	second = 1e9
)

var goals = []goal{
	{"source", first, "wall ÷ restic", 0.5, "", (*results).wall, "restic", 0, ""},
	{"source", first, "stored ÷ restic", 0.80, "", (*results).stored, "restic", 0, ""},
	{"source", first, "peak memory", 250, "MiB", (*results).peak, "", mib, ""},
	{"source", unchanged, "wall ÷ restic", 0.15, "", (*results).wall, "restic", 0, ""},
	{"source", unchanged, "stored, manifest apart", 16, "KiB", (*results).apart, "", kib, ""},
	{"source", edited, "wall ÷ restic", 0.3, "", (*results).wall, "restic", 0, ""},
	{"source", edited, "stored ÷ restic", 1, "", (*results).stored, "restic", 0, ""},
	{"source", copied, "wall ÷ restic's restore", 1, "", (*results).wall, "restic", 0, restored},
	{"source", copied, "wall ÷ cp from disk", 3, "", (*results).wall, plain, 0, ""},
	{"source", tarred, "wall ÷ cp", 1.3, "", (*results).wall, "vaultik", 0, copied},
	{"source", synced, "wall ÷ rsync from disk", 3, "", (*results).wall, plain, 0, ""},
	{"source", restored, "wall ÷ restic", 0.6, "", (*results).wall, "restic", 0, ""},
	{"tiny", first, "wall ÷ restic", 0.4, "", (*results).wall, "restic", 0, ""},
	{"tiny", first, "peak memory", 250, "MiB", (*results).peak, "", mib, ""},
	{"tiny", unchanged, "wall ÷ find", 2, "", (*results).wall, find, 0, ""},
	{"tiny", unchanged, "peak memory", 200, "MiB", (*results).peak, "", mib, ""},
	{"random", first, "wall ÷ restic", 0.5, "", (*results).wall, "restic", 0, ""},
	{"random", first, "wall ÷ limit", 1 / 0.75, "", (*results).wall, bound, 0, ""},
	{"sparse", first, "wall", 5, "s", (*results).wall, "", second, ""},
}

// judge returns what was measured and whether that reaches the goal.
func (g goal) judge(r *results) (value, verdict string) {
	who := key{"vaultik", g.step}
	_, quiet := r.quiet(who)
	scale := g.scale
	if g.other != "" {
		other := key{g.other, cmp.Or(g.otherStep, g.step)}
		_, calm := r.quiet(other)
		quiet, scale = quiet && calm, float64(g.figure(r, other))
	}
	if len(r.runs[who]) == 0 || scale <= 0 {
		return "", "not measured"
	}
	v := float64(g.figure(r, who)) / scale
	verdict = "missed"
	if v <= g.most {
		verdict = "reached"
	}
	if !quiet {
		verdict += " †"
	}
	return strings.TrimSpace(fmt.Sprintf("%.2f %s", v, g.unit)), verdict
}

// writeGoals says what was to be reached and what was.
func writeGoals(p *strings.Builder, measured []*results) {
	row(p, "corpus", "step", "figure", "goal", "measured", "")
	p.WriteString("|---|---|---|---|---|---|\n")
	for _, r := range measured {
		for _, g := range goals {
			if g.kind == r.corpus.kind {
				value, verdict := g.judge(r)
				row(p, r.corpus.name, g.step, g.what, strings.TrimSpace(fmt.Sprintf("≤ %.4g %s", g.most, g.unit)), value, verdict)
			}
		}
	}
}
