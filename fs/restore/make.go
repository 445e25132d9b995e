package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// folders makes the directories, and those that are there ready to be written
// into.
func (r *run) folders(ctx context.Context) error {
	n := 0
	for e, err := range r.dirs.all() {
		if err != nil {
			return err
		}
		if n++; n%1024 == 0 {
			r.progress("restore")
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		node, err := r.Tree.Node(ctx, e.slot)
		if err != nil {
			return err
		}
		if err := r.folder(ctx, e, &node); err != nil {
			if fatal(err) {
				return r.at(e.dir, e.slot, err)
			}
			r.fail(KindTarget, e.dir, e.slot, err) // what is below it fails as well
		}
	}
	return nil
}

func (r *run) folder(ctx context.Context, e *entry, n *metastore.Node) error {
	base := e.slot == r.place.base.Ino
	if e.flags&exists == 0 && !base {
		up, err := r.target.get(ctx, e.dir)
		if err != nil {
			return err
		}
		err = r.makeFolder(up, e, n.Name)
		r.target.put(up)
		if err != nil {
			return err
		}
	}
	if e.flags&exists == 0 {
		r.done.directories.Add(1)
	}
	if e.flags&passage == 0 && (r.me.root || e.flags&(exists|describe) != exists|describe) {
		return nil
	}
	d, err := r.target.get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&passage == 0 {
		return r.mayWrite(d)
	}
	// If this run is interrupted, the next one finds it there and leaves it as
	// it is; so it gets its metadata now, but for the right to write into it.
	d.plain = false
	open := *n
	open.Mode |= 0o700
	r.undescribed(e.dir, e.slot, r.apply(ctx, subject{fd: d.fd, again: true}, &open))
	return nil
}

// makeFolder makes a directory for nobody else to look into as yet.
func (r *run) makeFolder(up *handle, e *entry, name string) error {
	if e.flags&replace != 0 {
		if err := unix.Unlinkat(up.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove what is in its place: %w", err)
		}
	}
	err := unix.Mkdirat(up.fd, name, 0o700)
	if err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if up.plain {
		r.fresh.add(e.slot)
		return nil
	}
	// It may have inherited a setgid bit, a group and an ACL for all that is
	// made in it.
	fd, err := openDir(up.fd, name)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer unix.Close(fd)
	s := subject{fd: fd}
	err = errors.Join(append(s.strip(nil, false), unix.Fchownat(fd, "", -1, int(r.me.gid), unix.AT_EMPTY_PATH), s.chmod(0o700))...)
	if err != nil {
		return fmt.Errorf("make the folder private: %w", err)
	}
	r.fresh.add(e.slot)
	return nil
}

// mayWrite makes sure that an ordinary user can write into a directory of their
// own, which gets its mode back in the end.
func (r *run) mayWrite(d *handle) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("examine the folder: %w", err)
	}
	if st.Uid != r.me.uid || st.Mode&0o700 == 0o700 {
		return nil
	}
	return subject{fd: d.fd}.chmod(st.Mode&0o7777 | 0o700)
}

// makeOthers makes all that has no data, and mends metadata.
func (r *run) makeOthers(ctx context.Context) error {
	return inBatches(ctx, &r.others, func(ctx context.Context, e *entry) error {
		if err := r.other(ctx, e); err != nil {
			if fatal(err) || ctx.Err() != nil {
				return r.at(e.dir, e.slot, err)
			}
			r.fail(KindTarget, e.dir, e.slot, err)
		}
		return nil
	}, func() { r.progress("restore") })
}

