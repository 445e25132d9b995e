package build

import (
	"crypto/sha256"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/mattn/go-sqlite3"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// blockSize is the bytes of a unit of st_blocks.
const blockSize = 512

// apply puts what was read into the tables.
func (b *builder) apply(changes *changeBatch) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	for i := range changes.changes {
		c := &changes.changes[i]
		if c.delete {
			n, err := b.remove(c.table, c.n[0])
			if err != nil {
				return err
			}
			b.rows[c.table] -= n
			continue
		}
		added, err := b.insert(c)
		if err != nil {
			return err
		}
		if !added {
			return dump.Errorf("%s with %s %d: there is another such row", c.table, c.table.Key(), c.n[0])
		}
		b.rows[c.table]++
	}
	return b.flush() // their bytes are used again
}

// flush writes the rows that are held back.
func (b *builder) flush() error { return errors.Join(b.paths.flush(), b.files.flush()) }

// insert adds a row unless there is one with its key.
func (b *builder) insert(c *change) (added bool, err error) {
	row := layout.Row{Key: layout.Key{First: c.n[0]}}
	switch c.table {
	case dump.TableSnapshots:
		values := make([]any, len(c.row))
		for i, v := range c.row {
			switch v.Kind {
			case dump.Integer:
				values[i] = v.Int
			case dump.Text:
				values[i] = string(v.Bytes)
			case dump.Bytes:
				values[i] = v.Bytes
			}
		}
		return b.snapshots.add(values...)
	case dump.TableVolumes:
		return b.volumes.add(c.n[0], string(c.bytes[:c.n[2]]), c.n[1], c.bytes[c.n[2]:])
	case dump.TableXattrs:
		return b.xattrs.add(c.n[0], c.bytes[:c.n[1]], c.bytes[c.n[1]:])
	case dump.TableBlobs:
		return b.blobs.add(c.n[0], c.bytes[:sha256.Size], c.n[1], c.n[2], c.n[3], c.bytes[sha256.Size:], c.n[4], c.n[5])
	case dump.TablePaths:
		if added, err = b.pathIDs.put(&row); added {
			err = b.paths.add(c.n[0], c.n[1], c.bytes)
		}
	case dump.TableFiles:
		row.N[0] = c.n[1]
		if added, err = b.fileIDs.put(&row); added {
			err = b.files.add(c.n[1], c.n[0], c.n[2], c.bytes)
		}
	case dump.TableContents:
		return b.contents.put(&row)
	case dump.TableFileChunks:
		row.Second = c.n[1]
		copy(row.N[:], c.n[2:4])
		if added, err = b.pieces.put(&row); added && err == nil {
			err = b.measure(&row)
		}
	case dump.TableChunks:
		row.N[0] = c.n[1]
		copy(row.Hash[:], c.bytes)
		return b.chunks.put(&row)
	case dump.TableBlobChunks:
		copy(row.N[:], c.n[1:])
		return b.places.put(&row)
	}
	return added, err
}

// remove removes the rows with a key, and returns how many they were.
func (b *builder) remove(t dump.Table, key int64) (n int64, err error) {
	switch t {
	case dump.TableSnapshots:
		return b.snapshots.drop(key)
	case dump.TableVolumes:
		return b.volumes.drop(key)
	case dump.TableXattrs:
		return b.xattrs.drop(key)
	case dump.TableBlobs:
		return b.blobs.drop(key)
	case dump.TableContents:
		_, n, err = b.contents.take(key)
	case dump.TableFileChunks:
		if err = b.measured(); err == nil {
			_, _, err = b.sizes.take(key)
		}
		if err == nil {
			_, n, err = b.pieces.take(key)
		}
	case dump.TableChunks:
		_, n, err = b.chunks.take(key)
	case dump.TableBlobChunks:
		_, n, err = b.places.take(key)
	case dump.TablePaths:
		if _, n, err = b.pathIDs.take(key); n > 0 && err == nil {
			err = b.dropPath(key)
		}
	case dump.TableFiles:
		var row layout.Row
		if row, n, err = b.fileIDs.take(key); n > 0 && err == nil {
			if err = b.flush(); err == nil {
				err = b.dropFile.Do(row.N[0])
			}
		}
	}
	return n, err
}

