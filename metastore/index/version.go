package index

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

// Version is an entry as the set's last runs saw it.
type Version struct {
	Row     int64          // of files
	Path    int64          // of paths
	Name    string         // "" where it was not asked for
	File    metastore.File // without Xattrs
	Recheck bool           // has to be read again, whatever its times say

	xattrs int64 // how many
}

// fileColumns are the columns of files that make a File, in the order of
// fileValues and fileRow.
const fileColumns = `role, state, errno, type, mode, uid, gid, user, "group", size,
	mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns,
	volume, inode, nlink, rdev_major, rdev_minor, target, flags, content`

// fileValues appends f's columns.
func fileValues(values []any, f *metastore.File) []any {
	var target any
	if f.Type == metastore.Symlink {
		target = []byte(f.Target)
	}
	content := sql.NullInt64{Int64: f.Content, Valid: f.Content != 0}
	return append(values,
		string(f.Role), string(f.State), f.Errno, string(rune(f.Type)), f.Mode, f.UID, f.GID, []byte(f.User), []byte(f.Group), f.Size,
		f.MTime.Sec, f.MTime.Nsec, f.CTime.Sec, f.CTime.Nsec, f.BTime.Sec, f.BTime.Nsec,
		f.Volume, int64(f.Inode), f.Nlink, f.RdevMajor, f.RdevMinor, target, f.Flags, content,
	)
}

// versionColumns are what scanVersion reads; the query has to name the table
// of files f.
const versionColumns = "f.id, f.path, f.recheck, f.xattrs, " + fileColumns

// scanVersion reads a row of versionColumns, and more behind them.
func scanVersion(scan func(...any) error, v *Version, more ...any) error {
	f := &v.File
	var typ, user, group, target sql.RawBytes
	var inode int64
	var content sql.NullInt64
	var role, state string
	err := scan(append([]any{
		&v.Row, &v.Path, &v.Recheck, &v.xattrs,
		&role, &state, &f.Errno, &typ, &f.Mode, &f.UID, &f.GID, &user, &group, &f.Size,
		&f.MTime.Sec, &f.MTime.Nsec, &f.CTime.Sec, &f.CTime.Nsec, &f.BTime.Sec, &f.BTime.Nsec,
		&f.Volume, &inode, &f.Nlink, &f.RdevMajor, &f.RdevMinor, &target, &f.Flags, &content,
	}, more...)...)
	if err != nil {
		return err
	}
	if len(typ) != 1 {
		return fmt.Errorf("%w: version %d has the type %q", ErrDamaged, v.Row, typ)
	}
	f.Role, f.State, f.Type = metastore.Role(role), metastore.State(state), metastore.Type(typ[0])
	f.User, f.Group, f.Target = string(user), string(group), string(target)
	f.Inode, f.Content = uint64(inode), content.Int64
	return nil
}

// checkFile refuses what no reader would accept.
func checkFile(f *metastore.File) error {
	switch f.Type {
	case metastore.Regular, metastore.Directory, metastore.Symlink, metastore.FIFO, metastore.Socket, metastore.CharDev, metastore.BlockDev:
	default:
		return fmt.Errorf("an entry cannot have the type %q", f.Type)
	}
	switch f.Role {
	case metastore.RoleRoot, metastore.RoleInside, metastore.RoleParent:
	default:
		return fmt.Errorf("an entry cannot have the role %q", f.Role)
	}
	switch f.State {
	case metastore.StateComplete, metastore.StateChanged, metastore.StateUnreadable, metastore.StateOtherFS, metastore.StateCacheDir, metastore.StateExcluded:
	default:
		return fmt.Errorf("an entry cannot have the state %q", f.State)
	}
	for _, t := range [...]metastore.Time{f.MTime, f.CTime, f.BTime} {
		if t.Nsec < 0 || t.Nsec > 999_999_999 {
			return fmt.Errorf("a time cannot have %d nanoseconds", t.Nsec)
		}
	}
	switch {
	case f.Mode > 0o7777:
		return fmt.Errorf("%#o has more than permission bits", f.Mode)
	case f.Size < 0:
		return fmt.Errorf("a size cannot be %d", f.Size)
	case f.Content != 0 && f.Type != metastore.Regular:
		return fmt.Errorf("an entry of type %q cannot have content", f.Type)
	}
	for i, x := range f.Xattrs {
		if x.Name == "" || i > 0 && f.Xattrs[i-1].Name >= x.Name {
			return fmt.Errorf("extended attribute %q is not in order", x.Name)
		}
	}
	return nil
}

