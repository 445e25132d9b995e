package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

const intro = `# Benchmarks

vaultik beside restic and borg, measured by ` + "`make bench`" + `, which writes this page.
Ratios say more than seconds: these depend on the machine.

`

const method = `
## How it is measured

Each tool backs up to a new store in a local folder, with its default options, encryption included. Tools take turns, step by step and round by round. Figures are medians of undisturbed runs, in which others used at most a tenth of the machine's CPU; a dagger (†) marks what rests on other runs, because none was undisturbed. Corpora are in the kernel's cache, unless the step says that it was dropped. CPU is user and system time. Peak memory is the process's largest resident set. Stored is what the run added to the store, as the sum of the sizes of its files.

Edits: a line is appended to 1 % of the files, 200 files are added, 200 deleted, and a folder with about 1 % of the files is renamed.

` + "`find`" + ` is ` + "`find DIR -printf '%s %T@ %C@ %i\\n'`" + `: looking at everything that tells whether a file has changed. The limit is a program that only reads, cuts, hashes, encrypts and hashes again, on every core, as any backup in vaultik's format must.

Trees come back into a file system in memory. The mount is begun anew, with empty caches, for each program that reads it, and what loading the snapshot takes is counted; CPU is the mount's and the program's together, peak memory the mount's.

Corpora come from Debian's package of the Linux source tree and from seeded generators: ` + "`integration/compare`" + ` says how.
`

// page writes the Markdown page.
func page(o options, m machine, tools []*tool, measured []*results, now time.Time) string {
	var p strings.Builder
	p.WriteString(intro)
	if o.short {
		p.WriteString("**The short form: it shows that the benchmark works. Its figures mean nothing.**\n\n")
	}
	p.WriteString("| | |\n|---|---|\n")
	row(&p, "date", now.UTC().Format("2006-01-02"))
	for _, t := range tools {
		row(&p, t.name, t.version)
	}
	for _, t := range []*tool{newRestic(), newBorg()} {
		if !slices.ContainsFunc(tools, func(x *tool) bool { return x.name == t.name }) {
			row(&p, t.name, "not there")
		}
	}
	row(&p, "machine", fmt.Sprintf("%d × %s, %s", m.cores, m.cpu, humanize.IBytes(uint64(m.memory))))
	row(&p, "system", fmt.Sprintf("%s, kernel %s, %s", m.system, m.kernel, m.fileSystem))
	row(&p, "runs", fmt.Sprintf("%d of each step; fewer where one took longer than %.0f s", o.runs, o.patience.Seconds()))
	p.WriteString("\n## Goals\n\n")
	writeGoals(&p, measured)
	for _, r := range measured {
		fmt.Fprintf(&p, "\n## %s\n\n%s entries, %s.", r.corpus.name, humanize.Comma(int64(r.extent.entries)), bytesText(r.extent.bytes))
		if e := r.edits; e != (edits{}) {
			fmt.Fprintf(&p, " Edits: %d files appended to, %d added, %d deleted; %d in the renamed folder.", e.appended, e.added, e.deleted, e.renamed)
		}
		p.WriteString("\n\n")
		writeTable(&p, r)
	}
	p.WriteString(method)
	return p.String()
}

func row(p *strings.Builder, cells ...string) {
	fmt.Fprintf(p, "| %s |\n", strings.Join(cells, " | "))
}

// writeTable writes what was measured on one corpus.
func writeTable(p *strings.Builder, r *results) {
	row(p, "step", "", "runs", "wall", "÷ restic", "CPU", "peak memory", "stored", "÷ restic")
	p.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for _, step := range []string{first, unchanged, cold, edited, restored, copied, tarred, synced} {
		for _, who := range []string{"vaultik", "restic", "borg", find, bound, plain} {
			k := key{who, step}
			if len(r.runs[k]) == 0 {
				continue
			}
			samples, ok := r.quiet(k)
			name, peak := who, bytesText(r.peak(k))
			if !ok {
				name += " †"
			}
			if r.peak(k) <= r.floor {
				peak = "≤ " + bytesText(r.floor)
			}
			stored, ratio := r.storedText(k), r.over(k, r.stored)
			if who == find || who == bound || who == plain || r.runs[k][0].stored == 0 && step != unchanged {
				stored, ratio = "", ""
			}
			row(p, step, name, fmt.Sprint(len(samples)), seconds(r.wall(k)), r.over(k, r.wall), seconds(r.cpu(k)), peak, stored, ratio)
		}
	}
}

// over is a figure as a ratio to restic's.
func (r *results) over(k key, figure func(key) int64) string {
	restic := key{"restic", k.step}
	if k == restic || len(r.runs[restic]) == 0 || figure(restic) <= 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(figure(k))/float64(figure(restic)))
}

func (r *results) wall(k key) int64 {
	return r.median(k, func(s sample) int64 { return int64(s.wall) })
}
func (r *results) cpu(k key) int64  { return r.median(k, func(s sample) int64 { return int64(s.cpu) }) }
func (r *results) peak(k key) int64 { return r.median(k, func(s sample) int64 { return s.peak }) }
func (r *results) stored(k key) int64 {
	return r.median(k, func(s sample) int64 { return s.stored })
}
func (r *results) apart(k key) int64 { // what was stored, manifests apart
	return r.median(k, func(s sample) int64 { return s.stored - s.manifest })
}

// storedText says what was stored and, where they matter, what of it are
// manifests.
func (r *results) storedText(k key) string {
	all, apart := r.stored(k), r.apart(k)
	if all == apart || all > 100*(all-apart) {
		return bytesText(all)
	}
	return fmt.Sprintf("%s, %s of it manifest", bytesText(all), bytesText(all-apart))
}

// median of a figure, 0 without samples. Of an even number it is the larger of
// the two in the middle: nothing is made to look better than it was.
func (r *results) median(k key, figure func(sample) int64) int64 {
	samples, _ := r.quiet(k)
	if len(samples) == 0 {
		return 0
	}
	figures := make([]int64, len(samples))
	for i, s := range samples {
		figures[i] = figure(s)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

func seconds(nanoseconds int64) string {
	return fmt.Sprintf("%.2f s", time.Duration(nanoseconds).Seconds())
}

func bytesText(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}
