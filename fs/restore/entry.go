package restore

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// entry plans for anything but a directory.
func (p *planner) entry(ctx context.Context, f *folder, t *names, n *view.Node) error {
	included, excluded := f.picks.wants(n, f.included)
	if excluded {
		p.tally.excluded.Add(1)
		return nil
	}
	if !included {
		return nil
	}
	if err := badName(n.Name); err != nil {
		p.problem(KindContent, join(f.where, n.Name), err)
		return nil
	}
	if !captured(n) {
		p.problem(KindNotCaptured, join(f.where, n.Name), notCaptured(n))
		return nil
	}
	if err := p.list(f); err != nil {
		return err
	}
	if !p.mayMake(n) {
		p.tally.devices.Add(1)
		return nil
	}
	var st *unix.Stat_t
	if f.there && t.has(n.Name) {
		var there bool
		var err error
		if st, there, err = p.stat(ctx, f, n.Name); err != nil {
			p.problem(KindTarget, join(f.where, n.Name), err)
			return ctx.Err()
		}
		if !there {
			st = nil
		}
	}
	if st != nil && n.Role == metastore.RoleParent {
		p.tally.same.Add(1) // a link on the way to a path that was backed up, left as it is
		return nil
	}
	e := entry{f.node.Ino, n.Cookie, 0}
	doing := toMake
	if st != nil {
		var err error
		if doing, err = p.compare(ctx, f, n, st); err != nil {
			p.problem(KindTarget, join(f.where, n.Name), err)
			return ctx.Err()
		}
	}
	if doing == toKeep {
		p.tally.kept.Add(1)
		return nil
	}
	if st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := p.clear(ctx, f, n.Name); err != nil {
			return err
		}
	}
	if n.Nlink > 1 {
		first := p.claimed.Add(n.Ino)
		if err := p.names.Add(name{n.Ino, first, e.dir, e.slot}); err != nil {
			return err
		}
		if !first {
			p.planLink(f, n, doing, st)
			return nil
		}
	}
	if doing != toMake {
		return p.same(n, e, doing)
	}
	if st == nil {
		p.action("make", f, n.Name)
	} else {
		p.action("replace", f, n.Name)
	}
	p.planned.of(n.Type).Add(1)
	if n.Type == metastore.Regular && n.Content != 0 && n.Size > 0 {
		p.files = append(p.files, file{e, n.Content, n.Size})
		if len(p.files) == page {
			p.send(ctx)
		}
	} else if err := p.others.Add(e); err != nil {
		return err
	}
	if p.Verify && n.Type == metastore.Regular {
		return p.checks.Add(e)
	}
	return nil
}

// same is an entry that is there, though perhaps with other metadata.
func (p *planner) same(n *view.Node, e entry, doing verdict) error {
	p.tally.same.Add(1)
	if doing == toFix {
		e.flags |= fix
		if err := p.others.Add(e); err != nil {
			return err
		}
	}
	if p.Verify && n.Type == metastore.Regular {
		return p.checks.Add(e)
	}
	return nil
}

// planLink counts a further name of an inode.
func (p *planner) planLink(f *folder, n *view.Node, doing verdict, st *unix.Stat_t) {
	switch {
	case doing != toMake:
		p.tally.same.Add(1) // unless it turns out to be another inode
	case st == nil:
		p.action("make", f, n.Name)
		p.planned.links.Add(1)
	default:
		p.action("replace", f, n.Name)
		p.planned.links.Add(1)
	}
}

// mayMake reports whether whoever runs this may make such a thing.
func (p *planner) mayMake(n *view.Node) bool {
	return p.Root || n.Type != metastore.CharDev && n.Type != metastore.BlockDev
}

// captured reports whether the snapshot has what an entry consists of.
func captured(n *view.Node) bool {
	switch {
	case n.State == metastore.StateUnreadable:
		return false
	case n.Type != metastore.Regular:
		return true
	case n.State != metastore.StateComplete && n.State != metastore.StateChanged:
		return false // an empty place in which something else was mounted
	}
	return n.Content != 0 || n.Size == 0
}

func notCaptured(n *view.Node) error {
	if n.Errno != 0 {
		return fmt.Errorf("%w (%w)", fs.ErrNotCaptured, syscall.Errno(n.Errno))
	}
	return fmt.Errorf("%w (%s)", fs.ErrNotCaptured, n.State)
}

// badName says why an entry cannot be called that. The dump was checked; this is
// the last door before names lead somewhere.
func badName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a name: %w", name, view.ErrBad)
	}
	return nil
}

// verdict is what is to become of an entry that the target has already.
type verdict int

const (
	toMake verdict = iota // it is replaced
	toFix                 // it is the same but for its metadata
	toSkip                // it is the same
	toKeep                // it is different and stays
)

// stat examines an entry of a target folder; there is false if it has none.
func (r *run) stat(ctx context.Context, f *folder, name string) (st *unix.Stat_t, there bool, err error) {
	if !f.there {
		return nil, false, nil
	}
	d, err := r.target.Get(ctx, f.node.Ino)
	if err != nil {
		return nil, false, err
	}
	defer r.target.Put(d)
	if st, there, err = d.Stat(name); err != nil {
		return nil, false, fmt.Errorf("examine what is there: %w", err)
	}
	return st, there, nil
}

// compare decides about an entry that the target has: st is what it has.
func (r *run) compare(ctx context.Context, f *folder, n *view.Node, st *unix.Stat_t) (verdict, error) {
	if r.Overwrite == Always {
		return toMake, nil
	}
	d, err := r.target.Get(ctx, f.node.Ino)
	if err != nil {
		return toKeep, err
	}
	defer r.target.Put(d)
	same, err := d.Same(n, st)
	switch {
	case err != nil:
		return toKeep, err
	case same && r.Overwrite != IfChanged:
		return toSkip, nil
	case same:
		described, err := d.Described(ctx, n, st)
		if err != nil || described {
			return toSkip, err
		}
		return toFix, nil
	case r.keeps(n, st):
		return toKeep, nil
	}
	return toMake, nil
}

// keeps reports whether something different is kept.
func (r *run) keeps(n *view.Node, st *unix.Stat_t) bool {
	return r.Overwrite == Never || r.Overwrite == IfNewer && !newer(n, st)
}

func newer(n *view.Node, st *unix.Stat_t) bool {
	return n.MTime.Sec > st.Mtim.Sec || n.MTime.Sec == st.Mtim.Sec && int64(n.MTime.Nsec) > st.Mtim.Nsec
}
