package scan

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// volume is a mounted volume and its row in the index.
type volume struct {
	id int64
	source.Volume
}

// volume finds the volume that dev is, which was met at where.
func (s *Scanner) volume(ctx context.Context, dev uint64, where string) (volume, error) {
	if v, ok := s.volumes[dev]; ok {
		return v, nil
	}
	v, err := s.Source.Volume(ctx, dev, where)
	if err != nil {
		return volume{}, fmt.Errorf("find the volume of %q: %w", where, err)
	}
	root := v.Root
	id, err := s.Run.Volume(ctx, v.FSType, v.FSID, root)
	for err == nil && s.taken(id) {
		// Two devices that claim to be one, as copies of a disk image do:
		// keep their inodes apart by where they were met.
		root += "\x00" + where
		id, err = s.Run.Volume(ctx, v.FSType, v.FSID, root)
	}
	if err != nil {
		return volume{}, err
	}
	s.volumes[dev] = volume{id, v}
	return s.volumes[dev], nil
}

func (s *Scanner) taken(id int64) bool {
	for _, v := range s.volumes {
		if v.id == id {
			return true
		}
	}
	return false
}

// errUnmounted: a folder is the bare mount point of a volume that was there.
var errUnmounted = fmt.Errorf("empty now, and was another volume's mount point before: is it mounted? "+
	"If it is to stay empty, put any file there or leave it out: %w", syscall.ENODEV)

// unmounted reports whether sub, in f, is where an earlier run saw another
// volume mounted and now is nothing: the disk is away, which is no reason to
// take all that is on it for deleted. It lies on its parent's volume, where it
// did not lie before, and is empty.
func (s *Scanner) unmounted(ctx context.Context, f, sub folder) (bool, error) {
	if sub.was == 0 || sub.was == f.was || sub.entry.Dev != f.entry.Dev {
		return false, nil
	}
	v, err := s.volume(ctx, sub.entry.Dev, sub.where)
	if err != nil || v.id == sub.was {
		return false, err
	}
	names, err := sub.dir.Names(ctx)
	return err == nil && len(names) == 0, ctx.Err() // what cannot be listed is a gap anyway
}

// groupKey names an inode among the hard links of a run.
type groupKey struct {
	volume int64
	inode  uint64
}

type groupCount struct {
	*Group
	left uint32 // links not met yet
}

// link looks for other names of an entry's inode. If one is recorded and the
// inode has not changed since, this is the same file and is recorded as such,
// unread: it has a new name, or lies in a folder that has. Otherwise the names
// that this run meets form a group, so that content is read once.
func (s *Scanner) link(ctx context.Context, j *Item) error {
	e := &j.Entry
	if e.Type == metastore.Directory || e.Nlink < 2 || j.State != metastore.StateComplete {
		return nil
	}
	v, ok, err := s.Run.Linked(ctx, j.Volume, e.Inode)
	if err != nil {
		return fmt.Errorf("look up %q in the index: %w", j.Where, err)
	}
	if ok && !v.Recheck && v.File.State == metastore.StateComplete && source.Unchanged(e.Stat, v.File.Stat) {
		j.Twin = &v.File
		return nil
	}
	if e.Type != metastore.Regular {
		return nil
	}
	if ok && j.Like == 0 {
		j.Like = v.File.Content
	}
	key := groupKey{j.Volume, e.Inode}
	g := s.groups[key]
	if g == nil {
		g = &groupCount{&Group{Done: make(chan struct{})}, e.Nlink}
		s.groups[key] = g
		j.Leads = true
	} else {
		j.Shared = true
	}
	j.Group = g.Group
	if g.left--; g.left == 0 {
		delete(s.groups, key) // all were met: nobody else will ask
	}
	return nil
}

// stableInodes are the file systems whose inode numbers name one file for as
// long as it exists, across mounts.
var stableInodes = []string{"btrfs", "ext4", "f2fs", "xfs", "zfs"}

// movedFrom finds out where a folder was that is new in its place. It keeps its
// inode, and all that is below it keeps names, inodes and time stamps: none of
// that has to be read again. (A file that is moved on its own gets a new ctime,
// as if it had been edited.)
func (s *Scanner) movedFrom(ctx context.Context, c child, at index.DirectoryMark, where string) (path int64, err error) {
	if c.movedPath != 0 {
		return c.movedPath, nil // with the folder above it
	}
	if c.version != nil || at.Volume != 0 || c.role == metastore.RoleParent || c.state != metastore.StateComplete {
		return 0, nil
	}
	v, err := s.volume(ctx, c.entry.Dev, where)
	if err != nil || !slices.Contains(stableInodes, v.FSType) {
		return 0, err
	}
	path, found, err := s.Run.Folder(ctx, v.id, c.entry.Inode)
	if err != nil || !found || path == at.Path {
		return 0, err
	}
	names, err := s.Run.Components(ctx, path)
	if err != nil {
		return 0, err
	}
	// Where it still is there as well, it was mounted in two places, or copied
	// with its inodes, and there is no telling what the two have in common.
	if still, err := s.stillThere(ctx, names, c.entry); err != nil || still {
		return 0, err
	}
	return path, nil
}

// stillThere reports whether a path leads to the inode of e.
func (s *Scanner) stillThere(ctx context.Context, names []string, e source.Entry) (bool, error) {
	now, dir, err := s.Source.Root(ctx)
	if err != nil {
		return false, err
	}
	defer func() { dir.Close() }() // whichever it is by then
	for _, name := range names {
		if now, err = dir.Entry(ctx, name); err != nil || now.Err != nil || now.Type != metastore.Directory {
			return false, ctx.Err()
		}
		next, err := dir.OpenDir(ctx, now)
		if err != nil {
			return false, ctx.Err()
		}
		dir.Close()
		dir = next
	}
	return now.Inode == e.Inode && now.Dev == e.Dev, nil
}

// follow looks up, for the new entries of a folder that was moved, what was
// recorded of them where they were, of the names behind after up to upTo.
func (s *Scanner) follow(ctx context.Context, f folder, children []child, after, upTo string) error {
	if f.from == 0 {
		return nil
	}
	versions, err := s.Run.Children(ctx, f.from, after, upTo)
	if err != nil {
		return err
	}
	i := 0
	for n := range versions {
		v := &versions[n]
		for i < len(children) && children[i].entry.Name < v.Name {
			i++
		}
		if i == len(children) {
			return nil
		}
		if c := &children[i]; c.entry.Name == v.Name && c.version == nil && c.entry.Err == nil {
			if same, err := s.sameElsewhere(ctx, f, c, v); err != nil {
				return err
			} else if same {
				c.moved = v
			}
		}
	}
	return nil
}

// sameElsewhere reports whether a version recorded at another path is the
// entry's: the same inode, and of all but folders, unchanged.
func (s *Scanner) sameElsewhere(ctx context.Context, f folder, c *child, v *index.Version) (bool, error) {
	e := &c.entry
	if e.Type != v.File.Type || e.Inode != v.File.Inode || c.state != metastore.StateComplete || v.File.State != metastore.StateComplete {
		return false, nil
	}
	volume, err := s.volume(ctx, e.Dev, f.where)
	if err != nil || volume.id != v.File.Volume {
		return false, err
	}
	return e.Type == metastore.Directory || !v.Recheck && source.Unchanged(e.Stat, v.File.Stat), nil
}
