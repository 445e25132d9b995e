package index

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// replaying is a snapshot on its way back into the index: its entries are
// recorded as its run recorded them.
type replaying struct {
	run     *Run
	view    *view.View
	volumes map[int64]int64 // the index's by the view's
	blobs   map[int64]int64 // likewise
	linked  map[int64]int64 // contents of files with several names, likewise
	paths   int64           // greater ids are paths that no earlier run knew

	from, to metastore.Time // while the run went on, and as long as a clock may tick around that
}

// clockTick is how many seconds apart the time stamp of an edit and its moment
// may be: clocks of file systems tick as coarsely as that.
const clockTick = 2

// replay records everything that a view shows.
func replay(ctx context.Context, r *Run, v *view.View) error {
	t := &replaying{run: r, view: v, volumes: map[int64]int64{}, blobs: map[int64]int64{}, linked: map[int64]int64{}}
	s := v.Snapshot()
	t.from, t.to = s.Started, s.Finished
	t.from.Sec -= clockTick
	t.to.Sec += clockTick
	if err := t.begin(ctx); err != nil {
		return err
	}
	root, err := v.Node(ctx, v.Root())
	if err != nil {
		return err
	}
	then, _, err := r.Open(ctx, RootPath)
	if err != nil {
		return err
	}
	then.Path = RootPath
	if err := t.entry(ctx, &root, &then); err != nil {
		return err
	}
	if root.State == metastore.StateUnreadable {
		return nil
	}
	return t.folder(ctx, root.Ino, RootPath)
}

// begin finds or makes the rows of volumes and blobs.
func (t *replaying) begin(ctx context.Context) error {
	err := t.view.Volumes(ctx, func(v *view.Volume) (err error) {
		t.volumes[v.ID], err = t.run.Volume(ctx, v.FSType, v.FSID, v.Root)
		return err
	})
	if err != nil {
		return err
	}
	// In the order in which they were uploaded.
	if err := t.view.Uploads(ctx, func(u *view.Upload) error { return t.blob(ctx, u) }); err != nil {
		return err
	}
	t.paths = t.run.x.last.paths
	return nil
}

func (t *replaying) blob(ctx context.Context, u *view.Upload) error {
	t.run.recipients = u.Recipients
	var row int64
	return t.run.write(ctx, "record a blob", func(x *Index) error {
		known, err := x.db.Row("SELECT id FROM blobs WHERE seq = ? AND hash = ?", []any{u.Seq, u.Hash[:]}, &row)
		if err == nil && !known {
			row, _, err = x.db.Exec("INSERT INTO blobs (hash, seq, size, header, recipients, level, upload_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
				u.Hash[:], u.Seq, u.Size, u.Header, u.Recipients[:], u.Level, u.UploadMS)
		}
		t.blobs[u.ID] = row
		return err
	})
}

// nodesAtOnce is how many entries of a folder are read from the view at a time.
const nodesAtOnce = 512

// folder records what is in a folder, and closes what is not any more.
func (t *replaying) folder(ctx context.Context, ino uint64, path int64) error {
	var entries, gaps int64
	for cookie := uint64(0); ; {
		nodes, err := t.view.ReadDir(ctx, ino, cookie, nodesAtOnce)
		if err != nil {
			return err
		}
		if len(nodes) == 0 {
			return t.closeGone(ctx, ino, path, entries, gaps)
		}
		cookie = nodes[len(nodes)-1].Cookie
		known, err := t.versions(ctx, path, nodes)
		if err != nil {
			return err
		}
		for i := range nodes {
			n, v := &nodes[i], &known[i]
			if err := t.entry(ctx, n, v); err != nil {
				return err
			}
			entries++
			if n.State == metastore.StateUnreadable {
				gaps++
			} else if n.Type == metastore.Directory {
				if err := t.folder(ctx, n.Ino, v.Path); err != nil {
					return err
				}
			}
		}
	}
}

// versions finds the open version of each of a folder's entries, or at least
// finds or makes its path.
func (t *replaying) versions(ctx context.Context, folder int64, nodes []view.Node) ([]Version, error) {
	known := make([]Version, len(nodes))
	if folder > t.paths {
		names := make([]string, len(nodes))
		for i := range nodes {
			names[i] = nodes[i].Name
		}
		paths, err := t.run.NewPaths(ctx, folder, names)
		for i, path := range paths {
			known[i].Path = path
		}
		return known, err
	}
	// Listings have everything but directories first, both in byte order.
	split := slices.IndexFunc(nodes, func(n view.Node) bool { return n.Type == metastore.Directory })
	if split < 0 {
		split = len(nodes)
	}
	for _, k := range [][2]int{{0, split}, {split, len(nodes)}} {
		if err := t.match(ctx, folder, nodes[k[0]:k[1]], known[k[0]:k[1]]); err != nil {
			return nil, err
		}
	}
	for i := range known {
		if known[i].Path == 0 {
			var err error
			if known[i].Path, err = t.run.Path(ctx, folder, nodes[i].Name); err != nil {
				return nil, err
			}
		}
	}
	return known, nil
}

