package restore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// place says what goes where.
type place struct {
	base   view.Node  // the directory that the target stands for
	where  string     // base's path in the snapshot
	root   string     // the set's path that base is or is below; "" if it is above all of them
	single *view.Node // if not nil, nothing but this entry of base is restored
}

// locate finds a path in the snapshot. Symbolic links in it are not followed.
func locate(ctx context.Context, t *fs.Tree, p string) (place, error) {
	at, err := t.Node(ctx, t.Root())
	if err != nil {
		return place{}, err
	}
	pl := place{base: at, where: "/"}
	if at.Role == metastore.RoleRoot {
		pl.root = "/"
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." {
			continue
		}
		if pl.single != nil {
			return place{}, fmt.Errorf("%q: %q is no folder in snapshot %s", p, join(pl.where, pl.single.Name), t.Snapshot().ID)
		}
		n, err := t.Lookup(ctx, pl.base.Ino, name)
		if errors.Is(err, iofs.ErrNotExist) {
			return place{}, fmt.Errorf("snapshot %s has no %q", t.Snapshot().ID, join(pl.where, name))
		}
		if err != nil {
			return place{}, err
		}
		if n.Type != metastore.Directory {
			pl.single = &n
			continue
		}
		pl.base, pl.where = n, join(pl.where, name)
		if n.Role == metastore.RoleRoot {
			pl.root = pl.where
		}
	}
	if b := &pl.base; b.State == metastore.StateUnreadable {
		return place{}, fmt.Errorf("folder %q of snapshot %s: %w", pl.where, t.Snapshot().ID, fs.ErrNotCaptured)
	}
	return pl, nil
}

// identity is as whom the program runs.
type identity struct {
	root     bool
	uid, gid uint32
	groups   map[uint32]bool
	umask    uint32 // unknown if nobody says
}

// unknown is a mode that nothing has.
const unknown = ^uint32(0)

// masked is the mode that what is made with one gets.
func (me *identity) masked(mode uint32) uint32 {
	if me.umask == unknown {
		return unknown
	}
	return mode &^ me.umask
}

func whoami(root bool) (identity, error) {
	me := identity{root: root, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), groups: make(map[uint32]bool), umask: unknown}
	groups, err := os.Getgroups()
	if err != nil {
		return me, fmt.Errorf("ask for this user's groups: %w", err)
	}
	for _, g := range append(groups, int(me.gid)) {
		me.groups[uint32(g)] = true
	}
	// umask(2) can only tell the mask by changing it.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return me, nil
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := fmt.Sscanf(strings.TrimSpace(mask), "%o", &me.umask); n != 1 || err != nil {
				me.umask = unknown
			}
		}
	}
	return me, nil
}

func newRun(ctx context.Context, o Options) (_ *run, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &run{Options: o}
	if r.place, err = locate(ctx, o.Tree, o.Path); err != nil {
		return nil, err
	}
	if r.pick, err = newPicker(&o, r.place); err != nil {
		return nil, err
	}
	if r.me, err = whoami(o.Root); err != nil {
		return nil, err
	}
	token := make([]byte, 4)
	_, _ = rand.Read(token) // never fails
	r.token = hex.EncodeToString(token)
	slots := uint64(o.Tree.Totals().Files)
	r.fresh, r.failed, r.claimed = newBits(slots), newBits(slots), newBits(slots)
	root, err := openTarget(o.Target)
	if err == nil && root >= 0 && !o.DryRun {
		err = lockTarget(root, o.Target)
	}
	r.target = newHandles(o.Tree, r.place.base.Ino, root, r.me.gid, r.fresh)
	if err != nil {
		return nil, errors.Join(err, r.target.close())
	}
	r.spools()
	return r, nil
}

// spools are what the plan goes into: some 40 MB in memory at most.
func (r *run) spools() {
	limit := func(n int) int {
		if r.spoolLimit > 0 {
			return r.spoolLimit
		}
		return n
	}
	entries := spool[entry]{limit: limit(1 << 17), dir: r.Temp, size: entrySize,
		put: func(b []byte, e *entry) { e.encode(b) }, get: func(b []byte, e *entry) { e.decode(b) }}
	r.dirs.init(&entries)
	r.others.init(&entries)
	r.checks.init(&entries)
	r.names.init(&spool[name]{limit: limit(1 << 16), dir: r.Temp, size: nameSize,
		put: func(b []byte, n *name) { n.encode(b) }, get: func(b []byte, n *name) { n.decode(b) },
		order: (*name).compare})
	r.uses.init(&spool[use]{limit: limit(1 << 18), dir: r.Temp, size: useSize,
		put: func(b []byte, u *use) { u.encode(b) }, get: func(b []byte, u *use) { u.decode(b) },
		order: (*use).compare})
	r.extra.dir = r.Temp
}

// openTarget opens the target folder; -1 if there is none. The person named it:
// if it is a link, that is where they want it.
func openTarget(dir string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, nil
	case errors.Is(err, unix.ENOTDIR):
		return -1, fmt.Errorf("%q is not a folder", dir)
	case err != nil:
		return -1, fmt.Errorf("open %q: %w", dir, err)
	}
	return fd, nil
}

// lockTarget keeps another restore out: it would take this one's temporary
// files for those of a killed one.
func lockTarget(fd int, dir string) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%q: %w", dir, ErrBusy)
	}
	return nil // a file system without locks: then nobody can tell
}

// makeTarget makes the target folder if it is missing.
func (r *run) makeTarget(context.Context) error {
	if r.target.root >= 0 {
		return nil
	}
	if err := os.MkdirAll(path.Dir(r.Target), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if r.place.single != nil {
		mode = 0o755
	}
	if err := os.Mkdir(r.Target, mode); err != nil {
		return err
	}
	root, err := openTarget(r.Target)
	if err != nil {
		return err
	}
	r.target.root = root
	r.fresh.add(r.place.base.Ino)
	return lockTarget(root, r.Target)
}

func join(dir, name string) string {
	switch dir {
	case "":
		return name
	case "/":
		return "/" + name
	}
	return dir + "/" + name
}
