package backup

import (
	"context"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// stableInodes are the file systems whose inode numbers name one file for as
// long as it exists, across mounts.
var stableInodes = []string{"btrfs", "ext4", "f2fs", "xfs", "zfs"}

// movedFrom finds out where a folder was that is new in its place. It keeps its
// inode, and all that is below it keeps names, inodes and time stamps: none of
// that has to be read again. (A file that is moved on its own gets a new ctime,
// as if it had been edited.)
func (s *scanner) movedFrom(ctx context.Context, c child, at index.DirectoryMark, where string) (path int64, err error) {
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
	path, found, err := s.run.Folder(ctx, v.id, c.entry.Inode)
	if err != nil || !found || path == at.Path {
		return 0, err
	}
	names, err := s.run.Components(ctx, path)
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
func (s *scanner) stillThere(ctx context.Context, names []string, e Entry) (bool, error) {
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
func (s *scanner) follow(ctx context.Context, f folder, children []child, after, upTo string) error {
	if f.from == 0 {
		return nil
	}
	versions, err := s.run.Children(ctx, f.from, after, upTo)
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
func (s *scanner) sameElsewhere(ctx context.Context, f folder, c *child, v *index.Version) (bool, error) {
	e := &c.entry
	if e.Type != v.File.Type || e.Inode != v.File.Inode || c.state != metastore.StateComplete || v.File.State != metastore.StateComplete {
		return false, nil
	}
	volume, err := s.volume(ctx, e.Dev, f.where)
	if err != nil || volume.id != v.File.Volume {
		return false, err
	}
	return e.Type == metastore.Directory || !v.Recheck && unchanged(e.Stat, v.File.Stat), nil
}
