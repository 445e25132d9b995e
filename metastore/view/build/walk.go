package build

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"errors"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// walker numbers the entries of a tree that is staged and writes its pages. It
// goes through the tree depth first and keeps what one path needs: the depth
// is bounded, and so is what it remembers of a directory with any number of
// subdirectories.
type walker struct {
	b       *builder
	slot    uint64 // of the next entry
	reached int64  // entries
	bytes   int64  // of captured content

	page   layout.PageBuilder
	first  uint64 // slot of the page's first entry
	low    []byte // its sort key
	buf    []byte
	file   metastore.File // scratch
	volume int64          // known to exist

	entries, subdirs, addPage, addLink, getLink, getVolume, getXattr *sqlite.Statement

	sizes, contents *layout.Reader
}

// maxDepth bounds the components of a path.
const maxDepth = 4096

// subdirBatch is how many subdirectories of one directory are remembered at a
// time.
const subdirBatch = 256

// entriesOf yields what entry takes, of a directory's entries in byte order:
// all of them, or the directories.
const entriesOf = `SELECT p.id, p.name, f.id, f.dir, f.data
	FROM stage.paths p JOIN stage.files f ON f.path = p.id
	WHERE p.parent = ?1 AND f.dir >= ?2 ORDER BY p.name`

func (w *walker) prepare(b *builder) (err error) {
	w.b, w.sizes, w.contents = b, b.sizes.reader(), b.contents.reader()
	for _, s := range []struct {
		to    **sqlite.Statement
		query string
	}{
		{&w.entries, entriesOf},
		{&w.subdirs, `SELECT p.id, p.name FROM stage.paths p JOIN stage.files f ON f.path = p.id
			WHERE p.parent = ? AND p.name > ? AND f.dir ORDER BY p.name LIMIT ?`},
		{&w.addPage, "INSERT INTO main.pages VALUES (?, ?, ?, ?)"},
		{&w.addLink, "INSERT OR IGNORE INTO stage.links VALUES (?, ?)"},
		{&w.getLink, "SELECT slot FROM stage.links WHERE key = ?"},
		{&w.getVolume, "SELECT id FROM main.volumes WHERE id = ?"},
		{&w.getXattr, "SELECT 1 FROM main.xattrs WHERE file = ? LIMIT 1"},
	} {
		if *s.to, err = b.conn.Prepare(s.query); err != nil {
			return err
		}
	}
	return nil
}

// level is a directory whose entries have their slots and whose
// subdirectories are being walked through.
type level struct {
	path  int64
	ino   uint64  // of the next subdirectory
	left  int     // subdirectories to come
	batch []int64 // the next ones' paths
	after []byte  // name of the last one in the batch
}

// all walks through the whole tree and makes sure that it met every row of
// files once.
func (w *walker) all(ctx context.Context) error {
	w.slot = 1
	root, err := w.list(ctx, 0, 0)
	if err != nil {
		return err
	}
	if w.reached != 1 || root.left != 1 {
		return dump.Errorf("the root is missing or is not a directory")
	}
	stack := []level{root}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.left == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		if len(top.batch) == 0 {
			if err := w.refill(top); err != nil {
				return err
			}
		}
		path, ino := top.batch[0], top.ino
		top.batch, top.ino, top.left = top.batch[1:], top.ino+1, top.left-1
		before := w.reached
		next, err := w.list(ctx, path, ino)
		if err != nil {
			return err
		}
		if len(stack) > maxDepth && w.reached > before {
			return dump.Errorf("path %d: deeper than %d directories", path, maxDepth)
		}
		if next.left > 0 {
			stack = append(stack, next)
		}
	}
	if w.reached != w.b.rows[dump.TableFiles] {
		return w.unreached()
	}
	return nil
}

// refill fetches the next subdirectories of a level.
func (w *walker) refill(l *level) error {
	l.batch = make([]int64, 0, min(l.left, subdirBatch))
	err := w.subdirs.Each(func(row []driver.Value) error {
		l.batch, l.after = append(l.batch, row[0].(int64)), row[1].([]byte)
		return nil
	}, l.path, l.after, int64(subdirBatch))
	if err == nil && len(l.batch) == 0 {
		err = dump.Errorf("path %d: its subdirectories changed", l.path) // cannot be
	}
	return err
}

