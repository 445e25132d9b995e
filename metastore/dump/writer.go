package dump

import (
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Limits of a dump's statements, for writers and readers alike. They keep a
// statement within what any build of sqlite3 takes and a reader's buffer
// small, while five hundred rows load twenty times as fast as one.
const (
	statementRows  = 500       // rows of an INSERT, keys of a DELETE
	StatementBytes = 1_000_000 // with the semicolon and the newline
)

// PartWriter receives one part of a dump. Each Write is a header, a whole
// statement, or the end.
type PartWriter interface {
	io.Writer
	// Full is asked between statements, which have at most 1,000,000 bytes:
	// whether what follows shall go to another part.
	Full() bool
	// Close ends a complete part. It is not called after an error.
	Close() error
}

// Writer writes a dump: it cuts rows into INSERT statements and statements
// into parts.
type Writer struct {
	kind PartKind
	next func(n int) (PartWriter, error)

	part  PartWriter // nil between parts
	n     int        // parts so far
	table Table      // of the statement in buf, if there are rows
	rows  int        // in buf
	buf   []byte
}

// NewWriter begins a dump. next is asked for a writer of each part, n being
// 1 for the first.
func NewWriter(kind PartKind, next func(n int) (PartWriter, error)) *Writer {
	return &Writer{kind: kind, next: next}
}

// Snapshot adds the row of snapshots.
func (s *Writer) Snapshot(about metastore.Snapshot) error {
	row, err := snapshotRow(about)
	if err != nil {
		return err
	}
	return s.Row(TableSnapshots, row)
}

// Row adds a row in the form "(value,value)", which is not checked.
func (s *Writer) Row(t Table, row []byte) error {
	const around = len("INSERT INTO  VALUES") + len(";\n")
	if around+len(t.String())+len(row) > StatementBytes {
		return fmt.Errorf("a row of %s would need a statement of more than %d bytes", t, StatementBytes)
	}
	if s.rows == 0 || t != s.table || s.rows == statementRows || len(s.buf)+len(",")+len(row)+len(";\n") > StatementBytes {
		if err := s.flush(); err != nil {
			return err
		}
		s.table = t
		s.buf = append(append(append(s.buf, "INSERT INTO "...), t.String()...), " VALUES"...)
	} else {
		s.buf = append(s.buf, ',')
	}
	s.rows++
	s.buf = append(s.buf, row...)
	return nil
}

// Delete takes rows away by a table's key.
func (s *Writer) Delete(t Table, keys iter.Seq[int64]) error {
	if err := s.flush(); err != nil {
		return err
	}
	for key := range keys {
		if s.rows == statementRows {
			s.buf = append(s.buf, ')')
			if err := s.flush(); err != nil {
				return err
			}
		}
		if s.rows == 0 {
			s.buf = fmt.Appendf(s.buf, "DELETE FROM %s WHERE %s IN (", t, t.Key())
		} else {
			s.buf = append(s.buf, ',')
		}
		s.buf = strconv.AppendInt(s.buf, key, 10)
		s.rows++
	}
	if s.rows == 0 {
		return nil
	}
	s.buf = append(s.buf, ')')
	return s.flush()
}

// flush writes the statement that was begun.
func (s *Writer) flush() error {
	if s.rows == 0 {
		return nil
	}
	if s.part == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	s.buf = append(s.buf, ";\n"...)
	if _, err := s.part.Write(s.buf); err != nil {
		return err
	}
	s.buf, s.rows = s.buf[:0], 0
	if s.part.Full() {
		return s.end()
	}
	return nil
}

func (s *Writer) open() (err error) {
	s.n++
	if s.part, err = s.next(s.n); err != nil {
		return err
	}
	header := Header(s.kind, s.n) + "BEGIN;\n"
	if s.n == 1 && s.kind == Full {
		header += schemaText
	}
	_, err = s.part.Write([]byte(header))
	return err
}

func (s *Writer) end() error {
	if _, err := s.part.Write([]byte("COMMIT;\n")); err != nil {
		return err
	}
	err := s.part.Close()
	s.part = nil
	return err
}

// Close ends the last statement and part.
func (s *Writer) Close() error {
	if err := s.flush(); err != nil || s.part == nil {
		return err
	}
	return s.end()
}

// appendValue appends one value of a dump: an int64, a []byte, a string, or
// nil for NULL. Text that the grammar has no way to write is an error.
func appendValue(dst []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case []byte:
		const digits = "0123456789ABCDEF"
		dst = append(dst, "X'"...)
		for _, b := range v {
			dst = append(dst, digits[b>>4], digits[b&15])
		}
		return append(dst, '\''), nil
	case string:
		if err := CheckText(v); err != nil {
			return dst, err
		}
		return append(append(append(dst, '\''), v...), '\''), nil
	case nil:
		return append(dst, "NULL"...), nil
	}
	return dst, fmt.Errorf("a dump has no value of type %T", value)
}

// CheckText refuses what may not stand in a dump's text: all but printable
// ASCII, and what quoting would have to escape.
func CheckText(s string) error {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '\'' || c == '\\' {
			return fmt.Errorf("%q has characters that the text of a dump cannot have", s)
		}
	}
	return nil
}

// appendRow appends a row's values in parentheses.
func appendRow(dst []byte, values ...any) (_ []byte, err error) {
	dst = append(dst, '(')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ')'), nil
}

// list is the form of several strings in one value: each followed by a NUL.
func list(elements []string) ([]byte, error) {
	out := []byte{}
	for _, e := range elements {
		if strings.IndexByte(e, 0) >= 0 {
			return nil, fmt.Errorf("%q has a NUL character", e)
		}
		out = append(append(out, e...), 0)
	}
	return out, nil
}

// snapshotRow is the row of snapshots.
func snapshotRow(s metastore.Snapshot) ([]byte, error) {
	var lists [3][]byte
	for i, l := range [][]string{s.Roots, s.Excludes, s.Tags} {
		var err error
		if lists[i], err = list(l); err != nil {
			return nil, err
		}
	}
	c := s.Chunking
	return appendRow(nil,
		s.Seq, s.ID, s.Writer, s.Set, []byte(s.Hostname),
		s.Started.Sec, int64(s.Started.Nsec), s.Finished.Sec, int64(s.Finished.Nsec), s.Version, s.Revision,
		lists[0], lists[1], lists[2],
		c.Algorithm, int64(c.Min), int64(c.Avg), int64(c.Max), c.Secret,
		s.NewFiles, s.NewBytes, s.StoredBytes)
}
