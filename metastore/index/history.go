package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Record says what an entry is like in this run. If its open version is the
// same, extended attributes included, at most the flag for reading it again
// is updated. Otherwise that version ends here and a new one begins. What is
// not a directory any more loses everything below.
//
// A rollback leaves the flag: the file was read, and that version is still there.
//
// A directory's ancestors must be recorded too, "/" among them, or readers
// will refuse the dump. A regular file's Size must be its content's.
func (r *Run) Record(ctx context.Context, path int64, f metastore.File, recheck bool) (changed bool, err error) {
	if err := checkFile(&f); err != nil {
		return false, err
	}
	err = r.write(ctx, "record an entry", func(x *Index) error {
		if err := r.fill(path); err != nil {
			return err
		}
		var old Version
		found, err := r.openVersion(path, &old)
		if err != nil {
			return err
		}
		if found {
			same := sameFile(&old.File, &f)
			if same {
				if same, err = x.sameXattrs(old, f.Xattrs); err != nil {
					return err
				}
			}
			if same && old.Recheck == recheck {
				return nil
			}
			if same {
				_, _, err := x.db.Exec("UPDATE files SET recheck = ? WHERE id = ?", recheck, old.Row)
				return err
			}
			if old.File.Type == metastore.Directory && f.Type != metastore.Directory {
				if _, err := r.closeBelow(path); err != nil {
					return err
				}
			}
			if err := r.endVersion(old.Row); err != nil {
				return err
			}
		}
		if f.Content != old.File.Content || f.Size != old.File.Size {
			if err := r.checkContent(&f); err != nil {
				return err
			}
		}
		changed = true
		r.changes++
		_, err = r.insert(path, &f, recheck, false)
		return err
	})
	return changed, err
}

// RecordNew is Record for an entry of which the caller knows that it has no
// open version: it looks for none, and fails if there is one.
func (r *Run) RecordNew(ctx context.Context, path int64, f metastore.File, recheck bool) error {
	if err := checkFile(&f); err != nil {
		return err
	}
	return r.add(ctx, "record a new entry", func(x *Index) error {
		if r.gaps > 0 || f.Content != 0 && f.Content != r.lastID {
			if err := x.db.Flush(r.held.all()...); err != nil {
				return err
			}
		}
		if err := r.fill(path); err != nil {
			return err
		}
		if err := r.checkContent(&f); err != nil {
			return err
		}
		r.changes++
		_, err := r.insert(path, &f, recheck, false)
		return err
	})
}

// openVersion reads the open version of a path, without the look at blobs.
func (r *Run) openVersion(path int64, v *Version) (found bool, err error) {
	err = r.x.db.Each(context.Background(), "SELECT "+versionColumns+" FROM files f WHERE f.set_id = ? AND f.path = ? AND f.end_run IS NULL",
		[]any{r.set, path}, func(scan func(...any) error) error {
			found = true
			return scanVersion(scan, v)
		})
	return found, err
}

func (x *Index) sameXattrs(old Version, xattrs []metastore.Xattr) (bool, error) {
	if old.xattrs != int64(len(xattrs)) {
		return false, nil
	}
	if len(xattrs) == 0 {
		return true, nil
	}
	i, same := 0, true
	err := x.db.Each(context.Background(), "SELECT name, value FROM xattrs WHERE file = ? ORDER BY name", []any{old.Row},
		func(scan func(...any) error) error {
			var name, value sql.RawBytes
			if err := scan(&name, &value); err != nil {
				return err
			}
			same = same && i < len(xattrs) && string(name) == xattrs[i].Name && string(value) == string(xattrs[i].Value)
			i++
			return nil
		})
	return same && i == len(xattrs), err
}

// checkContent makes sure that a reader will find as many bytes as the entry
// says: who records otherwise would make a snapshot that every reader refuses.
func (r *Run) checkContent(f *metastore.File) error {
	if f.Content == 0 || f.Content == r.lastID && f.Size == r.lastSize {
		return nil
	}
	var size int64
	found, err := r.x.db.Row("SELECT size FROM contents WHERE id = ?", []any{f.Content}, &size)
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("there is no content %d", f.Content)
	case size != f.Size:
		return fmt.Errorf("content %d has %d bytes, the file %d", f.Content, size, f.Size)
	}
	return nil
}

func (r *Run) insert(path int64, f *metastore.File, recheck, gap bool) (row int64, err error) {
	end := sql.NullInt64{Int64: r.seq + 1, Valid: gap}
	row = next(&r.x.last.files)
	err = r.x.db.Add(&r.held.files, fileValues([]any{row, r.set, path, r.seq, end, gap, recheck, len(f.Xattrs)}, f)...)
	if err != nil {
		return 0, err
	}
	for _, a := range f.Xattrs {
		value := a.Value
		if value == nil {
			value = []byte{}
		}
		if _, _, err := r.x.db.Exec("INSERT INTO xattrs (file, name, value) VALUES (?, ?, ?)", row, []byte(a.Name), value); err != nil {
			return 0, err
		}
	}
	return row, nil
}