// list gives the entries of a directory their slots and writes its pages.
func (w *walker) list(ctx context.Context, path int64, ino uint64) (level, error) {
	if err := ctx.Err(); err != nil {
		return level{}, err
	}
	l := level{path: path, ino: w.slot}
	each := func(from int64, f func(row []driver.Value) error) error {
		seen := 0
		return w.entries.Each(func(row []driver.Value) error {
			if seen++; seen%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			return f(row)
		}, path, from)
	}
	err := each(0, func(row []driver.Value) error {
		if row[3].(int64) != 0 {
			l.left++
			return nil
		}
		l.ino++
		return w.entry(row, ino)
	})
	if err == nil && l.left > 0 {
		err = each(1, func(row []driver.Value) error {
			if len(l.batch) < subdirBatch {
				l.batch, l.after = append(l.batch, row[0].(int64)), row[1].([]byte)
			}
			return w.entry(row, ino)
		})
	}
	if err != nil {
		return level{}, err
	}
	return l, w.flush(ino)
}

// entry gives one entry its slot and puts it into the page.
func (w *walker) entry(row []driver.Value, dir uint64) error {
	file, id := &w.file, row[2].(int64)
	e := layout.Entry{Name: row[1].([]byte), Row: id, File: row[4].([]byte)}
	if err := layout.DecodeFile(e.File, file); err != nil {
		return err
	}
	if w.b.rows[dump.TableXattrs] > 0 {
		if some, err := w.exists(w.getXattr, id); err != nil {
			return err
		} else if some {
			e.Flags |= layout.FlagXattrs
		}
	}
	if file.Volume != 0 && file.Volume != w.volume {
		found, err := w.exists(w.getVolume, file.Volume)
		if err != nil {
			return err
		}
		if !found {
			return dump.Errorf("files with id %d: volume %d does not exist", id, file.Volume)
		}
		w.volume = file.Volume
	}
	if file.Content != 0 {
		size, found, err := w.sizes.Get(layout.Key{First: file.Content})
		if err == nil && !found { // no pieces: empty
			_, found, err = w.contents.Get(layout.Key{First: file.Content})
		}
		if err != nil {
			return err
		}
		if !found {
			return dump.Errorf("files with id %d: its content does not exist", id)
		}
		if size.N[0] != file.Size {
			return dump.Errorf("files with id %d: its content has %d bytes, the file %d", id, size.N[0], file.Size)
		}
		e.Blocks, w.bytes = size.N[1], metastore.AddBytes(w.bytes, size.N[0])
	}
	if file.Nlink > 1 && file.Inode != 0 && file.Type != metastore.Directory {
		if err := w.link(&e); err != nil {
			return err
		}
	}
	if !w.page.Add(&e) {
		if err := w.flush(dir); err != nil {
			return err
		}
		w.page.Add(&e)
	}
	if w.page.Count() == 1 {
		w.first, w.low = w.slot, layout.SortKey(file.Type == metastore.Directory, string(e.Name))
	}
	w.slot++
	w.reached++
	return nil
}

// exists reports whether a query has a row.
func (w *walker) exists(s *sqlite.Statement, id int64) (found bool, err error) {
	err = s.Each(func([]driver.Value) error { found = true; return nil }, id)
	return found, err
}

// link finds the entry that this one is a hard link to. Volume and inode tell,
// together with everything else that links share: two names of one inode that
// were read before and after a change are shown as what they are, two files.
func (w *walker) link(e *layout.Entry) error {
	key := sha256.Sum256(e.File[1:])
	_, added, err := w.addLink.Exec(key[:], int64(w.slot))
	if err != nil || added > 0 {
		return err
	}
	e.Flags |= layout.FlagLink
	return w.getLink.Each(func(row []driver.Value) error {
		e.Ino = uint64(row[0].(int64))
		return nil
	}, key[:])
}

// flush writes the page, if there is anything in it.
func (w *walker) flush(dir uint64) error {
	if w.page.Count() == 0 {
		return nil
	}
	w.buf = w.page.AppendTo(w.buf[:0])
	_, _, err := w.addPage.Exec(int64(w.first), int64(dir), w.low, w.buf)
	return err
}

// unreached says which row of files the walk did not come to.
func (w *walker) unreached() error {
	s, err := w.b.conn.Prepare(`SELECT f.id FROM stage.files f
		LEFT JOIN stage.paths p ON p.id = f.path LEFT JOIN stage.files d ON d.path = p.parent
		WHERE p.id IS NULL OR p.parent <> 0 AND d.dir IS NOT 1 LIMIT 1`)
	if err != nil {
		return err
	}
	err = s.Each(func(row []driver.Value) error {
		return dump.Errorf("files with id %d: its path does not exist or is not in a directory", row[0])
	})
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	return dump.Errorf("%d of %d rows of files are in directories that lie in one another", w.b.rows[dump.TableFiles]-w.reached, w.b.rows[dump.TableFiles])
}
