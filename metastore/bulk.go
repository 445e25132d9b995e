package metastore

import (
	"slices"
	"strings"
)

// bulkRows is how many rows go into a table with one statement: SQLite then
// starts and ends a statement, and Go crosses over to C, so many times less.
const bulkRows = 32

// bulk holds back rows of one table. Whatever reads the table has to flush it
// before.
type bulk struct {
	into    string // "INSERT INTO … VALUES "
	columns int
	tail    string // what follows the rows
	args    []any
}

// bulks are the tables that a run adds many rows to.
type bulks struct {
	paths, files, contents, fileChunks, blobChunks, chunks, prefixes bulk
}

func newBulks() *bulks {
	table := func(name string, columns int, tail string) bulk {
		return bulk{into: "INSERT INTO " + name + " VALUES ", columns: columns, tail: tail}
	}
	return &bulks{
		paths:      table("paths", 3, " ON CONFLICT DO NOTHING"),
		files:      table("files (id, set_id, path, first_run, end_run, gap, recheck, xattrs, "+fileColumns+")", 32, ""),
		contents:   table("contents", 2, ""),
		fileChunks: table("file_chunks", 4, ""),
		blobChunks: table("blob_chunks", 6, " ON CONFLICT DO NOTHING"),
		chunks:     table("chunks", 3, ""),
		prefixes:   table("prefixes", 2, ""),
	}
}

func (b *bulks) all() []*bulk {
	return []*bulk{&b.paths, &b.files, &b.contents, &b.fileChunks, &b.blobChunks, &b.chunks, &b.prefixes}
}

// add holds a row back, and writes it with those before it once they are
// enough. Byte slices among its values must stay as they are until then.
func (s *session) add(b *bulk, row ...any) error {
	b.args = append(b.args, row...)
	if len(b.args) < bulkRows*b.columns {
		return nil
	}
	return s.writeRows(b, bulkRows)
}

// flush writes what is held back.
func (s *session) flush(bulks ...*bulk) error {
	for _, b := range bulks {
		for rows := len(b.args) / b.columns; rows > 0; {
			n := 1
			if rows >= bulkRows/4 {
				n = bulkRows / 4
			}
			if err := s.writeRows(b, n); err != nil {
				return err
			}
			rows -= n
		}
	}
	return nil
}

// writeRows writes the first n rows that are held back.
func (s *session) writeRows(b *bulk, n int) error {
	row := "(?" + strings.Repeat(", ?", b.columns-1) + ")"
	query := b.into + row + strings.Repeat(", "+row, n-1) + b.tail
	p, err := s.use(query)
	if err != nil {
		return err
	}
	args := n * b.columns
	if err := p.bind(b.args[:args]); err != nil {
		return err
	}
	if err := p.put(); err != nil {
		return err
	}
	s.changed += int64(n)
	b.args = slices.Delete(b.args, 0, args)
	return nil
}
