package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fusefs"
)

func (a *app) mountCommand() *cli.Command {
	return &cli.Command{
		Name: "mount", Usage: "show a snapshot, or the whole store, as a read-only folder", ArgsUsage: "[SNAPSHOT] DIR",
		OnUsageError: usageError,
		Description: "Without SNAPSHOT, DIR shows snapshots/ID/, sets/SET/TIME/ and latest links; with one,\n" +
			"that snapshot's tree, which begins at /. Restore with cp -a or rsync -aHAX.\n" + snapshotNames + "\n\n" +
			"Stays until it is interrupted or unmounted (fusermount3 -u DIR, umount DIR). In the background\n" +
			"it writes what goes wrong to " + mountLogFile + " in the state folder (at most 1 MiB, and as much in\n" +
			mountLogFile + ".old).",
		Flags: readingFlags(
			&cli.BoolFlag{Name: "background", Usage: "return once the mount is ready, and stay in the background"},
			&cli.BoolFlag{Name: "nonempty", Usage: "mount on a folder that is not empty, and hide what is in it as long"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, as far as the files' owners and modes do"}),
		Action: func(c *cli.Context) error {
			if err := words(c, 1, 2); err != nil {
				return err
			}
			if c.Bool("background") && a.env(readyVariable) == "" {
				return a.inBackground(c.Context)
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
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	background := a.env(readyVariable) != ""
	var callers []int
	if background {
		// Else what identity_command leaves behind could hold it open, and
		// keep the one in the foreground waiting.
		unix.CloseOnExec(readyFD)
		if callers, err = inherited(); err != nil {
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
	later, log := a.ui, (*mountLog)(nil) // who says what goes wrong while it is mounted
	if background {
		if log, err = openMountLog(r.where.state, dir, a.now); err != nil {
			a.ui.warn("what goes wrong later cannot be logged: %v", err)
		} else {
			later = &ui{stdout: io.Discard, stderr: log}
		}
	}
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()

	o := fusefs.Options{AllowOther: c.Bool("allow-other"), Warn: func(err error) { later.warn("%v", err) }}
	var m *fusefs.Mount
	what, id := r.url.String(), ""
	if snapshot == "" {
		if err := r.id.check(catalog.Snapshots()...); err != nil {
			return err
		}
		m, err = fusefs.MountCatalog(dir, catalog, o)
	} else {
		var s fs.Snapshot
		if s, err = catalog.Resolve(snapshot, r.own); err != nil {
			return err
		}
		if err := r.id.check(s); err != nil {
			return err
		}
		a.ui.progress("", "loading the metadata of %s", s.ID)
		var tree *fs.Tree
		if tree, err = catalog.OpenSnapshot(c.Context, s); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		what, id = s.ID, s.ID
		m, err = fusefs.MountTree(dir, tree, o)
	}
	if err != nil {
		return err
	}
	a.mounted(m, what, id, r.url.String(), log)
	if background {
		if err := detach(log, callers); err != nil {
			return errors.Join(err, m.Unmount())
		}
		a.ui = later
	}
	return a.serve(c.Context, m)
}

// mounted says what is where.
func (a *app) mounted(m *fusefs.Mount, what, snapshot, store string, log *mountLog) {
	result := struct {
		Type       string `json:"message_type"`
		Snapshot   string `json:"snapshot,omitempty"` // none: the whole store
		Store      string `json:"store"`
		Mountpoint string `json:"mountpoint"`
		Log        string `json:"log,omitempty"`
	}{Type: "mounted", Snapshot: snapshot, Store: store, Mountpoint: m.Dir()}
	a.ui.say("%s is mounted on %s", what, quote(m.Dir()))
	switch {
	case log != nil:
		result.Log = log.path
		a.ui.say("unmount: fusermount3 -u %s; what goes wrong is written to %s", shellQuote(m.Dir()), quote(log.path))
	case a.env(readyVariable) != "":
		a.ui.say("unmount: fusermount3 -u %s", shellQuote(m.Dir()))
	default:
		a.ui.say("unmount with ctrl-C, or: fusermount3 -u %s", shellQuote(m.Dir()))
	}
	a.ui.result(result)
}

// serve waits for the end of the mount, by whomever. Being told to stop while
// somebody is inside, it waits until they have left; a second signal makes it
// give up and leave the mount behind, dead.
func (a *app) serve(ctx context.Context, m *fusefs.Mount) error {
	ended := make(chan error, 1)
	go func() { ended <- m.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	a.ui.endLine()
	again := make(chan os.Signal, 1)
	signal.Notify(again, endings()...)
	defer signal.Stop(again)
	told := false
	for {
		err := m.Unmount()
		if !errors.Is(err, fusefs.ErrBusy) {
			return err
		}
		if !told {
			a.ui.warn("%v; waiting for that to end, interrupt once more to give up", err)
			told = true
		}
		select {
		case err := <-ended:
			return err
		case <-again:
			return err
		case <-time.After(time.Second):
		}
	}
}
