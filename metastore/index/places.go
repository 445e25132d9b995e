package index

import (
	"context"
	"fmt"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

// DirectoryMark is what the index knows of a directory before looking closer.
type DirectoryMark struct {
	Path   int64
	New    bool     // nothing was ever recorded at it or below, in any set
	Mark   [16]byte // of the set's last run that looked at all of its entries
	Marked bool
	Volume int64 // of its open version, if that is a directory's and complete; else 0
}

// RootPath is the path of "/".
const RootPath int64 = 1

// Directory finds or makes the path of a directory and tells what its entries
// looked like: if the mark is still right, everything recorded of them holds.
// "/" has the parent 0 and the name "".
func (r *Run) Directory(ctx context.Context, parent int64, name string) (d DirectoryMark, err error) {
	if err := checkEntry(parent, name); err != nil {
		return DirectoryMark{}, err
	}
	// Versions that are held back are of entries that are not looked up again.
	err = r.add(ctx, "look up a directory", func(x *Index) error {
		var mark []byte
		found, err := x.db.Row(`SELECT p.id, m.mark, coalesce(f.volume, 0) FROM paths p
			LEFT JOIN marks m ON m.set_id = ?1 AND m.path = p.id
			LEFT JOIN files f ON f.set_id = ?1 AND f.path = p.id AND f.end_run IS NULL AND f.type = 'd' AND f.state = 'complete'
			WHERE p.parent = ?2 AND p.name = ?3`, []any{r.set, parent, []byte(name)}, &d.Path, &mark, &d.Volume)
		if err != nil {
			return err
		}
		if !found {
			d.New = true
			d.Path, err = x.addPath(parent, name)
			return err
		}
		d.Marked = len(mark) == len(d.Mark)
		copy(d.Mark[:], mark)
		return nil
	})
	return d, err
}

// Path finds or makes the path of an entry.
func (r *Run) Path(ctx context.Context, parent int64, name string) (id int64, err error) {
	if err := checkEntry(parent, name); err != nil {
		return 0, err
	}
	err = r.write(ctx, "look up a path", func(x *Index) error {
		found, err := x.db.Row("SELECT id FROM paths WHERE parent = ? AND name = ?", []any{parent, []byte(name)}, &id)
		if err == nil && !found {
			id, err = x.addPath(parent, name)
		}
		return err
	})
	return id, err
}

// NewPaths makes the paths of entries of one directory that most likely have
// none yet, as those of a new directory. It is Path, many at a time.
func (r *Run) NewPaths(ctx context.Context, parent int64, names []string) (ids []int64, err error) {
	for _, name := range names {
		if err := checkEntry(parent, name); err != nil {
			return nil, err
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	ids = make([]int64, len(names))
	err = r.add(ctx, "make paths", func(x *Index) error {
		for i, name := range names {
			ids[i] = next(&x.last.paths)
			if err := x.db.Add(&r.held.paths, ids[i], parent, []byte(name)); err != nil {
				return err
			}
		}
		if err := x.db.Flush(&r.held.paths); err != nil {
			return err
		}
		var made int64
		_, err := x.db.Row("SELECT count(*) FROM paths WHERE id BETWEEN ? AND ?", []any{ids[0], ids[len(ids)-1]}, &made)
		for i := 0; err == nil && made < int64(len(ids)) && i < len(ids); i++ {
			_, err = x.db.Row("SELECT id FROM paths WHERE parent = ? AND name = ?", []any{parent, []byte(names[i])}, &ids[i])
		}
		return err
	})
	return ids, err
}

// checkEntry refuses names that no reader would accept.
func checkEntry(parent int64, name string) error {
	if parent == 0 && name == "" {
		return nil // "/"
	}
	if name == "" || name == "." || name == ".." || len(name) > dump.MaxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot be the name of an entry", name)
	}
	return nil
}

func (x *Index) addPath(parent int64, name string) (int64, error) {
	// The parent must be known, or nobody would ever find the entry.
	id := next(&x.last.paths)
	_, n, err := x.db.Exec("INSERT INTO paths SELECT ?, id, ? FROM paths WHERE id = ?", id, []byte(name), parent)
	if err == nil && n != 1 {
		err = fmt.Errorf("%q has the unknown parent %d", name, parent)
	}
	return id, err
}

// Components are the names on the way from "/" to a path.
func (r *Run) Components(ctx context.Context, path int64) (names []string, err error) {
	err = r.read(ctx, "look up a path's names", func(x *Index) error {
		names, err = x.components(ctx, path)
		return err
	})
	return names, err
}

// Volume finds or makes the row of a volume.
func (r *Run) Volume(ctx context.Context, fstype string, fsid uint64, root string) (id int64, err error) {
	if err := dump.CheckText(fstype); err != nil {
		return 0, err
	}
	err = r.write(ctx, "look up a volume", func(x *Index) error {
		found, err := x.db.Row("SELECT id FROM volumes WHERE fstype = ? AND fsid = ? AND root = ?",
			[]any{fstype, int64(fsid), []byte(root)}, &id)
		if err == nil && !found {
			id, _, err = x.db.Exec("INSERT INTO volumes (fstype, fsid, root) VALUES (?, ?, ?)", fstype, int64(fsid), []byte(root))
		}
		return err
	})
	return id, err
}

// SetMark keeps a hash over what all entries of a directory look like. Only
// set it when each of them was recorded, or found unchanged, in this run, and
// none has to be looked at again. A rollback forgets it.
func (r *Run) SetMark(ctx context.Context, path int64, m [16]byte) error {
	return r.add(ctx, "mark a directory", func(x *Index) error {
		_, _, err := x.db.Exec(`INSERT INTO marks (set_id, path, mark, run) VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET mark = excluded.mark, run = excluded.run WHERE mark <> excluded.mark`,
			r.set, path, m[:], r.seq)
		return err
	})
}

// ClearMark makes the next run look at every entry of a directory.
func (r *Run) ClearMark(ctx context.Context, path int64) error {
	return r.add(ctx, "clear a mark", func(x *Index) error {
		_, _, err := x.db.Exec("DELETE FROM marks WHERE set_id = ? AND path = ?", r.set, path)
		return err
	})
}
