package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// Statement is a prepared statement with room for its arguments and a row. It
// uses SQLite's driver without database/sql, whose share of inserting a row, or
// looking one up, is as much as SQLite's.
type Statement struct {
	stmt *sqlite3.SQLiteStmt
	args []driver.NamedValue
	row  []driver.Value
}

// Prepare prepares a query, which Close lets go of.
func Prepare(conn *sqlite3.SQLiteConn, query string) (*Statement, error) {
	s, err := conn.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	st := &Statement{stmt: s.(*sqlite3.SQLiteStmt)}
	st.args = make([]driver.NamedValue, st.stmt.NumInput())
	for i := range st.args {
		st.args[i].Ordinal = i + 1
	}
	return st, nil
}

// Conn is a connection with all that was prepared on it. SQLite lets go of
// a connection, of its files and its memory, only when its statements are gone,
// and once it is closed they cannot go any more.
type Conn struct {
	*sqlite3.SQLiteConn
	prepared []*Statement
}

// Prepare prepares a query, which Close of the connection lets go of.
func (c *Conn) Prepare(query string) (*Statement, error) {
	s, err := Prepare(c.SQLiteConn, query)
	if err == nil {
		c.prepared = append(c.prepared, s)
	}
	return s, err
}

// Close closes the statements, of which some may be closed already, and the
// connection.
func (c *Conn) Close() error {
	var errs []error
	for _, s := range c.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.SQLiteConn.Close())...)
}

// Close lets go of the statement.
func (s *Statement) Close() error { return s.stmt.Close() }

// bind puts values in place. Small statements take no context: one that can be
// cancelled costs a goroutine, and none of them blocks.
func (s *Statement) bind(args []any) error {
	if len(args) != len(s.args) {
		return fmt.Errorf("a statement with %d parameters got %d", len(s.args), len(args))
	}
	for i, a := range args {
		v, err := valueOf(a)
		if err != nil {
			return err
		}
		s.args[i].Value = v
	}
	return nil
}

// valueOf turns a into what the driver takes without a conversion of its own.
func valueOf(a any) (driver.Value, error) {
	switch a := a.(type) {
	case nil, int64, string, []byte, bool:
		return a, nil
	case int:
		return int64(a), nil
	case int32:
		return int64(a), nil
	case uint32:
		return int64(a), nil
	case sql.NullInt64:
		if !a.Valid {
			return nil, nil
		}
		return a.Int64, nil
	}
	return nil, fmt.Errorf("a parameter cannot be a %T", a)
}

// Exec executes the statement and returns what it did.
func (s *Statement) Exec(args ...any) (id, changed int64, err error) {
	if err := s.bind(args); err != nil {
		return 0, 0, err
	}
	return s.run()
}

// run executes the statement with what is in args.
func (s *Statement) run() (id, changed int64, err error) {
	r, err := s.stmt.ExecContext(context.Background(), s.args)
	if err != nil {
		return 0, 0, err
	}
	if id, err = r.LastInsertId(); err != nil {
		return 0, 0, err
	}
	changed, err = r.RowsAffected()
	return id, changed, err
}

// Do executes the statement.
func (s *Statement) Do(args ...any) error {
	if err := s.bind(args); err != nil {
		return err
	}
	return s.put()
}

// DoValues is Do for values that need no conversion, as many as there are
// parameters.
func (s *Statement) DoValues(values []driver.Value) error {
	for i, v := range values {
		s.args[i].Value = v
	}
	return s.put()
}

// put executes the statement with what is in args, where nobody wants to know
// what it did. The driver binds a query's arguments and takes its first step,
// which is all there is to an INSERT, in one call of C; for Exec it makes a
// call for each argument.
func (s *Statement) put() error {
	rows, err := s.stmt.QueryContext(context.Background(), s.args)
	if err != nil {
		return err
	}
	return rows.Close()
}

// Each calls f for every row of a query. The row, but not what its values
// point to, is valid during the call only.
func (s *Statement) Each(f func(row []driver.Value) error, args ...any) error {
	if err := s.bind(args); err != nil {
		return err
	}
	rows, err := s.stmt.QueryContext(context.Background(), s.args)
	if err != nil {
		return err
	}
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		err := rows.Next(s.row)
		if err == nil {
			err = f(s.row)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, rows.Close())
		}
	}
}

// EachScan calls f for every row with a way to copy it into variables.
func (s *Statement) EachScan(ctx context.Context, args []any, f func(scan func(...any) error) error) error {
	var row []driver.Value
	scan := func(dest ...any) error { return scanRow(row, dest) }
	n := 0
	return s.Each(func(r []driver.Value) error {
		if n++; n%1024 == 1 && ctx.Err() != nil {
			return ctx.Err()
		}
		row = r
		return f(scan)
	}, args...)
}

// scanRow copies a row into variables, as database/sql's Scan does.
func scanRow(row []driver.Value, dest []any) error {
	if len(row) != len(dest) {
		return fmt.Errorf("a row has %d columns, not %d", len(row), len(dest))
	}
	for i, v := range row {
		if !scanValue(v, dest[i]) {
			return fmt.Errorf("column %d is a %T, which does not go into a %T", i, v, dest[i])
		}
	}
	return nil
}

func scanValue(v driver.Value, dest any) bool {
	switch d := dest.(type) {
	case *int64:
		n, ok := v.(int64)
		*d = n
		return ok
	case *int:
		n, ok := v.(int64)
		*d = int(n)
		return ok
	case *int32:
		n, ok := v.(int64)
		*d = int32(n)
		return ok && n == int64(*d)
	case *uint32:
		n, ok := v.(int64)
		*d = uint32(n)
		return ok && n == int64(*d)
	case *bool:
		n, ok := v.(int64)
		*d = n != 0
		return ok
	case *sql.NullInt64:
		n, ok := v.(int64)
		d.Int64, d.Valid = n, ok
		return ok || v == nil
	case *string:
		return scanBytes(v, func(s string) { *d = s }, func(b []byte) { *d = string(b) })
	case *[]byte:
		*d = nil
		return v == nil || scanBytes(v, func(s string) { *d = []byte(s) }, func(b []byte) { *d = b })
	case *sql.RawBytes:
		*d = nil
		return v == nil || scanBytes(v, func(s string) { *d = sql.RawBytes(s) }, func(b []byte) { *d = b })
	}
	return false
}

// scanBytes hands over text or a blob; blobs are nobody else's.
func scanBytes(v driver.Value, text func(string), blob func([]byte)) bool {
	switch v := v.(type) {
	case string:
		text(v)
	case []byte:
		blob(v)
	default:
		return false
	}
	return true
}
