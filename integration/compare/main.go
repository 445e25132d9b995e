// Compare measures vaultik beside restic and borg and writes a Markdown page
// with what it found; `make bench` runs it and keeps the page as
// docs/BENCHMARKS.md.
//
// Each tool found, on PATH or by a flag, backs up the same corpora to a fresh
// store in a local folder with its default options: a first backup, one in
// which nothing has changed, and of the source tree one after some edits.
// Corpora are made from seeds or from a Debian package, so that they are the
// same everywhere, or are trees that a flag names:
//
//   - source: the Linux source tree of Debian's linux-source package
//   - tiny: 500,000 and 1,000,000 small files in folders of 500
//   - random: 1 GiB that no compressor makes smaller
//   - sparse: a file of 100 GiB with 64 MiB of data
//
// Of the source tree it is also measured how it comes back: by restore, and by
// programs that read vaultik's mount, beside the same programs on the disk.
//
// Tools take turns, step by step and round by round, so that what else the
// machine does meets all of them. A run during which others used more than a
// tenth of the machine's CPU does not count, and is repeated in a later round;
// if no run of a step was quiet, the page says so. Figures are medians. Peak
// memory is what the kernel saw of the process, CPU is user and system time,
// stored is the sum of the sizes of the files in the store.
//
// With -short everything is small and measured once: that shows that it works,
// and measures nothing.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options is what the flags say.
type options struct {
	work, out              string
	vaultik, restic, borg  string
	source, sourcePackage  string
	tiny                   []string // existing trees
	tinyFiles              []int
	randomSize, sparseSize int64
	sparseData             int64
	corpora                string
	runs                   int
	patience               time.Duration
	cold, short            bool
	limit                  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "compare: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.limit != "" {
		return limit(ctx, o.limit)
	}
	if o.out != "" { // better found out now than in an hour
		f, err := os.OpenFile(o.out, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	tools, err := findTools(ctx, o)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.work, "vaultik-compare-")
	if err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &bench{options: o, tools: tools, work: work, target: target(work), log: os.Stderr}
	var measured []*results
	for _, c := range plan(o) {
		fmt.Fprintf(b.log, "%s: getting it\n", cmp.Or(c.name, "small files"))
		r, err := b.corpus(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", cmp.Or(c.name, "small files"), err)
		}
		measured = append(measured, r)
	}
	m, err := thisMachine(work)
	if err != nil {
		return err
	}
	text := page(o, m, tools, measured, time.Now())
	if o.out == "" {
		_, err = os.Stdout.WriteString(text)
		return err
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// target is where trees come back to: a file system in memory if it has room,
// because a disk on which as many files have just been removed is several times
// slower for a while.
func target(work string) string {
	const dir, room = "/dev/shm", 4 << 30
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC && int64(st.Bavail)*st.Bsize >= room {
		return dir
	}
	return work
}

func parse(args []string) (options, error) {
	o := options{
		tinyFiles: []int{500_000, 1_000_000}, randomSize: 1 << 30, sparseSize: 100 << 30, sparseData: 64 << 20,
	}
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.StringVar(&o.work, "work", os.TempDir(), "make corpora and stores in a new folder below `DIR`, removed at the end")
	f.StringVar(&o.out, "out", "", "write the page to `FILE` (default: standard output)")
	f.StringVar(&o.vaultik, "vaultik", ".bin/vaultik", "`PATH` of vaultik")
	f.StringVar(&o.restic, "restic", "", "`PATH` of restic (default: from PATH, if there)")
	f.StringVar(&o.borg, "borg", "", "`PATH` of borg (default: from PATH, if there)")
	f.StringVar(&o.corpora, "corpora", "source,tiny,random,sparse", "measure only those in `LIST`")
	f.StringVar(&o.source, "source", "", "a copy of the tree `DIR` instead of the Linux source tree")
	f.StringVar(&o.sourcePackage, "source-package", "linux-source-6.1", "Debian `PACKAGE` with the Linux source tree; installed with apt if it is not there")
	f.Func("tiny", "the tree `DIR` instead of generated small files; may be repeated", func(s string) error {
		o.tiny = append(o.tiny, s)
		return nil
	})
	f.Func("tiny-files", "generate corpora of so many small files, a `LIST` (default 500000,1000000)", func(s string) error {
		o.tinyFiles = nil
		for word := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of files", word)
			}
			o.tinyFiles = append(o.tinyFiles, n)
		}
		return nil
	})
	f.IntVar(&o.runs, "n", 3, "quiet `RUNS` of each step to take the median of")
	f.DurationVar(&o.patience, "patience", 3*time.Minute, "measure a tool once on a corpus where a step takes longer than `TIME`")
	f.BoolVar(&o.cold, "cold", false, "also measure unchanged backups with the kernel's caches dropped (root only; disturbs whatever else runs)")
	f.BoolVar(&o.short, "short", false, "small corpora, one run: to see that it works")
	f.StringVar(&o.limit, "limit", "", "only cut, hash and encrypt `FILE` as a backup does, to see how long that takes")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: there are only flags, see -help", f.Arg(0))
	}
	if o.runs < 1 {
		return o, errors.New("-n must be at least 1")
	}
	for word := range strings.SplitSeq(o.corpora, ",") {
		if !strings.Contains(" source tiny random sparse ", " "+word+" ") {
			return o, fmt.Errorf("-corpora: there is no %q, but source, tiny, random and sparse", word)
		}
	}
	if o.short {
		o.tinyFiles, o.randomSize, o.sparseSize, o.sparseData, o.runs = []int{5000}, 64<<20, 1<<30, 4<<20, 1
	}
	return o, o.absolute()
}

// absolute makes paths absolute, because the tools run in other folders.
func (o *options) absolute() error {
	paths := []*string{&o.work, &o.vaultik, &o.source}
	for i := range o.tiny {
		paths = append(paths, &o.tiny[i])
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// findTools returns the tools to compare, vaultik first. Those that are not
// there are left out, unless a flag names them.
func findTools(ctx context.Context, o options) ([]*tool, error) {
	var found []*tool
	for _, t := range []struct {
		*tool
		path string
	}{{newVaultik(), o.vaultik}, {newRestic(), o.restic}, {newBorg(), o.borg}} {
		path := t.path
		if path == "" {
			path = t.name
		}
		var err error
		if t.program, err = exec.LookPath(path); err != nil {
			if t.path == "" {
				continue
			}
			return nil, fmt.Errorf("find %s: %w (make build makes vaultik; -%s PATH says where it is)", t.name, err, t.name)
		}
		if t.program, err = filepath.Abs(t.program); err != nil {
			return nil, err
		}
		if err := t.askVersion(ctx); err != nil {
			return nil, err
		}
		found = append(found, t.tool)
	}
	return found, nil
}