// dropPath removes a path, which only differentials do: nothing else needs an
// index of paths by id.
func (b *builder) dropPath(id int64) error {
	if err := b.flush(); err != nil {
		return err
	}
	if b.removePath == nil {
		if _, err := b.conn.Exec("CREATE INDEX stage.paths_id ON paths (id)", nil); err != nil {
			return err
		}
		var err error
		if b.removePath, err = b.conn.Prepare("DELETE FROM stage.paths WHERE id = ?"); err != nil {
			return err
		}
	}
	return b.removePath.Do(id)
}

// measure adds a piece to the size of its content, whose pieces come one after
// the other.
func (b *builder) measure(piece *layout.Row) error {
	if piece.First != b.size.First {
		if err := b.measured(); err != nil {
			return err
		}
		b.size.First = piece.First
	}
	length, chunk := piece.N[0], piece.N[1]
	b.size.N[0] += length // below 2^63, since the pieces lie in a row
	if chunk != 0 {
		b.size.N[1] += (length + blockSize - 1) / blockSize
	}
	return nil
}

// measured ends the content at hand, if there is one.
func (b *builder) measured() (err error) {
	if b.size.First != 0 {
		_, err = b.sizes.put(&b.size)
	}
	b.size = layout.Row{}
	return err
}

// settle writes what is still in memory.
func (b *builder) settle() error {
	if err := b.measured(); err != nil {
		return err
	}
	for _, p := range []*packer{b.pathIDs, b.fileIDs, b.contents, b.pieces, b.sizes, b.chunks, b.places} {
		if err := p.finish(); err != nil {
			return err
		}
	}
	return nil
}

// plainTable is a table with few rows.
type plainTable struct{ insert, remove *sqlite.Statement }

func newPlainTable(conn *sqlite.Conn, table string, columns int, key string) (t plainTable, err error) {
	if t.insert, err = conn.Prepare("INSERT INTO " + table + " VALUES (?" + strings.Repeat(", ?", columns-1) + ")"); err != nil {
		return t, err
	}
	t.remove, err = conn.Prepare("DELETE FROM " + table + " WHERE " + key + " = ?")
	return t, err
}

// add inserts a row unless its key is taken.
func (t *plainTable) add(row ...any) (added bool, err error) {
	err = t.insert.Do(row...)
	if constraint(err) {
		return false, nil
	}
	return err == nil, err
}

func (t *plainTable) drop(key int64) (n int64, err error) {
	_, n, err = t.remove.Exec(key)
	return n, err
}

// constraint reports whether SQLite refused a row because its key is taken.
func constraint(err error) bool {
	failed := sqlite3.Error{}
	return errors.As(err, &failed) && failed.Code == sqlite3.ErrConstraint
}

// stagedRows inserts rows into a table with many, sqlite.BulkRows with one statement.
type stagedRows struct {
	what      string // a row is, with its first column behind it
	one, bulk *sqlite.Statement
	columns   int
	held      []driver.Value // rows still to be inserted
}

func newStagedRows(conn *sqlite.Conn, what, table string, columns int) (s stagedRows, err error) {
	row := "(?" + strings.Repeat(", ?", columns-1) + ")"
	if s.one, err = conn.Prepare("INSERT INTO " + table + " VALUES " + row); err != nil {
		return s, err
	}
	s.bulk, err = conn.Prepare("INSERT INTO " + table + " VALUES " + row + strings.Repeat(", "+row, sqlite.BulkRows-1))
	s.what, s.columns = what, columns
	return s, err
}

// add inserts a row, sooner or later: its bytes stay as they are until flush.
func (s *stagedRows) add(row ...driver.Value) error {
	s.held = append(s.held, row...)
	if len(s.held) < sqlite.BulkRows*s.columns {
		return nil
	}
	err := s.bulk.DoValues(s.held)
	if constraint(err) {
		return s.flush() // none of them is in the table, and this finds out which is to blame
	}
	s.held = s.held[:0]
	return err
}

// flush inserts what add holds back.
func (s *stagedRows) flush() error {
	for at := 0; at < len(s.held); at += s.columns {
		err := s.one.DoValues(s.held[at : at+s.columns])
		if constraint(err) {
			return dump.Errorf("%s %d: there is another such row", s.what, s.held[at])
		}
		if err != nil {
			return err
		}
	}
	s.held = s.held[:0]
	return nil
}
