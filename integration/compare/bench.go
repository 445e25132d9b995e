package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// What is measured of a tool.
const (
	first     = "first backup"
	unchanged = "unchanged"
	edited    = "after edits"
	cold      = "unchanged, caches dropped"
)

// What is measured for comparison, in place of a tool.
const (
	find  = "find"
	bound = "limit"
)

// key is what a sample is of: a tool, or one of the above, and a step.
type key struct{ who, step string }

// results is what was measured on one corpus.
type results struct {
	corpus corpus
	extent extent
	edits  edits
	floor  int64 // peak memory below which none can be measured
	runs   map[key][]sample
}

// quiet returns the samples that count: those that others did not disturb, or
// all if there are none, and then ok is false.
func (r *results) quiet(k key) (s []sample, ok bool) {
	for _, x := range r.runs[k] {
		if x.quiet() {
			s = append(s, x)
		}
	}
	if len(s) == 0 {
		return r.runs[k], false
	}
	return s, true
}

type bench struct {
	options
	tools  []*tool
	work   string
	target string    // where trees come back to: in memory, if there is room
	log    io.Writer // a line for every run
}

func (b *bench) home(t *tool) string { return filepath.Join(b.work, t.name) }

// corpus measures all tools on one corpus.
func (b *bench) corpus(ctx context.Context, c corpus) (*results, error) {
	r := &results{corpus: c, runs: map[key][]sample{}}
	dir := filepath.Join(b.work, "corpus")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	defer b.clear(dir)
	root, err := c.provide(ctx, dir)
	if err != nil {
		return nil, err
	}
	if r.extent, err = warm(ctx, root, c.kind != "sparse"); err != nil {
		return nil, err
	}
	if c.name == "" {
		r.corpus.name = humanize.Comma(int64(r.extent.entries)) + " small files and folders"
	}
	fmt.Fprintf(b.log, "%s: %d entries, %s\n", r.corpus.name, r.extent.entries, bytesText(r.extent.bytes))
	unix.Sync()
	// Whatever was made just now must look old to the tools: they read again
	// what was modified as late as this.
	time.Sleep(3 * time.Second)
	// Only so many rounds: on a machine that is never quiet there is no end.
	for round := 0; round < b.runs || round < 2*b.runs && !b.short; round++ {
		tools := b.due(r, round)
		if len(tools) == 0 {
			break
		}
		if err := b.round(ctx, r, root, round, tools); err != nil {
			return nil, err
		}
	}
	if b.cold && c.kind != "sparse" && c.kind != "random" {
		for range b.runs {
			if err := b.coldRound(ctx, r, root); err != nil {
				return nil, err
			}
		}
	}
	r.floor, err = leastPeak()
	return r, err
}

// clear makes room for the next corpus; what fails here fails there, too.
func (b *bench) clear(dir string) {
	os.RemoveAll(dir)
	for _, t := range b.tools {
		os.RemoveAll(b.home(t))
	}
}

// due lists the tools that need the round, another one first each time.
func (b *bench) due(r *results, round int) (due []*tool) {
	for i := range b.tools {
		t := b.tools[(i+round)%len(b.tools)]
		missing, slow := round == 0, false
		for _, step := range b.steps(r.corpus) {
			k := key{t.name, step}
			quiet, ok := r.quiet(k)
			missing = missing || !ok || len(quiet) < b.runs
			for _, s := range r.runs[k] {
				slow = slow || s.wall > b.patience
			}
		}
		if missing && !slow {
			due = append(due, t)
		}
	}
	return due
}

func (b *bench) steps(c corpus) []string {
	if c.kind == "source" {
		return []string{first, unchanged, edited}
	}
	return []string{first, unchanged}
}

