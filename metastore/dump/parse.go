package dump

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrBad: the text is not a dump, or what it says cannot be a tree of
// files. Nothing of it was shown to anybody.
var ErrBad = errors.New("bad dump")

// PartKind says what a part of a dump belongs to.
type PartKind uint8

// The kinds of dumps.
const (
	Full         PartKind = iota // everything; its first part has the schema
	Differential                 // changes to one full dump
)

func (k PartKind) String() string {
	if k == Differential {
		return "differential"
	}
	return "full"
}

// Sink receives the rows of a dump in their order. An error ends the parsing.
type Sink interface {
	// Insert takes one row, whose values have the number and the kinds of
	// the table's columns. The row and all its bytes are valid during the
	// call only.
	Insert(table Table, row []Value) error

	// Delete takes the values of Table.Key whose rows go. It comes from
	// differential dumps only, and keys is valid during the call only.
	Delete(table Table, keys []int64) error
}

// Parse reads one part of a dump, the n-th of its dump from 1 on, and
// hands its rows to sink. It accepts exactly what the grammar in
// docs/FORMAT.md says, so what it has read would be the same bytes if written
// again; it never gives any text to SQLite. Everything else is ErrBad and
// says where. What a row means is the sink's to judge.
//
// An error of r or sink is returned wrapped. The part was not complete then,
// and rows that sink has seen are void.
//
// It needs one megabyte, the limit of a statement, and allocates nothing for
// rows.
func Parse(r io.Reader, kind PartKind, n int, sink Sink) error {
	p := parser{
		in:    bufio.NewReaderSize(r, StatementBytes),
		kind:  kind,
		sink:  sink,
		where: fmt.Sprintf("%s part %d", kind, n),
	}
	if err := p.part(n); err != nil {
		return fmt.Errorf("%s, line %d: %w", p.where, p.line, err)
	}
	return nil
}

// Header is the first line of a part.
func Header(kind PartKind, n int) string {
	return fmt.Sprintf("-- vaultik dump 1 %s %d\n", kind, n)
}

type parser struct {
	in    *bufio.Reader
	kind  PartKind
	sink  Sink
	where string
	line  int // of the text, from 1

	buf  []byte // the line, which values are decoded in
	pos  int    // in buf
	row  [32]Value
	keys [statementRows]int64
}

// Errorf makes an error that is ErrBad.
func Errorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBad, fmt.Sprintf(format, args...))
}

func (p *parser) part(n int) error {
	for _, want := range []string{Header(p.kind, n), "BEGIN;\n"} {
		if err := p.next(); err != nil {
			return err
		}
		if string(p.buf) != want {
			return Errorf("%q instead of %q", excerpt(p.buf), want)
		}
	}
	if p.kind == Full && n == 1 {
		schema := make([]byte, len(schemaText))
		if _, err := io.ReadFull(p.in, schema); err != nil {
			return readError(err)
		}
		if string(schema) != schemaText {
			return Errorf("the schema is not that of format 1")
		}
		p.line += bytes.Count(schema, []byte("\n"))
	}
	for {
		if err := p.next(); err != nil {
			return err
		}
		var err error
		switch {
		case p.skip("INSERT INTO "):
			err = p.insert()
		case p.kind == Differential && p.skip("DELETE FROM "):
			err = p.delete()
		case string(p.buf) == "COMMIT;\n":
			return p.end()
		default:
			err = Errorf("%q is not a statement of a %s dump", excerpt(p.buf), p.kind)
		}
		if err != nil {
			return err
		}
	}
}

// end makes sure that nothing follows.
func (p *parser) end() error {
	b, err := p.in.ReadByte()
	switch {
	case err == nil:
		return Errorf("byte %#02x follows COMMIT", b)
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("read the dump: %w", err)
}

// next reads a line, which is a whole statement, since no value can hold a
// line's end.
func (p *parser) next() error {
	line, err := p.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return Errorf("a statement of more than %d bytes", StatementBytes)
	}
	if err != nil {
		return readError(err)
	}
	p.line++
	p.buf, p.pos = line, 0
	return nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Errorf("the text ends too early")
	}
	return fmt.Errorf("read the dump: %w", err)
}

// excerpt is enough of a line to recognise it by.
func excerpt(line []byte) []byte { return line[:min(len(line), 60)] }

// skip moves behind token if it comes next.
func (p *parser) skip(token string) bool {
	if len(p.buf)-p.pos < len(token) || string(p.buf[p.pos:p.pos+len(token)]) != token {
		return false
	}
	p.pos += len(token)
	return true
}

// is moves behind c if it comes next. Every line ends in a newline, which no
// caller skips but as the last byte, so p.pos stays inside.
func (p *parser) is(c byte) bool {
	if p.pos >= len(p.buf) || p.buf[p.pos] != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) want(token string) error {
	if !p.skip(token) {
		return Errorf("%q instead of %q at byte %d", excerpt(p.buf[p.pos:]), token, p.pos)
	}
	return nil
}

// table reads a table's name, which ends at a space.
func (p *parser) table() (Table, error) {
	for t := range TableCount {
		if name := tables[t].name; p.skip(name) {
			if p.is(' ') {
				return t, nil
			}
			p.pos -= len(name)
		}
	}
	return 0, Errorf("%q is not a table of a dump", excerpt(p.buf[p.pos:]))
}

func (p *parser) insert() error {
	t, err := p.table()
	if err != nil {
		return err
	}
	if err := p.want("VALUES"); err != nil {
		return err
	}
	columns := t.Columns()
	row := p.row[:len(columns)]
	for rows := 1; ; rows++ {
		if rows > statementRows {
			return Errorf("more than %d rows in a statement", statementRows)
		}
		if err := p.want("("); err != nil {
			return err
		}
		for i := range columns {
			if i > 0 && !p.is(',') {
				return Errorf("column %s of %s: %q instead of a comma", columns[i].Name, t, excerpt(p.buf[p.pos:]))
			}
			if err := p.value(&columns[i], &row[i]); err != nil {
				return fmt.Errorf("row %d, column %s of %s: %w", rows, columns[i].Name, t, err)
			}
		}
		if err := p.want(")"); err != nil {
			return err
		}
		if err := p.sink.Insert(t, row); err != nil {
			return fmt.Errorf("row %d of the statement: %w", rows, err)
		}
		if !p.is(',') {
			return p.want(";\n")
		}
	}
}

func (p *parser) delete() error {
	t, err := p.table()
	if err != nil {
		return err
	}
	for _, token := range []string{"WHERE ", t.Key(), " IN ("} {
		if err := p.want(token); err != nil {
			return err
		}
	}
	keys := p.keys[:0]
	for {
		if len(keys) == statementRows {
			return Errorf("more than %d keys in a statement", statementRows)
		}
		key, err := p.integer()
		if err != nil {
			return err
		}
		keys = append(keys, key)
		if !p.is(',') {
			break
		}
	}
	if err := p.want(");\n"); err != nil {
		return err
	}
	return p.sink.Delete(t, keys)
}