// match looks up the open versions of entries that are sorted by name.
func (t *replaying) match(ctx context.Context, folder int64, nodes []view.Node, known []Version) error {
	if len(nodes) == 0 {
		return nil
	}
	return t.run.read(ctx, "look up a folder's entries", func(x *Index) error {
		i := 0
		return x.db.Each(ctx, "SELECT "+versionColumns+`, p.name FROM paths p CROSS JOIN files f ON f.set_id = ? AND f.path = p.id AND f.end_run IS NULL
			WHERE p.parent = ? AND p.name >= ? AND p.name <= ? ORDER BY p.name`,
			[]any{t.run.set, folder, []byte(nodes[0].Name), []byte(nodes[len(nodes)-1].Name)}, func(scan func(...any) error) error {
				var v Version
				if err := scanVersion(scan, &v, &v.Name); err != nil {
					return err
				}
				for nodes[i].Name < v.Name {
					i++
				}
				if nodes[i].Name == v.Name {
					known[i] = v
				}
				return nil
			})
	})
}

// entry records one entry, of which v is the open version, if it has a Row, or
// only the path. What was unreadable is a gap: what earlier runs saw there, and
// below, stays open.
func (t *replaying) entry(ctx context.Context, n *view.Node, v *Version) (err error) {
	f := n.File
	f.Volume = t.volumes[f.Volume]
	if n.HasXattrs {
		if f.Xattrs, err = t.view.XattrsOf(ctx, n); err != nil {
			return err
		}
	}
	if f.State == metastore.StateUnreadable {
		return t.run.Gap(ctx, v.Path, f, cmp.Or(f.Errno, int(syscall.EIO)))
	}
	// When in this run it was read is not known: an edit at that moment may
	// show in nothing.
	recheck := f.State == metastore.StateChanged || t.during(f.MTime) || t.during(f.CTime)
	if same, err := t.same(ctx, n, &f, v); err != nil || same && !recheck {
		return err
	}
	if n.Content != 0 {
		if f.Content, err = t.content(ctx, n, v.File.Content); err != nil {
			return err
		}
	}
	if v.Path > t.paths {
		return t.run.RecordNew(ctx, v.Path, f, recheck)
	}
	_, err = t.run.Record(ctx, v.Path, f, recheck)
	return err
}

// closeGone closes what earlier runs saw in a folder and this one did not. The
// folder has so many entries, of which some are gaps.
func (t *replaying) closeGone(ctx context.Context, ino uint64, folder int64, entries, gaps int64) error {
	if folder > t.paths {
		return nil
	}
	// The order of a CROSS JOIN is as it stands here: SQLite knows no sizes, and
	// would go through all that is open for each folder.
	const open = `FROM paths p CROSS JOIN files f ON f.set_id = ? AND f.path = p.id AND f.end_run IS NULL WHERE p.parent = ?`
	type child struct {
		path int64
		name string
	}
	for after := ""; ; {
		var children []child
		err := t.run.read(ctx, "look up a folder's entries", func(x *Index) error {
			var n int64
			if _, err := x.db.Row("SELECT count(*) "+open, []any{t.run.set, folder}, &n); err != nil || gaps == 0 && n == entries {
				return err // each entry has an open version, and there are no others
			}
			return x.db.Each(ctx, "SELECT p.id, p.name "+open+" AND p.name > ? ORDER BY p.name LIMIT ?",
				[]any{t.run.set, folder, []byte(after), nodesAtOnce},
				func(scan func(...any) error) error {
					var c child
					err := scan(&c.path, &c.name)
					children = append(children, c)
					return err
				})
		})
		if err != nil || len(children) == 0 {
			return err
		}
		after = children[len(children)-1].name
		for _, c := range children {
			_, err := t.view.Lookup(ctx, ino, c.name)
			if err == nil {
				continue
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if _, err := t.run.Close(ctx, c.path); err != nil {
				return err
			}
		}
	}
}
