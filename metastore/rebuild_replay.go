package metastore

import (
	"cmp"
	"context"
	"errors"
	"syscall"
)

// replaying is a snapshot on its way back into the index: its entries are
// recorded as its run recorded them.
type replaying struct {
	run     *Run
	view    *View
	volumes map[int64]int64 // the index's by the view's
	blobs   map[int64]int64 // likewise
	linked  map[int64]int64 // contents of files with several names, likewise
	paths   int64           // greater ids are paths that no earlier run knew

	from, to Time // while the run went on, and as long as a clock may tick around that
}

// clockTick is how many seconds apart the time stamp of an edit and its moment
// may be: clocks of file systems tick as coarsely as that.
const clockTick = 2

// replay records everything that a view shows.
func replay(ctx context.Context, r *Run, v *View) error {
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
	if err := t.entry(ctx, &root, RootPath); err != nil {
		return err
	}
	if root.State == StateUnreadable {
		return nil
	}
	return t.folder(ctx, root.Ino, RootPath)
}

// begin finds or makes the rows of volumes and blobs.
func (t *replaying) begin(ctx context.Context) error {
	rows, err := t.view.db.QueryContext(ctx, "SELECT id, fstype, fsid, root FROM volumes")
	if err != nil {
		return t.view.fail("read volumes", err)
	}
	err = eachRow(ctx, rows, func(scan func(...any) error) error {
		var id, fsid int64
		var fstype, root string
		if err := scan(&id, &fstype, &fsid, &root); err != nil {
			return err
		}
		t.volumes[id], err = t.run.Volume(ctx, fstype, uint64(fsid), root)
		return err
	})
	if err != nil {
		return t.view.fail("read volumes", err)
	}
	// Blobs' ids are in the order in which they were uploaded.
	if rows, err = t.view.db.QueryContext(ctx, "SELECT id, hash, seq, size, header, recipients, level, upload_ms FROM blobs ORDER BY seq, id"); err != nil {
		return t.view.fail("read blobs", err)
	}
	err = eachRow(ctx, rows, func(scan func(...any) error) error { return t.blob(ctx, scan) })
	if err != nil {
		return t.view.fail("read blobs", err)
	}
	t.paths = t.run.x.last.paths
	return nil
}

func (t *replaying) blob(ctx context.Context, scan func(...any) error) error {
	var id, seq, size, header, level, ms, row int64
	var hash, recipients []byte
	if err := scan(&id, &hash, &seq, &size, &header, &recipients, &level, &ms); err != nil {
		return err
	}
	copy(t.run.recipients[:], recipients)
	return t.run.write(ctx, "record a blob", func(x *Index) error {
		_, err := x.row(`INSERT INTO blobs (hash, seq, size, header, recipients, level, upload_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (seq, hash) DO UPDATE SET size = excluded.size RETURNING id`,
			[]any{hash, seq, size, header, recipients, level, ms}, &row)
		t.blobs[id] = row
		return err
	})
}

// nodesAtOnce is how many entries of a folder are read from the view at a time.
const nodesAtOnce = 512

// folder records what is in a folder, and closes what is not any more.
func (t *replaying) folder(ctx context.Context, ino uint64, path int64) error {
	for cookie := uint64(0); ; {
		nodes, err := t.view.ReadDir(ctx, ino, cookie, nodesAtOnce)
		if err != nil {
			return err
		}
		if len(nodes) == 0 {
			return t.closeGone(ctx, ino, path)
		}
		cookie = nodes[len(nodes)-1].Cookie
		paths, err := t.pathsOf(ctx, path, nodes)
		if err != nil {
			return err
		}
		for i := range nodes {
			if err := t.entry(ctx, &nodes[i], paths[i]); err != nil {
				return err
			}
			if nodes[i].Type == Directory && nodes[i].State != StateUnreadable {
				if err := t.folder(ctx, nodes[i].Ino, paths[i]); err != nil {
					return err
				}
			}
		}
	}
}

