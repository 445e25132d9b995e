package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
)

// checkFolder refuses a mountpoint that is missing, no folder or a vaultik
// mount that is alive, and returns where it is.
func (a *app) checkFolder(c *cli.Context, dir string) (string, error) {
	place, err := mountpoint.Check(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Nobody should be told to make a folder where it would be refused.
		if r := a.expected(c); r != nil {
			if err := r.keepApart(dir); err != nil {
				return "", err
			}
		}
		return "", fmt.Errorf("mountpoint %q does not exist; make it: mkdir %s", dir, ui.ShellQuote(dir))
	case errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("mountpoint %q is not a folder", dir)
	case errors.Is(err, mountpoint.ErrMounted):
		return "", fmt.Errorf("%w; unmount it first: fusermount3 -u %s", err, ui.ShellQuote(place))
	case errors.Is(err, mountpoint.ErrDead):
		a.ui.Warn("%v; it is replaced", err)
		return place, nil
	case errors.Is(err, mountpoint.ErrHangs):
		return "", fmt.Errorf("%w; remove it: fusermount3 -uz %s (as root: umount -fl %[2]s)", err, ui.ShellQuote(place))
	}
	return place, err
}

// expected is as much of a reading as can be known without an identity that
// somebody may have to be asked for, and without the store; nil if that is
// nothing. What is wrong with it, open says.
func (a *app) expected(c *cli.Context) *reading {
	r := &reading{}
	var err error
	if r.where, err = state.FindAll(a.env, a.root, c.String("config")); err != nil {
		return nil
	}
	r.conf, _ = config.Read(r.where.Config)
	a.useStateDir(&r.where, r.conf)
	if file := cmp.Or(c.String("identity"), a.env("VAULTIK_IDENTITY_FILE")); file != "" && file != "-" {
		if text, err := state.ReadFile(file, kit.MaxSize); err == nil && kit.Is(text) {
			k, _ := kit.Parse(string(text))
			r.id = &kit.Identity{Kit: k}
		}
	}
	_ = a.findStore(c, r)
	return r
}

// checkEmpty refuses a folder in which something is. One that cannot be looked
// into is taken for empty.
func checkEmpty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	if names, _ := f.Readdirnames(1); len(names) > 0 {
		return fmt.Errorf("mountpoint %q is not empty: it holds %s, which the mount would hide; choose an empty folder, or add --nonempty", dir, ui.Quote(names[0]))
	}
	return nil
}

// keepApart refuses a mountpoint inside what the mount itself needs, or around
// it, where it could wait for itself forever, and inside or around what a set
// backs up, where the mount would hide files from the backup. A set of "/" is
// the exception: there is no place outside it, and a backup leaves vaultik's
// mounts out.
func (r *reading) keepApart(dir string) error {
	type place struct{ path, what string }
	places := []place{{r.where.State, "the state folder"}, {r.where.Cache, "the cache folder"}}
	if r.url.Folder() != "" {
		places = append(places, place{r.url.Folder(), "the store"})
	}
	if r.conf != nil {
		for _, n := range r.conf.SetNames() {
			set, _ := r.conf.Set(n)
			for _, p := range set.Paths {
				if path := p.String(); path != "/" {
					places = append(places, place{path, fmt.Sprintf("what set %q backs up", n)})
				}
			}
		}
	}
	for _, p := range places {
		if state.Inside(dir, p.path) {
			return fmt.Errorf("mountpoint %q is inside %s, %q; choose a folder elsewhere", dir, p.what, p.path)
		}
		if state.Inside(p.path, dir) {
			return fmt.Errorf("%s, %q, is inside the mountpoint %q, which would hide it; choose a folder elsewhere", p.what, p.path, dir)
		}
	}
	return nil
}
