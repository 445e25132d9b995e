package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/backup"
)

func (a *app) backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up all sets of the config, or those named", ArgsUsage: "[SET…]",
		OnUsageError: usageError,
		Description: "The options about leaving out add to what the config says, for this run only: what a\n" +
			"run leaves out is gone from the set, and the next run without the option stores it anew.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "tag", Usage: "keep `TEXT` with the snapshot, readable by whoever can read the store; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Aliases: []string{"e"}, Usage: "leave out what matches `PATTERN` (gitignore syntax); may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-file", Usage: "patterns from `FILE`; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-if-present", Usage: "leave out what is in folders that hold an entry `NAME`, but not the folder itself and that entry; may be repeated"},
			&cli.StringFlag{Name: "exclude-larger-than", Usage: "leave out files of more than `SIZE`, such as 100MiB"},
			&cli.BoolFlag{Name: "exclude-caches", Usage: "leave out what is in folders marked by a CACHEDIR.TAG"},
			&cli.BoolFlag{Name: "one-file-system", Aliases: []string{"x"}, Usage: "leave out what is mounted below the paths"},
			&cli.StringFlag{Name: "compression", Usage: "compress as `LEVEL`: fastest, default, better, max or off (default: the config's compression)"},
			&cli.StringFlag{Name: "limit-upload", Usage: "upload no faster than `RATE`, such as 500kB/s or 5MiB/s (default: the config's limit_upload)"},
			&cli.BoolFlag{Name: "cron", Usage: "print nothing unless something is wrong"},
		},
		Action: a.backup,
	}
}

func (a *app) backup(c *cli.Context) (err error) {
	if c.Bool("cron") {
		a.ui.Quiet = true
	}
	defer collectOften()()
	w, err := a.openWriter(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	worst := 0
	for _, set := range w.sets {
		err := a.backupSet(c, w, set)
		if err != nil && c.Context.Err() != nil {
			return fmt.Errorf("set %s was not finished; what was uploaded is kept, and the next run goes on from there", set.Name)
		}
		code := exitCode(err)
		if err != nil && !errors.Is(err, errIncomplete) {
			if len(w.sets) > 1 {
				err = fmt.Errorf("backup of %s: %w", set.Name, err)
			}
			a.ui.Fail(err, code)
		}
		worst = worse(worst, code)
	}
	if worst != 0 {
		return &exitError{code: worst}
	}
	return nil
}

// backupSet makes one snapshot and says what came of it.
func (a *app) backupSet(c *cli.Context, w *writing, set backup.Set) error {
	watch := &watcher{ui: a.ui, set: set.Name, now: a.now}
	conf := w.config
	if set.Name != w.sets[0].Name { // since the set before, a new key may have come into charge
		var err error
		if conf.Signer, err = a.signer(c.Context, w, conf.Store, conf.Index); err != nil {
			return err
		}
	}
	conf.Report = watch.report
	r, err := backup.Run(c.Context, conf, set)
	a.ui.Done()
	if err != nil {
		return err
	}
	if c.Bool("cron") {
		if !r.Incomplete() {
			return nil
		}
		a.ui.Quiet = false // what was saved belongs to what went wrong
		defer func() { a.ui.Quiet = true }()
	}
	a.summary(r)
	if r.Incomplete() {
		return errIncomplete
	}
	return nil
}
