package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// place is a node of the tree that the set's roots span from "/" down.
type place struct {
	name     string
	root     bool   // the set names it
	spelled  string // as the set does, for patterns from "/"
	children map[string]*place
}

// child finds or makes the place of a name.
func (p *place) child(name string) *place {
	if p.children[name] == nil {
		if p.children == nil {
			p.children = map[string]*place{}
		}
		p.children[name] = &place{name: name}
	}
	return p.children[name]
}

// in finds the place of a name without making one.
func (p *place) in(name string) *place {
	if p == nil {
		return nil
	}
	return p.children[name]
}

// sorted lists the children in byte order of their names.
func (p *place) sorted() []*place {
	if p == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(p.children), func(a, b *place) int { return strings.Compare(a.name, b.name) })
}

// linksFollowed bounds the symbolic links on the way to a root, as Linux does.
const linksFollowed = 40

// place finds where each root really is. A symbolic link in a root's path is
// followed, since whoever names /home/ann means the folder, also where /home
// is a link; the link itself is recorded beside it. That is the only time a
// backup follows one: below a root they are never followed.
func (s *Scanner) place(ctx context.Context) (*place, error) {
	top := &place{}
	for _, root := range s.Roots {
		if !path.IsAbs(root) {
			return nil, fmt.Errorf("set %q: path %q is not absolute", s.Set, root)
		}
		rest := path.Clean(root)
		for followed := 0; ; followed++ {
			target, err := s.firstLink(ctx, top, rest)
			if err != nil {
				return nil, err
			}
			if target == "" {
				break
			}
			if followed == linksFollowed {
				return nil, fmt.Errorf("set %q: path %q leads through more than %d symbolic links", s.Set, root, linksFollowed)
			}
			rest = target
		}
		at := top
		for _, name := range components(rest) {
			at = at.child(name)
		}
		at.root, at.spelled = true, path.Clean(root)
	}
	return top, nil
}

// firstLink walks down p. At a symbolic link it adds the link's place to top
// and returns where p leads when that link is followed; without one, "". A
// link that is missing now leads to where the last run saw it lead: what is
// there has not gone with it.
func (s *Scanner) firstLink(ctx context.Context, top *place, p string) (string, error) {
	_, dir, err := s.Source.Root(ctx)
	if err != nil {
		return "", fmt.Errorf("open /: %w", err)
	}
	defer func() { dir.Close() }() // whichever it is by then
	names := components(p)
	for i, name := range names {
		e, err := dir.Entry(ctx, name)
		if err == nil {
			err = e.Err
		}
		if err != nil {
			// Missing or hidden: scan reports it.
			target, known := s.lastTarget(ctx, names[:i+1])
			if !known {
				return "", ctx.Err()
			}
			return top.follow(names, i, target), nil
		}
		switch e.Type {
		case metastore.Symlink:
			meta, err := dir.Meta(ctx, e)
			if err != nil {
				return "", fmt.Errorf("read the symbolic link %q: %w", "/"+path.Join(names[:i+1]...), err)
			}
			return top.follow(names, i, meta.Target), nil
		case metastore.Directory:
			next, err := dir.OpenDir(ctx, e)
			if err != nil {
				return "", ctx.Err()
			}
			dir.Close()
			dir = next
		default:
			return "", nil
		}
	}
	return "", nil
}

// follow adds the place of a symbolic link, the i-th of names, and returns
// where the path leads through it.
func (p *place) follow(names []string, i int, target string) string {
	for _, n := range names[:i+1] {
		p = p.child(n)
	}
	if !path.IsAbs(target) {
		target = path.Join("/"+path.Join(names[:i]...), target)
	}
	return path.Join(target, path.Join(names[i+1:]...))
}

// lastTarget looks up what the set's last run saw at a path: the target, if it
// was a symbolic link.
func (s *Scanner) lastTarget(ctx context.Context, names []string) (target string, known bool) {
	id := index.RootPath
	for _, name := range names {
		var err error
		if id, err = s.Run.Path(ctx, id, name); err != nil {
			return "", false // the run fails of it soon enough
		}
	}
	v, ok, err := s.Run.Open(ctx, id)
	return v.File.Target, err == nil && ok && v.File.Type == metastore.Symlink
}

// components splits an absolute, clean path.
func components(p string) []string {
	p = strings.Trim(p, "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// parents walks what lies above the roots: of these folders only the metadata
// and the way down belong to the snapshot.
func (s *Scanner) parents(ctx context.Context, f folder, at *place) error {
	if err := s.entry(ctx, f.self()); err != nil {
		return err
	}
	if err := s.end(ctx, f, nil); err != nil {
		return err
	}
	if err := s.closeOthers(ctx, f, at); err != nil {
		return err
	}
	for _, p := range at.sorted() {
		if err := s.step(ctx, f, p); err != nil {
			return err
		}
	}
	return nil
}

// closeOthers closes what an earlier run had in this folder below roots that
// the set no longer names.
func (s *Scanner) closeOthers(ctx context.Context, f folder, at *place) error {
	versions, err := s.Run.Children(ctx, f.path, "", index.LastName)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if at.children[v.Name] == nil {
			if err := s.close(ctx, v.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// step goes from a folder above the roots to one of its entries.
func (s *Scanner) step(ctx context.Context, f folder, p *place) error {
	where := path.Join(f.where, p.name)
	e, err := f.dir.Entry(ctx, p.name)
	if err == nil {
		err = e.Err
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.missing(ctx, f, p, where, err)
	}
	role := metastore.RoleParent
	if p.root {
		role = metastore.RoleRoot
	}
	s.found = s.found || p.root
	c := child{entry: e, place: p, role: role, state: metastore.StateComplete}
	if e.Type == metastore.Directory {
		return s.descend(ctx, f, c)
	}
	id, err := s.Run.Path(ctx, f.path, p.name)
	if err != nil {
		return err
	}
	v, ok, err := s.Run.Open(ctx, id)
	if err != nil {
		return err
	}
	if ok {
		if c.resembles(&v); c.same {
			return nil
		}
	}
	return s.other(ctx, f, c)
}

// missing notes that a root, or a folder on the way to one, is not there: a
// disk that is not mounted, most likely. Everything recorded there stays as
// it was, and the snapshot says that it could not be seen.
func (s *Scanner) missing(ctx context.Context, f folder, p *place, where string, cause error) error {
	s.Problem(where, cause)
	id, err := s.Run.Path(ctx, f.path, p.name)
	if err != nil {
		return err
	}
	file := metastore.File{Stat: metastore.Stat{Type: metastore.Directory, Nlink: 1}, Role: metastore.RoleRoot}
	if !p.root {
		file.Role = metastore.RoleParent
	}
	v, ok, err := s.Run.Open(ctx, id)
	if err != nil {
		return err
	}
	if ok {
		file = v.File
		file.Content, file.Xattrs = 0, nil
	}
	file.State = metastore.StateUnreadable
	if errors.Is(cause, fs.ErrNotExist) {
		cause = fmt.Errorf("%w", fs.ErrNotExist)
	}
	return s.Run.Gap(ctx, id, file, source.Errno(cause))
}
