package backup

import (
	"context"
	"fmt"
	"syscall"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// volume is a mounted volume and its row in the index.
type volume struct {
	id int64
	source.Volume
}

// volume finds the volume that dev is, which was met at where.
func (s *scanner) volume(ctx context.Context, dev uint64, where string) (volume, error) {
	if v, ok := s.volumes[dev]; ok {
		return v, nil
	}
	v, err := s.Source.Volume(ctx, dev, where)
	if err != nil {
		return volume{}, fmt.Errorf("find the volume of %q: %w", where, err)
	}
	root := v.Root
	id, err := s.run.Volume(ctx, v.FSType, v.FSID, root)
	for err == nil && s.taken(id) {
		// Two devices that claim to be one, as copies of a disk image do:
		// keep their inodes apart by where they were met.
		root += "\x00" + where
		id, err = s.run.Volume(ctx, v.FSType, v.FSID, root)
	}
	if err != nil {
		return volume{}, err
	}
	s.volumes[dev] = volume{id, v}
	return s.volumes[dev], nil
}

func (s *scanner) taken(id int64) bool {
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
func (s *scanner) unmounted(ctx context.Context, f, sub folder) (bool, error) {
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
	*linkGroup
	left uint32 // links not met yet
}

// link looks for other names of an entry's inode. If one is recorded and the
// inode has not changed since, this is the same file and is recorded as such,
// unread: it has a new name, or lies in a folder that has. Otherwise the names
// that this run meets form a group, so that content is read once.
func (s *scanner) link(ctx context.Context, j *job) error {
	e := &j.entry
	if e.Type == metastore.Directory || e.Nlink < 2 || j.state != metastore.StateComplete {
		return nil
	}
	v, ok, err := s.run.Linked(ctx, j.volume, e.Inode)
	if err != nil {
		return fmt.Errorf("look up %q in the index: %w", j.where, err)
	}
	if ok && !v.Recheck && v.File.State == metastore.StateComplete && unchanged(e.Stat, v.File.Stat) {
		j.twin = &v.File
		return nil
	}
	if e.Type != metastore.Regular {
		return nil
	}
	if ok && j.like == 0 {
		j.like = v.File.Content
	}
	key := groupKey{j.volume, e.Inode}
	g := s.groups[key]
	if g == nil {
		g = &groupCount{&linkGroup{done: make(chan struct{})}, e.Nlink}
		s.groups[key] = g
		j.leads = true
	} else {
		j.shared = true
	}
	j.group = g.linkGroup
	if g.left--; g.left == 0 {
		delete(s.groups, key) // all were met: nobody else will ask
	}
	return nil
}
