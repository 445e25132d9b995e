package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/daemon"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fusefs"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
)

func (a *app) mountCommand() *cli.Command {
	return &cli.Command{
		Name: "mount", Usage: "show a snapshot, or the whole store, as a read-only folder", ArgsUsage: "[SNAPSHOT] DIR",
		OnUsageError: usageError,
		Description: "Without SNAPSHOT, DIR shows snapshots/ID/, sets/SET/TIME/ and latest links; with one,\n" +
			"that snapshot's tree, which begins at /. Restore with cp -a or rsync -aHAX.\n" + snapshotNames + "\n\n" +
			"Stays until it is interrupted or unmounted (fusermount3 -u DIR, umount DIR); while\n" +
			"it is in use, it waits, and if interrupted again, gives up. In the background it\n" +
			"writes what goes wrong to " + daemon.LogFile + " in the state folder (at most 1 MiB, and as\n" +
			"much in " + daemon.LogFile + ".old). SIGHUP makes it look for new snapshots, unless it has a\n" +
			"terminal.\n\n" +
			"A mount that a crash left on DIR is replaced. In /etc/fstab the type is\n" +
			"fuse.vaultik, the source a store's URL or vaultik, and these options are mount\n" +
			"options as well, beside snapshot=, uid= and gid=.",
		Flags: readingFlags(
			&cli.BoolFlag{Name: "background", Usage: "return once the mount is ready, and stay in the background"},
			&cli.BoolFlag{Name: "nonempty", Usage: "mount on a folder that is not empty, and hide what is in it as long"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, as far as the files' owners and modes do"},
			&cli.GenericFlag{Name: "owner", Value: &ownerFlag{}, Usage: "show everything as yours, or as `USER[:GROUP]`'s; the owner may read it all, and files lose setuid and setgid"},
			&cli.BoolFlag{Name: "noexec", Usage: "run no programs from the mount"},
			&cli.DurationFlag{Name: "refresh", Value: time.Minute, DefaultText: "1m", Usage: "look for new snapshots so `OFTEN`; 0 is never"},
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, DefaultText: "1m", Usage: "let programs wait so `LONG` for the store before they get an input/output error"}),
		Action: func(c *cli.Context) error {
			if err := words(c, 1, 2); err != nil {
				return err
			}
			if c.Bool("background") && a.env(daemon.Variable) == "" {
				code, err := daemon.Start(c.Context)
				if code > 0 {
					return &exitError{code: code}
				}
				return err
			}
			return a.mount(c)
		},
	}
}

func (a *app) mount(c *cli.Context) (err error) {
	snapshot, dir := "", c.Args().First()
	if c.Args().Len() == 2 {
		snapshot, dir = c.Args().Get(0), c.Args().Get(1)
	}
	defer collectOften()()
	o, err := a.mountOptions(c)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	background := a.env(daemon.Variable) != ""
	terminal := !background && daemon.HasTerminal() // asked before it may close
	var callers []int
	if background {
		if callers, err = daemon.Inherited(); err != nil {
			return err
		}
	}
	// First what costs nothing: a mistyped folder should not wait for a store.
	if dir, err = a.checkFolder(c, dir); err != nil {
		return err
	}
	r, err := a.open(c, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.keepApart(dir); err != nil {
		return err
	}
	if err := checkEmpty(dir); err != nil && !c.Bool("nonempty") {
		return err
	}
	later, log := a.ui, (*daemon.Log)(nil) // who says what goes wrong while it is mounted
	if background {
		if log, err = daemon.OpenLog(r.where.State, dir, a.now); err != nil {
			a.ui.Warn("what goes wrong later cannot be logged: %v", err)
		} else {
			later = &ui.Printer{Out: io.Discard, Err: log}
		}
	}
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()

	o.Warn = func(err error) { later.Warn("%v", err) }
	attach := func(mount func() (*fusefs.Mount, error)) (*fusefs.Mount, error) {
		// Until now, whoever copied from a dead mount met errors, not an empty
		// folder.
		if err := mountpoint.RemoveDead(dir); err != nil {
			return nil, err
		}
		if err := checkEmpty(dir); err != nil && !c.Bool("nonempty") {
			return nil, err
		}
		return mount()
	}
	var m *fusefs.Mount
	what, id := r.url.String(), ""
	if snapshot == "" {
		if err := r.id.Check(catalog.Snapshots()...); err != nil {
			return err
		}
		m, err = attach(func() (*fusefs.Mount, error) { return fusefs.MountCatalog(dir, catalog, o) })
	} else {
		var s fs.Snapshot
		if s, err = catalog.Resolve(snapshot, r.own); err != nil {
			return err
		}
		if err := r.id.Check(s); err != nil {
			return err
		}
		a.ui.Progress("", "loading the metadata of %s", s.ID)
		var tree *fs.Tree
		if tree, err = catalog.OpenSnapshot(c.Context, s); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		what, id = s.ID, s.ID
		m, err = attach(func() (*fusefs.Mount, error) { return fusefs.MountTree(dir, tree, o) })
	}
	if err != nil {
		return err
	}
	a.mounted(m, what, id, r.url.String(), log)
	if background {
		if err := daemon.Detach(log, callers); err != nil {
			return errors.Join(err, m.Unmount())
		}
		a.ui = later
	}
	if err := daemon.NotifyReady(a.env("NOTIFY_SOCKET")); err != nil {
		a.ui.Warn("%v", err)
	}
	return a.serve(c.Context, m, terminal)
}

// mountOptions are those that say how the mount behaves.
func (a *app) mountOptions(c *cli.Context) (fusefs.Options, error) {
	o := fusefs.Options{
		Source: a.source, AllowOther: c.Bool("allow-other"), Owner: c.Generic("owner").(*ownerFlag).Owner, NoExec: c.Bool("noexec"),
		Refresh: c.Duration("refresh"), Timeout: c.Duration("timeout"),
	}
	switch {
	case o.Refresh < 0 || o.Refresh > 0 && o.Refresh < time.Second:
		return o, fmt.Errorf("--refresh %v: choose a second or more, or 0 for never", o.Refresh)
	case o.Refresh == 0:
		o.Refresh = -1
	case o.Timeout < time.Second:
		return o, fmt.Errorf("--timeout %v: choose a second or more", o.Timeout)
	}
	return o, nil
}