// sameFile compares all but the extended attributes.
func sameFile(f, g *metastore.File) bool {
	return f.Stat == g.Stat && f.Role == g.Role && f.State == g.State && f.Errno == g.Errno &&
		f.User == g.User && f.Group == g.Group && f.Volume == g.Volume && f.Target == g.Target &&
		f.Flags == g.Flags && f.Content == g.Content
}

// versionQuery makes a query of versions, and whether each one's content has to
// be read again because not every chunk is in a live blob of the current
// recipients. While all live blobs are theirs, only Missing looks for that.
func (r *Run) versionQuery(rest string) (string, []any) {
	if !r.foreign {
		return "SELECT " + versionColumns + ", 0" + rest, nil
	}
	return "SELECT " + versionColumns + `, EXISTS (SELECT 1 FROM file_chunks c WHERE c.content = f.content AND c.chunk IS NOT NULL AND NOT EXISTS (
		SELECT 1 FROM blob_chunks l JOIN blobs b ON b.id = l.blob WHERE l.chunk = c.chunk AND b.end_run IS NULL AND b.recipients = ?))` + rest,
		[]any{r.recipients[:]}
}

// LastName is behind every name in byte order.
var LastName = strings.Repeat("\xff", dump.MaxName+1)

// Children returns the open versions of a directory's entries in this set
// whose names are behind after and not behind upTo ("" and LastName for all),
// sorted by name in byte order. After a change of recipients, files that have
// to be stored anew have Recheck set.
func (r *Run) Children(ctx context.Context, dir int64, after, upTo string) (versions []Version, err error) {
	err = r.read(ctx, "look up a directory's entries", func(x *Index) error {
		query, args := r.versionQuery(`, p.name FROM paths p JOIN files f ON f.set_id = ? AND f.path = p.id AND f.end_run IS NULL
			WHERE p.parent = ? AND p.name > ? AND p.name <= ? ORDER BY p.name`)
		return x.db.Each(ctx, query, append(args, r.set, dir, []byte(after), []byte(upTo)), func(scan func(...any) error) error {
			var v Version
			var stale bool
			var name sql.RawBytes
			if err := scanVersion(scan, &v, &stale, &name); err != nil {
				return err
			}
			v.Name, v.Recheck = string(name), v.Recheck || stale
			versions = append(versions, v)
			return nil
		})
	})
	return versions, err
}

// Open returns the open version of one entry in this set, without its Name.
func (r *Run) Open(ctx context.Context, path int64) (v Version, found bool, err error) {
	err = r.read(ctx, "look up an entry", func(x *Index) error {
		query, args := r.versionQuery(" FROM files f WHERE f.set_id = ? AND f.path = ? AND f.end_run IS NULL")
		return x.db.Each(ctx, query, append(args, r.set, path), func(scan func(...any) error) error {
			var stale bool
			err := scanVersion(scan, &v, &stale)
			v.Recheck, found = v.Recheck || stale, true
			return err
		})
	})
	return v, found, err
}

// Folder returns the path at which this set has an open, complete version of
// the directory with an inode. Inodes count within a volume.
func (r *Run) Folder(ctx context.Context, volume int64, inode uint64) (path int64, found bool, err error) {
	err = r.read(ctx, "look up a directory's inode", func(x *Index) error {
		found, err = x.db.Row(`SELECT path FROM files WHERE set_id = ? AND volume = ? AND inode = ?
			AND end_run IS NULL AND type = 'd' AND state = 'complete' ORDER BY id LIMIT 1`, []any{r.set, volume, int64(inode)}, &path)
		return err
	})
	return path, found, err
}

// Linked returns an open version in this set of an inode that had several
// names when it was recorded, without its Name. Inodes count within a volume.
func (r *Run) Linked(ctx context.Context, volume int64, inode uint64) (v Version, found bool, err error) {
	err = r.read(ctx, "look up a hard link", func(x *Index) error {
		query, args := r.versionQuery(` FROM files f WHERE f.set_id = ? AND f.volume = ? AND f.inode = ?
			AND f.end_run IS NULL AND f.nlink > 1 ORDER BY f.id LIMIT 1`)
		return x.db.Each(ctx, query, append(args, r.set, volume, int64(inode)), func(scan func(...any) error) error {
			var stale bool
			err := scanVersion(scan, &v, &stale)
			v.Recheck, found = v.Recheck || stale, true
			return err
		})
	})
	return v, found, err
}