// inBatches calls do for every entry, several at a time, and then after each
// few hundred.
func inBatches(ctx context.Context, s *spool[entry], do func(context.Context, *entry) error, then func()) error {
	const batch = 256
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	send := func(entries []entry) {
		g.Go(func() error {
			for i := range entries {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := do(ctx, &entries[i]); err != nil {
					return err
				}
			}
			then()
			return nil
		})
	}
	var entries []entry
	for e, err := range s.all() {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if entries = append(entries, *e); len(entries) == batch {
			send(entries)
			entries = nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	send(entries)
	return g.Wait()
}

func (r *run) other(ctx context.Context, e *entry) error {
	n, err := r.node(ctx, e.dir, e.slot)
	if err != nil {
		return err
	}
	d, err := r.target.get(ctx, e.dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&fix != 0 {
		return r.mend(ctx, d, n)
	}
	if n.Type == metastore.Regular {
		return r.writeWhole(ctx, d, n, nil, 0)
	}
	temp := r.temporary(n.Cookie)
	if n.Type == metastore.Symlink {
		err = unix.Symlinkat(n.Target, d.fd, temp)
	} else {
		err = unix.Mknodat(d.fd, temp, modeOf(n.Type)|0o600, int(unix.Mkdev(n.RdevMajor, n.RdevMinor)))
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	if n.Type == metastore.Symlink && d.plain && r.owned(n) && !n.HasXattrs {
		err := errors.Join(touch(d.fd, temp, n), r.name(d, temp, n.Name))
		if err != nil {
			_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
			return err
		}
		r.done.symlinks.Add(1)
		return nil
	}
	fd, err := pathHandle(d.fd, temp, n.Type)
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return fmt.Errorf("open it: %w", err)
	}
	return r.complete(ctx, d, subject{fd: fd, path: true, made: d.plain, mode: r.me.masked(0o600)}, temp, n, nil)
}

// mend sets the metadata of something that is otherwise as it should be.
func (r *run) mend(ctx context.Context, d *handle, n *metastore.Node) error {
	fd, err := pathHandle(d.fd, n.Name, n.Type)
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	defer unix.Close(fd)
	r.undescribed(n.Parent, n.Cookie, errors.Join(r.apply(ctx, subject{fd: fd, path: true}, n), touch(d.fd, n.Name, n)))
	return nil
}

// links makes the further names of inodes.
func (r *run) links(ctx context.Context) error {
	var first name
	n := 0
	for l, err := range r.names.all() {
		if err != nil {
			return err
		}
		if n++; n%1024 == 0 {
			r.progress("restore")
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if l.first {
			first = *l
			continue
		}
		if first.ino != l.ino {
			continue // its plan failed
		}
		if err := r.link(ctx, &first, l); err != nil {
			if fatal(err) {
				return r.at(l.dir, l.slot, err)
			}
			r.fail(KindTarget, l.dir, l.slot, err)
		}
	}
	return nil
}

func (r *run) link(ctx context.Context, first, l *name) error {
	if r.failed.has(first.slot) {
		return fmt.Errorf("it is another name of %q, which could not be restored", r.pathOf(first.dir, first.slot))
	}
	is, err := r.node(ctx, first.dir, first.slot)
	if err != nil {
		return err
	}
	n, err := r.node(ctx, l.dir, l.slot)
	if err != nil {
		return err
	}
	from, err := r.target.get(ctx, first.dir)
	if err != nil {
		return err
	}
	defer r.target.put(from)
	d, err := r.target.get(ctx, l.dir)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	var a, b unix.Stat_t
	if err := unix.Fstatat(from.fd, is.Name, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("it is another name of %q: %w", r.pathOf(first.dir, first.slot), err)
	}
	if err := unix.Fstatat(d.fd, n.Name, &b, unix.AT_SYMLINK_NOFOLLOW); err == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil
	}
	temp := r.temporary(n.Cookie)
	if err := unix.Linkat(from.fd, is.Name, d.fd, temp, 0); err != nil {
		return fmt.Errorf("link it to %q: %w", r.pathOf(first.dir, first.slot), err)
	}
	if err := r.name(d, temp, n.Name); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // the next run tries again
		return err
	}
	r.done.links.Add(1)
	return nil
}

// finish gives the directories their metadata, what lies deeper first: whoever
// makes something in one changes its time.
func (r *run) finish(ctx context.Context) error {
	n := 0
	for e, err := range r.dirs.backwards() {
		if err != nil {
			return err
		}
		if n++; n%1024 == 0 {
			r.progress("restore")
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if e.flags&describe == 0 || r.failed.has(e.slot) {
			continue
		}
		if err := r.describe(ctx, e); err != nil {
			r.problem(KindMetadata, r.pathOf(e.dir, e.slot), err)
		}
	}
	r.progress("restore")
	return nil
}

func (r *run) describe(ctx context.Context, e *entry) error {
	n, err := r.Tree.Node(ctx, e.slot)
	if err != nil {
		return err
	}
	d, err := r.target.get(ctx, e.slot)
	if err != nil {
		return err
	}
	defer r.target.put(d)
	if e.flags&exists != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(d.fd, &st); err != nil {
			return fmt.Errorf("examine the folder: %w", err)
		}
		self := n
		self.Name = "."
		if same, err := r.described(ctx, d.fd, &self, &st); err == nil && same {
			return nil
		}
	}
	// One that is there already may have anything, a new one has no attributes.
	s := subject{fd: d.fd, made: d.plain && e.flags&(exists|passage) == 0, mode: r.me.masked(0o700)}
	failed := r.apply(ctx, s, &n)
	if e.slot == r.place.base.Ino {
		return errors.Join(failed, touch(d.fd, ".", &n))
	}
	up, err := r.target.get(ctx, e.dir)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer r.target.put(up)
	return errors.Join(failed, touch(up.fd, n.Name, &n))
}
