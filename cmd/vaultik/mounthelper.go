package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// Exit codes of a mount helper, from mount(8), which shows them as its own.
const (
	helperUsage  = 1
	helperFailed = 32
)

// helperCall is what mount(8) asks of the program that mounts a type of file
// system: SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]. For the
// type fuse.vaultik it runs /sbin/mount.fuse.vaultik, which may be a link to
// this program, or else mount.fuse of the package fuse3, which runs "vaultik
// SOURCE DIR -o OPTIONS".
type helperCall struct {
	source, dir string
	options     []string
	fake        bool // do all but mount
	sloppy      bool // options that nobody knows are fine
	verbose     bool
}

// helperCalled recognises such a call; nil if it is none.
func helperCalled(args []string, commands []*cli.Command) (*helperCall, error) {
	if len(args) == 0 {
		return nil, nil
	}
	byName := strings.HasPrefix(filepath.Base(args[0]), "mount.")
	if !byName && (len(args) < 4 || args[3] != "-o" || strings.HasPrefix(args[1], "-") || named(commands, args[1]) != nil) {
		return nil, nil
	}
	if len(args) < 3 {
		return nil, fmt.Errorf("usage: %s SOURCE DIR [-sfnv] [-o OPTIONS]; SOURCE is a store's URL, or vaultik for the config's store", args[0])
	}
	h := &helperCall{source: args[1], dir: args[2]}
	for rest := args[3:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch arg {
		case "-o", "-t", "-N":
			if len(rest) == 0 {
				return nil, fmt.Errorf("%s: option %s needs a value", args[0], arg)
			}
			if arg == "-N" {
				return nil, fmt.Errorf("%s: mounting in another namespace is not possible", args[0])
			}
			if arg == "-o" {
				h.options = append(h.options, strings.Split(rest[0], ",")...)
			}
			rest = rest[1:]
			continue
		}
		for _, letter := range strings.TrimPrefix(arg, "-") {
			switch letter {
			case 's':
				h.sloppy = true
			case 'f':
				h.fake = true
			case 'v':
				h.verbose = true
			case 'n': // nothing is written to /etc/mtab
			default:
				return nil, fmt.Errorf("%s: no option %s", args[0], arg)
			}
		}
	}
	return h, nil
}

// help mounts for mount(8).
func (a *app) help(ctx context.Context, h *helperCall) int {
	c := a.cli()
	args, err := h.arguments(c.Flags, named(c.Commands, "mount"))
	if err != nil {
		a.ui.Fail(err, helperUsage)
		return helperUsage
	}
	if h.fake {
		return 0
	}
	a.source = h.source
	if a.command(ctx, c, args) != 0 {
		return helperFailed
	}
	return 0
}

// forMount are mount options that mean nothing here, or that are so anyway:
// what only mount(8) and systemd read, what concerns writing and times of
// access, and dev and suid, which mount.fuse adds for root and nobody gets.
var forMount = []string{
	"", "ro", "rw", "defaults", "auto", "noauto", "user", "nouser", "users", "group", "nogroup", "noowner", "nofail", "_netdev",
	"dev", "nodev", "suid", "nosuid", "exec", "sync", "async", "dirsync", "atime", "noatime", "diratime", "nodiratime", "relatime",
	"norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "silent", "loud",
}

// arguments says the same as a command line. Every option of "vaultik mount"
// may stand among the mount options, with underscores for dashes if one likes.
func (h *helperCall) arguments(global []cli.Flag, mount *cli.Command) ([]string, error) {
	var before, after []string
	snapshot, uid, gid := "", "", ""
	if h.source != "vaultik" && h.source != "none" {
		before = append(before, "--store="+h.source)
	}
	if !h.verbose {
		before = append(before, "--quiet")
	}
	flags := slices.DeleteFunc(slices.Concat(mount.Flags, global), func(f cli.Flag) bool {
		return slices.Contains([]string{"background", "store", "version", "json", "quiet"}, f.Names()[0])
	})
	for _, option := range h.options {
		name, value, attached := strings.Cut(option, "=")
		flag := strings.ReplaceAll(name, "_", "-")
		switch {
		case name == "owner" && !attached: // an ordinary user who owns the device may mount; there is none
		case slices.Contains(forMount, name), strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"), name == "comment":
		case name == "remount":
			return nil, fmt.Errorf("%q cannot be mounted anew with other options; unmount it, then mount it again", h.dir)
		case name == "snapshot":
			snapshot = value
		case name == "uid":
			uid = value
		case name == "gid":
			gid = value
		case find(flags, flag) != nil:
			after = append(after, "--"+strings.ReplaceAll(option[:len(name)], "_", "-")+option[len(name):])
		case !h.sloppy:
			return nil, h.unknown(name, flags)
		}
	}
	switch {
	case uid != "" && gid != "":
		after = append(after, "--owner="+uid+":"+gid)
	case uid != "":
		after = append(after, "--owner="+uid)
	case gid != "":
		return nil, fmt.Errorf("mount option gid=%s needs a uid= beside it", gid)
	}
	after = append(after, "--background", "--")
	if snapshot != "" {
		after = append(after, snapshot)
	}
	return slices.Concat([]string{"vaultik"}, before, []string{"mount"}, after, []string{h.dir}), nil
}

func (h *helperCall) unknown(name string, flags []cli.Flag) error {
	names := []string{"snapshot", "uid", "gid"}
	for _, f := range flags {
		names = append(names, strings.ReplaceAll(f.Names()[0], "-", "_"))
	}
	if near := ui.Nearest(name, append(names, forMount...)); near != "" {
		return fmt.Errorf("no mount option %s; did you mean %s?", name, near)
	}
	return fmt.Errorf("no mount option %s; there are %s", name, strings.Join(names, ", "))
}
