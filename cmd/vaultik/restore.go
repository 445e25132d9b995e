package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/restore"
	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
)

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "write a snapshot, or a part of it, into a folder", ArgsUsage: "SNAPSHOT[:PATH] DIR",
		OnUsageError: usageError,
		Description: "The snapshot's tree, which begins at /, comes below DIR: what was /home/ann/x is DIR/home/ann/x.\n" +
			"With PATH, DIR becomes a copy of that folder, or gets that file. What is in DIR and the same is\n" +
			"left alone, so a second run goes on where one was interrupted. Owners, setuid bits, devices and\n" +
			"attributes of the system are restored as root only.\n" + snapshotNames,
		Flags: readingFlags(
			&cli.StringSliceFlag{Name: "include", Aliases: []string{"i"}, Usage: "restore only what matches `PATTERN` (as for exclude), with all below; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Aliases: []string{"e"}, Usage: "leave out what matches `PATTERN` (gitignore syntax); may be repeated"},
			&cli.StringFlag{Name: "overwrite", Value: string(restore.IfChanged), Usage: "overwrite what is there `WHEN`: always, if-changed (size or time differ), if-newer (the snapshot's is) or never"},
			&cli.BoolFlag{Name: "delete", Usage: "delete what the snapshot does not have, within the paths that were backed up and but for what was excluded; asks first"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "delete without asking"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "change nothing, and say what would be done; with --verbose for every path"},
			&cli.BoolFlag{Name: "verify", Usage: "read all files back, those that were left alone too, and compare"}),
		Action: func(c *cli.Context) error {
			if err := words(c, 2, 2); err != nil {
				return err
			}
			return a.restore(c)
		},
	}
}

func (a *app) restore(c *cli.Context) (err error) {
	snapshot, path, _ := strings.Cut(c.Args().Get(0), ":")
	dir, err := filepath.Abs(c.Args().Get(1))
	if err != nil {
		return err
	}
	o := restore.Options{
		Path: path, Target: dir, Include: c.StringSlice("include"), Exclude: c.StringSlice("exclude"),
		Overwrite: restore.Overwrite(c.String("overwrite")), Delete: c.Bool("delete"), DryRun: c.Bool("dry-run"),
		Verify: c.Bool("verify"), Root: a.root,
	}
	if err := o.Check(); err != nil {
		return err
	}
	r, err := a.open(c, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.keepOut(dir); err != nil {
		return err
	}
	if !c.IsSet("cache-size") {
		if err := r.pastCache(); err != nil {
			return err
		}
	}
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()
	s, err := catalog.Resolve(snapshot, r.own)
	if err != nil {
		return err
	}
	if err := r.id.Check(s); err != nil {
		return err
	}
	a.ui.Progress("", "loading the metadata of %s", s.ID)
	if o.Tree, err = catalog.OpenSnapshot(c.Context, s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Tree.Close()) }()
	o.Keep, o.Temp = r.ownFolders(), r.where.Cache
	if r.conf != nil && s.Writer == r.own {
		// A snapshot does not tell this one.
		if set, ok := r.conf.Set(s.Set); ok {
			o.LargerThan = int64(set.ExcludeLargerThan)
		}
	}
	if !c.Bool("yes") {
		o.Confirm = a.confirmDeletion
	}
	if os.Getenv("GOGC") == "" {
		// What it holds is mostly large buffers, which cost a collector nothing
		// to look at.
		defer debug.SetGCPercent(debug.SetGCPercent(50))
	}
	watch := &restoreWatcher{ui: a.ui, now: a.now, began: a.now(), list: a.ui.Verbose}
	o.Report = watch.report
	result, err := restore.Run(c.Context, o)
	a.ui.Done()
	if err != nil {
		return a.restoreFailed(result, err)
	}
	a.restored(s.ID, dir, o, result, a.now().Sub(watch.began))
	if result.Incomplete() {
		return &exitError{code: exitCode(errIncomplete)} // told above
	}
	return r.verdict()
}

// restoreFailed says what an ended restore leaves behind.
func (a *app) restoreFailed(result *restore.Result, err error) error {
	switch {
	case errors.Is(err, disk.ErrBusy):
		return fmt.Errorf("%w: %w", state.ErrLocked, err)
	case result != nil && result.Done != (restore.Counts{}):
		a.ui.Note("what was restored is complete and stays; the same command goes on from there")
	}
	return err
}

// pastCache takes the cache of contents away: what is fetched once only drives
// out of it what a mount fetches time and again.
func (r *reading) pastCache() error {
	cached, ok := r.store.(cachedStore)
	if !ok {
		return nil
	}
	r.store = cached.store
	return cached.Cache.Close()
}

// ownFolders are what no restore may delete.
func (r *reading) ownFolders() []string {
	own := []string{r.where.State, r.where.Cache}
	if r.url.Folder() != "" {
		own = append(own, r.url.Folder())
	}
	return own
}

// keepOut refuses to restore into what vaultik itself needs.
func (r *reading) keepOut(dir string) error {
	for i, own := range r.ownFolders() {
		if own != "" && state.Inside(dir, own) {
			return fmt.Errorf("%q is inside %s, %q; restore into a folder elsewhere", dir, []string{"the state folder", "the cache folder", "the store"}[i], own)
		}
	}
	return nil
}

// confirmDeletion asks before anything is deleted.
func (a *app) confirmDeletion(_ context.Context, d restore.Deletion) (bool, error) {
	if a.ui.JSON || a.ui.Quiet {
		return false, fmt.Errorf("%s would be deleted; add --yes to agree, or --dry-run to see which", ui.Plural(d.Entries, "entry", "entries"))
	}
	for _, p := range d.Paths {
		a.ui.Print("not in the snapshot: %s", ui.Quote(p))
	}
	if more := d.Entries - int64(len(d.Paths)); more > 0 {
		a.ui.Print("and %s more", ui.Count(more))
	}
	return a.agreed(fmt.Sprintf("delete %s, %s?", ui.Plural(d.Entries, "entry", "entries"), ui.Size(d.Bytes)))
}

// agreed asks somebody, and takes no answer for no consent.
func (a *app) agreed(question string) (bool, error) {
	if a.ui.JSON || a.ui.Quiet {
		return false, errors.New("nobody can be asked; add --yes to agree, or --dry-run to see what would be done")
	}
	a.ui.Ask("%s [y/N] ", question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	switch answer := strings.ToLower(strings.TrimSpace(line)); {
	case answer == "y" || answer == "yes":
		return true, nil
	case err != nil && answer == "":
		return false, errors.New("nobody answered; add --yes to agree, or --dry-run to see what would be done")
	}
	return false, nil
}
