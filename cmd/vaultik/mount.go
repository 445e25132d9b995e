package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
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
			"Stays until it is interrupted or unmounted (fusermount3 -u DIR, umount DIR).",
		Flags: readingFlags(
			&cli.BoolFlag{Name: "background", Usage: "return once the mount is ready, and stay in the background"},
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
	if a.env(readyVariable) != "" {
		// Else what identity_command leaves behind could hold it open, and
		// keep the one in the foreground waiting.
		unix.CloseOnExec(readyFD)
	}
	// First what costs nothing: a mistyped folder should not wait for a store.
	if dir, err = checkFolder(dir); err != nil {
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
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()

	o := fusefs.Options{AllowOther: c.Bool("allow-other"), Warn: func(err error) { a.ui.warn("%v", err) }}
	var m *fusefs.Mount
	what := r.url.String()
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
		a.ui.progress("loading the metadata of %s", s.ID)
		var tree *fs.Tree
		if tree, err = catalog.OpenSnapshot(c.Context, s); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		what = s.ID
		m, err = fusefs.MountTree(dir, tree, o)
	}
	if err != nil {
		return err
	}
	a.ui.say("%s is mounted on %s", what, quote(m.Dir()))
	if a.env(readyVariable) != "" {
		if err := detach(); err != nil {
			return errors.Join(err, m.Unmount())
		}
	} else {
		a.ui.say("unmount with ctrl-C, or: fusermount3 -u %s", shellQuote(m.Dir()))
	}
	return a.serve(c.Context, m)
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

// checkFolder refuses a mountpoint that is missing, no folder or a vaultik
// mount, and returns where it is.
func checkFolder(dir string) (string, error) {
	place, err := fusefs.Mountpoint(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mountpoint %q does not exist; make it: mkdir %s", dir, shellQuote(dir))
	case errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("mountpoint %q is not a folder", dir)
	}
	return place, err
}

// keepApart refuses a mountpoint inside what the mount itself needs, or around
// it, where it could wait for itself forever, and inside or around what a set
// backs up, where the mount would hide files from the backup. A set of "/" is
// the exception: there is no place outside it, and a backup leaves vaultik's
// mounts out.
func (r *reading) keepApart(dir string) error {
	type place struct{ path, what string }
	places := []place{{r.where.state, "the state folder"}, {r.where.cache, "the cache folder"}}
	if r.url.folder != "" {
		places = append(places, place{r.url.folder, "the store"})
	}
	if r.conf != nil {
		for _, n := range r.conf.setNames() {
			for _, p := range r.conf.Sets[name{n}].Paths {
				if p.string != "/" {
					places = append(places, place{p.string, fmt.Sprintf("what set %q backs up", n)})
				}
			}
		}
	}
	for _, p := range places {
		if inside(dir, p.path) {
			return fmt.Errorf("mountpoint %q is inside %s, %q; choose a folder elsewhere", dir, p.what, p.path)
		}
		if inside(p.path, dir) {
			return fmt.Errorf("%s, %q, is inside the mountpoint %q, which would hide it; choose a folder elsewhere", p.what, p.path, dir)
		}
	}
	return nil
}

// inside reports whether path is folder or below it, wherever links lead.
func inside(path, folder string) bool {
	path, folder = real(path), real(folder)
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// real follows the links in a path as far as it exists.
func real(path string) string {
	path = filepath.Clean(path)
	resolved, err := filepath.EvalSymlinks(path)
	if up := filepath.Dir(path); err != nil && up != path {
		return filepath.Join(real(up), filepath.Base(path))
	}
	if err != nil {
		return path
	}
	return resolved
}
