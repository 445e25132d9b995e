package restore

import (
	"context"
	"errors"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// page is how many entries of a directory are looked at in one go.
const page = 512

// planner walks the snapshot's tree in its order beside the target's.
type planner struct {
	*run
	files  []file // of which the pieces are still to be looked up
	lookup *errgroup.Group
}

// folder is a directory on the way from the base to where the walk is.
type folder struct {
	up       *folder
	node     view.Node
	where    string // in the snapshot
	below    string // below the target folder
	root     string // the set's path that it is or is below
	there    bool   // the target has it
	included bool
	flags    uint8
	listed   bool // is in dirs
	picks    picks
}

func (r *run) plan(ctx context.Context) error {
	p := &planner{run: r}
	var until context.Context // a look-up fails
	p.lookup, until = errgroup.WithContext(ctx)
	p.lookup.SetLimit(runtime.GOMAXPROCS(0))
	err := p.walk(until)
	if err == nil {
		p.send(until)
	}
	if failed := p.lookup.Wait(); failed != nil {
		return failed // it is why the walk failed
	}
	if err != nil {
		return err
	}
	return r.need(ctx)
}

func (p *planner) walk(ctx context.Context) error {
	r := p.run
	f := &folder{
		node: r.place.base, where: r.place.where, root: r.place.root, there: r.target.There(),
		included: r.pick.include.Empty(),
	}
	f.picks = r.pick.in(f.where, f.root)
	if r.place.single != nil {
		f.listed = true // it is not restored itself
		t, err := p.listing(ctx, f)
		if err != nil {
			return err
		}
		t.seen(r.place.single.Name)
		if err := p.entry(ctx, f, t, r.place.single); err != nil {
			return err
		}
		f.node.Role = metastore.RoleParent // what else is in the folder is nobody's business
		return p.surplus(ctx, f, t)
	}
	if f.there {
		p.known(f, nil)
	} else {
		p.missing(f)
	}
	return p.folder(ctx, f)
}

// folder plans for all entries of a directory: its subdirectories come last in
// its listing, and have consecutive numbers.
func (p *planner) folder(ctx context.Context, f *folder) error {
	if f.included {
		if err := p.list(f); err != nil {
			return err
		}
	}
	t, err := p.listing(ctx, f)
	if err != nil {
		p.problem(KindTarget, f.where, err)
		return ctx.Err()
	}
	first, last := uint64(0), uint64(0)
	for cookie := uint64(0); ; {
		nodes, err := p.Tree.ReadDir(ctx, f.node.Ino, cookie, page)
		if err != nil {
			return err
		}
		if len(nodes) == 0 {
			break
		}
		for i := range nodes {
			n := &nodes[i]
			t.seen(n.Name)
			if n.Type == metastore.Directory {
				if first == 0 {
					first = n.Ino
				}
				last = n.Ino
				continue
			}
			if err := p.entry(ctx, f, t, n); err != nil {
				return err
			}
		}
		cookie = nodes[len(nodes)-1].Cookie
		p.progress("plan")
	}
	if err := p.surplus(ctx, f, t); err != nil {
		return err
	}
	t.names = nil // not needed while the walk is deeper down
	if first == 0 {
		return nil
	}
	for ino := first; ino <= last; ino++ {
		n, err := p.Tree.Node(ctx, ino)
		if err != nil {
			return err
		}
		if err := p.directory(ctx, f, &n); err != nil {
			return err
		}
	}
	return nil
}

// directory plans for a subdirectory.
func (p *planner) directory(ctx context.Context, up *folder, n *view.Node) error {
	included, excluded := up.picks.wants(n, up.included)
	if excluded {
		p.tally.excluded.Add(1)
		return nil
	}
	f := &folder{up: up, node: *n, where: join(up.where, n.Name), below: join(up.below, n.Name), root: up.root, included: included}
	if err := badName(n.Name); err != nil {
		p.problem(KindContent, f.where, err)
		return nil
	}
	if n.State == metastore.StateUnreadable {
		if included {
			p.problem(KindNotCaptured, f.where, notCaptured(n))
		}
		return nil
	}
	if n.Role == metastore.RoleRoot {
		f.root = f.where
	}
	f.picks = p.pick.in(f.where, f.root)
	st, there, err := p.stat(ctx, up, n.Name)
	switch {
	case err != nil:
		p.problem(KindTarget, f.where, err)
		return ctx.Err()
	case !there:
		p.missing(f)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		f.there = true
		p.known(f, st)
	case n.Role == metastore.RoleParent || !included:
		p.problem(KindTarget, f.where, errors.New("what is in its place is no folder, and a link is not followed; restore what is below into a folder of your choice, as SNAPSHOT:PATH"))
		return nil
	case p.keeps(n, st):
		p.problem(KindTarget, f.where, errors.New("what is in its place is no folder, and is kept: nothing below it is restored"))
		return nil
	default:
		p.action("replace", up, n.Name)
		p.missing(f)
		f.flags |= replace
	}
	return p.folder(ctx, f)
}

// missing is a folder that is to be made.
func (p *planner) missing(f *folder) {
	f.flags |= describe
	if f.node.Role == metastore.RoleParent {
		f.flags |= passage
	}
}

// known is a folder that is there. What lies above the set's paths, or above
// what is included, is left as it is.
func (p *planner) known(f *folder, st *unix.Stat_t) {
	f.flags |= exists
	if f.node.Role == metastore.RoleParent || !f.included {
		return
	}
	switch p.Overwrite {
	case Always, IfChanged:
		f.flags |= describe
	case IfNewer:
		if st != nil && newer(&f.node, st) {
			f.flags |= describe
		}
	}
}

// list puts a folder on the list, with those above it.
func (p *planner) list(f *folder) error {
	if f == nil || f.listed {
		return nil
	}
	if err := p.list(f.up); err != nil {
		return err
	}
	f.listed = true
	if f.flags&exists != 0 {
		p.tally.same.Add(1)
	} else {
		p.planned.directories.Add(1)
		if f.flags&replace == 0 && f.up != nil {
			p.action("make", f.up, f.node.Name)
		}
	}
	return p.dirs.Add(entry{f.node.Parent, f.node.Ino, f.flags})
}
