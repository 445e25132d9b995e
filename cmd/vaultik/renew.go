package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/renew"
)

func (a *app) renewCommand() *cli.Command {
	return &cli.Command{
		Name: "renew", Usage: "lengthen the object locks of all that snapshots need; needs no identity",
		OnUsageError: usageError,
		Description: "Locks whose time is a quarter gone are lengthened to object_lock from now on.\n" +
			"What no snapshot needs is left alone, so that prune can delete it some day.\n" +
			"Run it every week, with credentials that may s3:PutObjectRetention.",
		Flags: readingFlags(
			&cli.StringFlag{Name: "writer", Usage: "only the writer `NAME`"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only say what would be done"},
			&cli.StringFlag{Name: "object-lock", Usage: "lock for `TIME` (default: the config's object_lock)"},
			&cli.StringFlag{Name: "object-lock-mode", Usage: "`MODE` of locks that begin now: compliance or governance (default: the config's)"},
		),
		Action: a.renew,
	}
}

// renewedLine is what JSON says of a writer whose locks were renewed.
type renewedLine struct {
	Type    string `json:"message_type"`
	Writer  string `json:"writer"`
	DryRun  bool   `json:"dry_run"`
	Needed  int64  `json:"needed"`  // object versions that retained snapshots need
	Bytes   int64  `json:"bytes"`   // of them
	Renewed int64  `json:"renewed"` // with --dry-run: would be
	Missing int64  `json:"missing"` // needed objects that are not there
	Soonest string `json:"soonest"` // when the first lock ends; "" if something needed is not locked
}

func (a *app) renew(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.past {
		return fmt.Errorf("--as-of: %w", remote.ErrReadOnly)
	}
	lock, err := a.lockToRenew(c, r)
	if err != nil {
		return err
	}
	// A store that cannot lock is to be told before everything else.
	if err := stores.LockUploads(c.Context, r.store, lock); err != nil {
		return err
	}
	names, err := r.writers(c.Context, c.String("writer"))
	if err != nil {
		return err
	}
	return a.renewWriters(c, r, lock, names)
}

func (a *app) lockToRenew(c *cli.Context, r *reading) (remote.Lock, error) {
	var length config.LockTime
	var mode config.LockMode
	if r.conf != nil {
		length, mode = r.conf.ObjectLock, r.conf.ObjectLockMode
	}
	if err := lockOptions(c, &length, &mode); err != nil {
		return remote.Lock{}, err
	}
	lock := config.LockOf(length, mode, a.now)
	if lock.For == 0 {
		return lock, errors.New("nothing says for how long to lock: add --object-lock TIME, or object_lock to the config")
	}
	return lock, nil
}

func (a *app) renewWriters(c *cli.Context, r *reading, lock remote.Lock, names []string) error {
	o := renew.Options{Store: r.store, Lock: lock, Now: a.now, DryRun: c.Bool("dry-run")}
	var rows [][]string
	var flaws []error
	for _, name := range names {
		state, err := remote.ReadWriter(c.Context, r.store, r.root, name)
		if c.Context.Err() != nil || errors.Is(err, remote.ErrNoStore) {
			return err
		}
		if err != nil { // the others' locks end all the same
			flaws = append(flaws, fmt.Errorf("writer %q: nothing was renewed: %w", name, err))
			continue
		}
		flaws = append(flaws, state.Flaws(r.seen, r.url.String(), a.now())...)
		if len(state.Signers.Certificates) == 0 {
			continue // nobody knows what it needs
		}
		o.Progress = func(looked int64) { a.ui.Progress("", "%s: %s object versions looked at", name, ui.Count(looked)) }
		report, err := renew.Run(c.Context, o, state)
		if err != nil && len(names) > 1 && c.Context.Err() == nil && !errors.Is(err, remote.ErrNoStore) && !errors.Is(err, remote.ErrNoLock) {
			flaws = append(flaws, fmt.Errorf("renew the locks of writer %q, which may be repeated: %w", name, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("renew the locks of writer %q, which may be repeated: %w", name, err)
		}
		if report.Missing > 0 {
			flaws = append(flaws, fmt.Errorf("writer %q: %w: %s objects that snapshots need are not there, or not in their size; \"vaultik audit\" says which",
				name, remote.ErrMissing, ui.Count(report.Missing)))
		}
		flaws = append(flaws, report.Flaws...)
		a.ui.Result(lineOfRenewal(report, o.DryRun))
		until := "-"
		if !report.Soonest.IsZero() {
			until = ui.When(report.Soonest)
		}
		rows = append(rows, []string{name, ui.Count(report.Needed), ui.Size(report.Bytes), ui.Count(report.Renewed), until})
	}
	renewed := "<RENEWED"
	if o.DryRun {
		renewed = "<TO RENEW"
	}
	a.ui.Table([]string{"WRITER", "<NEEDED", "<SIZE", renewed, "ALL LOCKED UNTIL"}, rows)
	if err := r.noneCertified(flaws, names); err != nil {
		return err
	}
	a.tell(r, flaws)
	return r.verdict()
}

func lineOfRenewal(r renew.Report, dry bool) renewedLine {
	line := renewedLine{Type: "renewed", Writer: r.Writer, DryRun: dry, Needed: r.Needed, Bytes: r.Bytes, Renewed: r.Renewed, Missing: r.Missing}
	if !r.Soonest.IsZero() {
		line.Soonest = r.Soonest.UTC().Format(time.RFC3339)
	}
	return line
}

// lockOptions reads --object-lock and --object-lock-mode.
func lockOptions(c *cli.Context, length *config.LockTime, mode *config.LockMode) error {
	if text := c.String("object-lock"); text != "" {
		if err := length.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("--object-lock: %w", err)
		}
	}
	if text := c.String("object-lock-mode"); text != "" {
		if err := mode.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("--object-lock-mode: %w", err)
		}
	}
	return nil
}