// endVersion makes a version not hold from this run on. One that began in this
// run never held.
func (r *Run) endVersion(row int64) error {
	_, n, err := r.x.db.Exec("UPDATE files SET end_run = ?1 WHERE id = ?2 AND first_run < ?1", r.seq, row)
	if err != nil || n == 1 {
		return err
	}
	return r.drop(row)
}

func (r *Run) drop(row int64) error {
	if _, _, err := r.x.db.Exec("DELETE FROM xattrs WHERE file = ?", row); err != nil {
		return err
	}
	_, _, err := r.x.db.Exec("DELETE FROM files WHERE id = ?", row)
	return err
}

// Close says that there is nothing at path any more. It closes the open
// version there and everything below it, forgets their marks, and returns how
// many versions were closed.
func (r *Run) Close(ctx context.Context, path int64) (n int, err error) {
	err = r.write(ctx, "close an entry", func(x *Index) error {
		if err := r.fill(path); err != nil {
			return err
		}
		var old Version
		found, err := r.openVersion(path, &old)
		if err != nil {
			return err
		}
		if !found || old.File.Type == metastore.Directory {
			if n, err = r.closeBelow(path); err != nil {
				return err
			}
		}
		if !found {
			return nil
		}
		n++
		r.changes++
		return r.endVersion(old.Row)
	})
	return n, err
}

// below selects all paths below ?1, which need not have open versions
// themselves to have some below.
const below = "WITH RECURSIVE t (id) AS (SELECT id FROM paths WHERE parent = ?1 UNION ALL SELECT p.id FROM t JOIN paths p ON p.parent = t.id) "

// closeBelow closes everything below path, drops the gaps that this run had
// there, and forgets the marks of path and below: should the same directory
// come back, its entries have to be recorded again.
func (r *Run) closeBelow(path int64) (int, error) {
	x := r.x
	if r.gaps > 0 {
		for _, query := range []string{
			"DELETE FROM xattrs WHERE file IN (SELECT file FROM gaps WHERE run = ?2 AND path IN t)",
			"DELETE FROM files WHERE id IN (SELECT file FROM gaps WHERE run = ?2 AND path IN t)",
			"DELETE FROM gaps WHERE run = ?2 AND path IN t",
		} {
			if _, _, err := x.db.Exec(below+query, path, r.seq); err != nil {
				return 0, err
			}
		}
	}
	var closed int64
	for _, q := range []struct {
		query  string
		counts bool
	}{
		{"DELETE FROM xattrs WHERE file IN (SELECT id FROM files WHERE set_id = ?3 AND end_run IS NULL AND path IN t AND first_run = ?2)", false},
		{"DELETE FROM files WHERE set_id = ?3 AND end_run IS NULL AND path IN t AND first_run = ?2", true},
		{"UPDATE files SET end_run = ?2 WHERE set_id = ?3 AND end_run IS NULL AND path IN t", true},
		{"DELETE FROM marks WHERE set_id = ?3 AND path IN (SELECT ?1 UNION ALL SELECT id FROM t)", false},
	} {
		_, n, err := x.db.Exec(below+q.query, path, r.seq, r.set)
		if err != nil {
			return 0, err
		}
		if q.counts {
			closed += n
		}
	}
	r.changes++
	return int(closed), nil
}

// Gap says that this run could not look at what is at path, or below it.
// Nothing there is closed; this run's snapshot shows f in its place, as
// unreadable because of errno, with no content and nothing below. A later
// Record or Close of the same path in this run takes the gap back.
//
// The marks of path and its parent are dropped. Do not set them again in this
// run.
func (r *Run) Gap(ctx context.Context, path int64, f metastore.File, errno int) error {
	f.State, f.Errno, f.Content = metastore.StateUnreadable, errno, 0
	if err := checkFile(&f); err != nil {
		return err
	}
	if errno <= 0 {
		return errors.New("a gap needs a reason")
	}
	return r.write(ctx, "record a gap", func(x *Index) error {
		if err := r.fill(path); err != nil {
			return err
		}
		row, err := r.insert(path, &f, false, true)
		if err != nil {
			return err
		}
		if _, _, err := x.db.Exec("INSERT INTO gaps (run, path, errno, file) VALUES (?, ?, ?, ?)", r.seq, path, errno, row); err != nil {
			return err
		}
		r.gaps++
		r.changes++
		_, _, err = x.db.Exec("DELETE FROM marks WHERE set_id = ?1 AND path IN (?2, (SELECT parent FROM paths WHERE id = ?2))", r.set, path)
		return err
	})
}

// fill takes back this run's gap at path, if there is one.
func (r *Run) fill(path int64) error {
	if r.gaps == 0 {
		return nil
	}
	var row int64
	found, err := r.x.db.Row("SELECT file FROM gaps WHERE run = ? AND path = ?", []any{r.seq, path}, &row)
	if err != nil || !found {
		return err
	}
	if err := r.drop(row); err != nil {
		return err
	}
	r.changes++
	_, _, err = r.x.db.Exec("DELETE FROM gaps WHERE run = ? AND path = ?", r.seq, path)
	return err
}
