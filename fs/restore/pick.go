package restore

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"strings"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/fs/restore/spool"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/gitignore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// picker decides what of the snapshot is restored, and what of the target is
// none of a deletion's business.
type picker struct {
	include, exclude gitignore.List
	backup           gitignore.List // what the backup left out
	top              string         // what patterns are relative to; "": the set's paths
}

func newPicker(o *Options, p place) (picker, error) {
	var k picker
	snapshot := o.Tree.Snapshot()
	roots := snapshot.Roots
	if p.where != "/" {
		k.top, roots = p.where, []string{p.where}
	}
	for _, line := range o.Include {
		if err := k.include.Add(line, roots); err != nil {
			return k, fmt.Errorf("include %w", err)
		}
	}
	for _, line := range o.Exclude {
		if err := k.exclude.Add(line, roots); err != nil {
			return k, fmt.Errorf("exclude %w", err)
		}
	}
	for _, line := range snapshot.Excludes {
		// Written by another version, perhaps. What cannot be read cannot keep
		// anything from being deleted, so nothing is.
		if err := k.backup.Add(line, snapshot.Roots); err != nil && o.Delete {
			return k, fmt.Errorf("the backup's exclude %w; restore without --delete", err)
		}
	}
	return k, nil
}

// picks is what the picker says about the entries of one folder.
type picks struct {
	include, exclude, backup *gitignore.Folder
}

// in prepares for a folder: where it is in the snapshot, and the set's path
// that it is or is below, "" if it is above all of them.
func (k *picker) in(where, root string) picks {
	own := root
	if k.top != "" {
		own = k.top
	}
	v := picks{include: folderOf(&k.include, where, own), exclude: folderOf(&k.exclude, where, own)}
	v.backup = folderOf(&k.backup, where, root)
	return v
}

func folderOf(l *gitignore.List, where, root string) *gitignore.Folder {
	if l.Empty() {
		return nil
	}
	if root == "" {
		return l.Above(where)
	}
	return l.In(root, strings.Trim(strings.TrimPrefix(where, root), "/"))
}

// wants decides about an entry. inside says whether its folder is included.
// An entry that is not included may hold one that is.
func (v *picks) wants(n *view.Node, inside bool) (included, excluded bool) {
	dir := n.Type == metastore.Directory
	if v.exclude != nil {
		if matched, negated := v.exclude.Match(n.Name, dir); matched && !negated {
			return false, true
		}
	}
	if v.include != nil {
		if matched, negated := v.include.Match(n.Name, dir); matched {
			return !negated, false
		}
	}
	return inside, false
}

// spares reports whether an entry of the target that the snapshot does not have
// is to stay: the backup left such entries out, or the restore does.
func (v *picks) spares(name string, dir, inside bool) bool {
	if v.backup != nil {
		if matched, negated := v.backup.Match(name, dir); matched && !negated {
			return true
		}
	}
	included, excluded := v.wants(&view.Node{Name: name, File: metastore.File{Stat: metastore.Stat{Type: typeOf(dir)}}}, inside)
	return excluded || !included
}

func typeOf(dir bool) metastore.Type {
	if dir {
		return metastore.Directory
	}
	return metastore.Regular
}

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
	slots := uint64(o.Tree.Totals().Files)
	r.failed, r.claimed = spool.NewSet(slots), spool.NewSet(slots)
	r.target, err = disk.Open(disk.Options{
		Tree: o.Tree, Dir: o.Target, Base: r.place.base.Ino, Root: o.Root,
		Keep: o.Overwrite == Never, Look: o.DryRun,
	})
	if err != nil {
		return nil, err
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
	entries := spool.Format[entry]{
		Size: entrySize,
		Put:  func(b []byte, e *entry) { e.encode(b) }, Get: func(b []byte, e *entry) { e.decode(b) },
	}
	r.dirs = spool.New(r.Temp, limit(1<<17), entries)
	r.others = spool.New(r.Temp, limit(1<<17), entries)
	r.checks = spool.New(r.Temp, limit(1<<17), entries)
	r.names = spool.New(r.Temp, limit(1<<16), spool.Format[name]{
		Size: nameSize,
		Put:  func(b []byte, n *name) { n.encode(b) }, Get: func(b []byte, n *name) { n.decode(b) },
		Order: (*name).compare,
	})
	r.uses = spool.New(r.Temp, limit(1<<18), spool.Format[use]{
		Size: useSize,
		Put:  func(b []byte, u *use) { u.encode(b) }, Get: func(b []byte, u *use) { u.decode(b) },
		Order: (*use).compare,
	})
	r.extra.Dir = r.Temp
}

// makeTarget makes the target folder if it is missing.
func (r *run) makeTarget(context.Context) error {
	if r.target.There() {
		return nil
	}
	mode := os.FileMode(0o700)
	if r.place.single != nil {
		mode = 0o755
	}
	return r.target.Make(mode)
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
