package sqlite

import (
	"slices"
	"strings"
)

// BulkRows is how many rows go into a table with one statement: SQLite then
// starts and ends a statement, and Go crosses over to C, so many times less.
const BulkRows = 32

// Bulk holds back rows of one table. Whatever reads the table has to flush it
// before.
type Bulk struct {
	into    string // "INSERT INTO … VALUES "
	columns int
	tail    string // what follows the rows
	args    []any
}

// NewBulk holds back rows of a table with so many columns, which into may name.
// tail is what follows the rows.
func NewBulk(into string, columns int, tail string) Bulk {
	return Bulk{into: "INSERT INTO " + into + " VALUES ", columns: columns, tail: tail}
}

// Add holds a row back, and writes it with those before it once they are
// enough. Byte slices among its values must stay as they are until then.
func (s *Writer) Add(b *Bulk, row ...any) error {
	b.args = append(b.args, row...)
	if len(b.args) < BulkRows*b.columns {
		return nil
	}
	return s.writeRows(b, BulkRows)
}

// Flush writes what is held back.
func (s *Writer) Flush(bulks ...*Bulk) error {
	for _, b := range bulks {
		for rows := len(b.args) / b.columns; rows > 0; {
			n := 1
			if rows >= BulkRows/4 {
				n = BulkRows / 4
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
func (s *Writer) writeRows(b *Bulk, n int) error {
	row := "(?" + strings.Repeat(", ?", b.columns-1) + ")"
	query := b.into + row + strings.Repeat(", "+row, n-1) + b.tail
	p, err := s.use(query)
	if err != nil {
		return err
	}
	args := n * b.columns
	if err := p.Do(b.args[:args]...); err != nil {
		return err
	}
	s.Changed += int64(n)
	b.args = slices.Delete(b.args, 0, args)
	return nil
}