func (t *replaying) pathsOf(ctx context.Context, folder int64, nodes []Node) ([]int64, error) {
	if folder > t.paths {
		names := make([]string, len(nodes))
		for i := range nodes {
			names[i] = nodes[i].Name
		}
		return t.run.NewPaths(ctx, folder, names)
	}
	ids := make([]int64, len(nodes))
	for i := range nodes {
		var err error
		if ids[i], err = t.run.Path(ctx, folder, nodes[i].Name); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// entry records one entry. What was unreadable is a gap: what earlier runs saw
// there, and below, stays open.
func (t *replaying) entry(ctx context.Context, n *Node, path int64) (err error) {
	f := n.File
	f.Volume = t.volumes[f.Volume]
	if n.HasXattrs {
		if f.Xattrs, err = t.view.xattrsOf(ctx, n); err != nil {
			return err
		}
	}
	if f.State == StateUnreadable {
		return t.run.Gap(ctx, path, f, cmp.Or(f.Errno, int(syscall.EIO)))
	}
	isNew := path > t.paths
	var old Version
	if !isNew {
		if old, _, err = t.run.Open(ctx, path); err != nil {
			return err
		}
	}
	if n.Content != 0 {
		if f.Content, err = t.content(ctx, n, old.File.Content); err != nil {
			return err
		}
	}
	// When in this run it was read is not known: an edit at that moment may
	// show in nothing.
	recheck := f.State == StateChanged || t.during(f.MTime) || t.during(f.CTime)
	if isNew {
		return t.run.RecordNew(ctx, path, f, recheck)
	}
	_, err = t.run.Record(ctx, path, f, recheck)
	return err
}

func (t *replaying) during(s Time) bool { return s.Sec >= t.from.Sec && s.Sec <= t.to.Sec }

// content finds or makes the content of a file, and notes where its chunks are.
func (t *replaying) content(ctx context.Context, n *Node, like int64) (id int64, err error) {
	if id, known := t.linked[n.Content]; known {
		return id, nil
	}
	var pieces []ContentChunk
	err = t.view.Pieces(ctx, []int64{n.Content}, func(p Piece) error {
		c := ContentChunk{Offset: p.Offset, Length: p.Length}
		if !p.Hole {
			if c.Chunk, _, err = t.run.Chunk(ctx, p.Chunk, p.ChunkSize); err != nil {
				return err
			}
		}
		pieces = append(pieces, c)
		if p.BlobID == 0 {
			return nil
		}
		blob, known := t.blobs[p.BlobID]
		if !known {
			return errors.New("a chunk is in a blob that is not there")
		}
		return t.run.add(ctx, "record a chunk's place", func(x *Index) error {
			return x.add(&t.run.held.blobChunks, c.Chunk, blob, p.FrameOffset, p.FrameLength, p.FrameStart, p.ChunkSize)
		})
	})
	if err != nil {
		return 0, err
	}
	id, err = t.run.Content(ctx, pieces, like)
	if n.Nlink > 1 {
		t.linked[n.Content] = id
	}
	return id, err
}

// closeGone closes what earlier runs saw in a folder and this one did not.
func (t *replaying) closeGone(ctx context.Context, ino uint64, folder int64) error {
	if folder > t.paths {
		return nil
	}
	type child struct {
		path int64
		name string
	}
	for after := ""; ; {
		var open []child
		err := t.run.read(ctx, "look up a folder's entries", func(x *Index) error {
			return x.each(ctx, `SELECT p.id, p.name FROM paths p JOIN files f ON f.set_id = ? AND f.path = p.id AND f.end_run IS NULL
				WHERE p.parent = ? AND p.name > ? ORDER BY p.name LIMIT ?`, []any{t.run.set, folder, []byte(after), nodesAtOnce},
				func(scan func(...any) error) error {
					var c child
					err := scan(&c.path, &c.name)
					open = append(open, c)
					return err
				})
		})
		if err != nil || len(open) == 0 {
			return err
		}
		after = open[len(open)-1].name
		for _, c := range open {
			_, there, err := t.view.lookup(ctx, ino, c.name)
			if err != nil {
				return err
			}
			if there {
				continue
			}
			if _, err := t.run.Close(ctx, c.path); err != nil {
				return err
			}
		}
	}
}
