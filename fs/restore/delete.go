package restore

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// namesMax is how many names of a target folder are held in memory. Of a larger
// one, each is looked up in the snapshot.
const namesMax = 8192

// names are those of a target folder.
type names struct {
	names map[string]bool // true: the snapshot has it, too
	many  bool            // more than namesMax: names are none
}

func (t *names) seen(name string) {
	if _, ok := t.names[name]; ok {
		t.names[name] = true
	}
}

// has reports whether the folder may have an entry of that name.
func (t *names) has(name string) bool {
	if t.many {
		return true
	}
	_, ok := t.names[name]
	return ok
}

// listing lists a target folder.
func (p *planner) listing(ctx context.Context, f *folder) (*names, error) {
	t := &names{}
	if !f.there {
		return t, nil
	}
	t.names = make(map[string]bool)
	d, err := p.target.Get(ctx, f.node.Ino)
	if err != nil {
		return t, err
	}
	defer p.target.Put(d)
	for name, err := range d.Names() {
		if err != nil {
			return t, err
		}
		if len(t.names) == namesMax {
			t.many, t.names = true, nil
			break
		}
		t.names[name] = false
	}
	return t, nil
}

// surplus plans for what a target folder has and the snapshot has not.
func (p *planner) surplus(ctx context.Context, f *folder, t *names) error {
	if !f.there {
		return nil
	}
	check := func(name string) error {
		switch {
		case disk.Litter(name):
			p.litter++
			return p.extra.Add(join(f.below, name), false)
		case !p.deletes(f):
			return nil
		}
		_, err := p.condemn(ctx, f, name)
		return err
	}
	if !t.many {
		for _, name := range slices.Sorted(maps.Keys(t.names)) {
			if !t.names[name] {
				if err := check(name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	d, err := p.target.Get(ctx, f.node.Ino)
	if err != nil {
		return err
	}
	defer p.target.Put(d)
	for name, err := range d.Names() {
		if err != nil {
			return err
		}
		if !disk.Litter(name) && !p.deletes(f) {
			continue
		}
		if _, err := p.Tree.Lookup(ctx, f.node.Ino, name); !errors.Is(err, iofs.ErrNotExist) {
			continue // known, or nobody knows
		}
		if err := check(name); err != nil {
			return err
		}
	}
	return nil
}

// deletes reports whether what the snapshot does not have may be deleted in a
// folder: the backup saw all that was in it.
func (p *planner) deletes(f *folder) bool {
	return p.Delete && f.included && f.root != "" && f.node.Role != metastore.RoleParent && f.node.State == metastore.StateComplete
}

// clear plans for a directory in whose place something else goes.
func (p *planner) clear(ctx context.Context, f *folder, name string) error {
	if !p.deletes(f) {
		return nil // it must be empty, which will be seen
	}
	_, err := p.condemn(ctx, f, name)
	return err
}

// condemn plans to delete an entry of a target folder with all that is in it,
// and reports whether all of it goes.
func (p *planner) condemn(ctx context.Context, f *folder, name string) (all bool, err error) {
	d, err := p.target.Get(ctx, f.node.Ino)
	if err != nil {
		return false, err
	}
	defer p.target.Put(d)
	c := condemned{
		where: f.where, below: f.below, root: f.root, dir: d, dev: d.Dev, picks: &f.picks, inside: f.included,
	}
	return p.condemnEntry(ctx, &c, name, 0)
}

// condemned is a folder of the target that the snapshot does not have, or the
// last one above that it has.
type condemned struct {
	where, below, root string
	dir                *disk.Folder
	dev                uint64
	picks              *picks
	inside             bool
}

func (p *planner) condemnEntry(ctx context.Context, c *condemned, name string, depth int) (all bool, err error) {
	st, there, err := c.dir.Stat(name)
	switch {
	case err != nil:
		p.problem(KindExtra, join(c.below, name), err)
		return false, ctx.Err()
	case !there:
		return true, ctx.Err()
	}
	dir, regular := st.Mode&unix.S_IFMT == unix.S_IFDIR, st.Mode&unix.S_IFMT == unix.S_IFREG
	switch {
	case c.picks.spares(name, dir, c.inside), regular && p.LargerThan > 0 && st.Size > p.LargerThan, p.isKept(st):
		return false, ctx.Err()
	case dir && st.Dev != c.dev, depth > maxDepth:
		return false, ctx.Err() // something is mounted there
	}
	if dir {
		if all, err := p.condemnFolder(ctx, c, name, depth); err != nil || !all {
			return false, err
		}
	}
	at := join(c.below, name)
	p.doomed.Entries++
	if regular {
		p.doomed.Bytes += st.Size
	}
	if len(p.doomed.Paths) < doomedPaths {
		p.doomed.Paths = append(p.doomed.Paths, at)
	}
	if p.DryRun && p.Report != nil {
		p.Report(Event{Action: &Action{"delete", at}})
	}
	return true, p.extra.Add(at, dir)
}

// doomedPaths is how many a question names.
const doomedPaths = 10

func (p *planner) condemnFolder(ctx context.Context, c *condemned, name string, depth int) (all bool, err error) {
	dir, err := c.dir.Open(name)
	if err != nil {
		p.problem(KindExtra, join(c.below, name), err)
		return false, ctx.Err()
	}
	defer dir.Close()
	where := join(c.where, name)
	picks := p.pick.in(where, c.root)
	sub := condemned{where, join(c.below, name), c.root, dir, c.dev, &picks, true}
	all = true
	for name, err := range dir.Names() {
		if err != nil {
			return all, err
		}
		gone, err := p.condemnEntry(ctx, &sub, name, depth+1)
		all = all && gone
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// isKept reports whether an entry of the target is one of the folders that are
// never deleted.
func (p *planner) isKept(st *unix.Stat_t) bool {
	for _, dir := range p.Keep {
		var k unix.Stat_t
		if unix.Stat(dir, &k) == nil && k.Dev == st.Dev && k.Ino == st.Ino {
			return true
		}
	}
	return false
}

// delete removes what the plan says, what lies deeper first. It goes down to
// each by names that must be folders, and stays in the one where the next is.
func (r *run) delete(ctx context.Context) error {
	if r.extra.Count() == 0 {
		return nil
	}
	at := r.target.Remover()
	defer at.Close()
	return r.extra.Each(func(p string, dir bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		up, name := path.Split(p)
		if err := at.Enter(up); err != nil {
			r.problem(KindExtra, p, err)
			return nil
		}
		switch err := at.Remove(name, dir); {
		case fatal(err):
			return err
		case err != nil:
			r.problem(KindExtra, p, fmt.Errorf("delete: %w", err))
		case !disk.Litter(name):
			r.tally.deleted.Add(1)
		}
		return nil
	})
}