// round measures every step once.
func (b *bench) round(ctx context.Context, r *results, root string, round int, tools []*tool) error {
	for _, t := range tools {
		if err := t.fresh(ctx, b.home(t), root); err != nil {
			return err
		}
		if err := b.backup(ctx, r, t, root, first); err != nil {
			return err
		}
	}
	if r.corpus.kind == "random" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		if err := b.yardstick(r, key{bound, first}, func() *exec.Cmd {
			return command(ctx, self, "-limit", filepath.Join(root, "random"))
		}); err != nil {
			return err
		}
	}
	for _, t := range tools {
		if err := b.backup(ctx, r, t, root, unchanged); err != nil {
			return err
		}
	}
	if err := b.yardstick(r, key{find, unchanged}, findCommand(ctx, root)); err != nil {
		return err
	}
	if r.corpus.kind != "source" {
		return nil
	}
	if err := b.reading(ctx, r, root, tools); err != nil {
		return err
	}
	var err error
	if r.edits, err = edit(root, uint64(round)); err != nil {
		return fmt.Errorf("edit the tree: %w", err)
	}
	time.Sleep(3 * time.Second) // see corpus
	for _, t := range tools {
		if err := b.backup(ctx, r, t, root, edited); err != nil {
			return err
		}
	}
	return nil
}

// coldRound measures unchanged backups when the kernel has forgotten all.
func (b *bench) coldRound(ctx context.Context, r *results, root string) error {
	if err := dropCaches(); err != nil {
		return err
	}
	if err := b.yardstick(r, key{find, cold}, findCommand(ctx, root)); err != nil {
		return err
	}
	for _, t := range b.tools {
		if err := dropCaches(); err != nil {
			return err
		}
		if err := b.backup(ctx, r, t, root, cold); err != nil {
			return err
		}
	}
	return nil
}

// findCommand looks at everything that tells whether a file has changed.
func findCommand(ctx context.Context, root string) func() *exec.Cmd {
	return func() *exec.Cmd { return command(ctx, "find", root, "-printf", `%s %T@ %C@ %i\n`) }
}

// backup measures a backup of one tool.
func (b *bench) backup(ctx context.Context, r *results, t *tool, root, step string) error {
	tries := 1
	if step == unchanged {
		tries = calm
	}
	return b.measure(r, key{t.name, step}, tries, func() (sample, error) {
		home := b.home(t)
		all, manifests, err := sizes(store(home))
		if err != nil {
			return sample{}, err
		}
		if step == first {
			all, manifests = 0, 0 // what a new store costs belongs to it
		}
		s, err := measure(t.command(ctx, home, t.backup(home, root)))
		if err != nil {
			return sample{}, err
		}
		newAll, newManifests, err := sizes(store(home))
		s.stored, s.manifest = newAll-all, newManifests-manifests
		return s, err
	})
}

// yardstick measures what is not a backup.
func (b *bench) yardstick(r *results, k key, command func() *exec.Cmd) error {
	tries := calm
	if k.step == cold {
		tries = 1
	}
	return b.measure(r, k, tries, func() (sample, error) { return measure(command()) })
}

// calm is how often something that changes nothing, and so can be had again at
// once, is tried until a run is undisturbed.
const calm = 3

func (b *bench) measure(r *results, k key, tries int, once func() (sample, error)) error {
	for range tries {
		s, err := once()
		if err != nil {
			return err
		}
		b.note(r, k, s)
		if s.quiet() || b.short {
			break
		}
	}
	return nil
}

func (b *bench) note(r *results, k key, s sample) {
	r.runs[k] = append(r.runs[k], s)
	noise := ""
	if !s.quiet() {
		noise = fmt.Sprintf(" (disturbed: others used %.0f %% of the CPU)", 100*s.noise)
	}
	fmt.Fprintf(b.log, "  %-8s %-26s %8.2f s wall %8.2f s CPU %9s peak %9s stored%s\n", k.who, k.step,
		s.wall.Seconds(), s.cpu.Seconds(), bytesText(s.peak), bytesText(s.stored), noise)
}
