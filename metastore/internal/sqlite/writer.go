package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/mattn/go-sqlite3" // and the driver "sqlite3"
)

// ErrClosed is what a Writer says that was closed.
var ErrClosed = errors.New("the index is closed")

// batchRows is how many changed rows make a transaction be committed. What it
// bounds is the log's size and nothing else: rows of an interrupted run are
// undone anyway, and blobs are committed one by one. Hashes of chunks are
// spread over the whole of their index, so that few big commits write far
// fewer pages than many small ones.
const batchRows = 50_000

// Writer is the one connection that writes an index. Its statements are
// prepared once and kept. Everything happens in a transaction that is begun by
// the first statement and committed in batches.
type Writer struct {
	db       *sql.DB
	Conn     *sql.Conn           // of db, which has no other
	raw      *sqlite3.SQLiteConn // the same one, below database/sql
	onCommit func()
	Batch    int64 // batchRows, but for tests

	// beforeCommit runs at the end of every transaction, and may still write
	// in it.
	beforeCommit func() error

	prepared   map[string]*Statement
	Active     bool  // a transaction is open
	Changed    int64 // rows changed in it
	Statements int64 // executed so far, for tests of what an unchanged directory costs
}

// OpenWriter opens an existing database for writing. WAL lets dumps read
// beside the writer; synchronous=NORMAL makes every commit survive the end of
// the process, while a power cut may take the latest ones back, in order.
func OpenWriter(ctx context.Context, path string, beforeCommit func() error, onCommit func()) (*Writer, error) {
	db, err := sql.Open("sqlite3", Location(path, "mode=rw&_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=2000&_cache_size=-32768"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Writer{db: db, Conn: conn, beforeCommit: beforeCommit, onCommit: onCommit, Batch: batchRows, prepared: map[string]*Statement{}}
	if s.onCommit == nil {
		s.onCommit = func() {}
	}
	// Kept beyond Raw's call: the connection is held, and used by one
	// goroutine at a time.
	err = conn.Raw(func(c any) error { s.raw = c.(*sqlite3.SQLiteConn); return nil })
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// Pages of a growing index are written again and again: a log of 32 MiB
	// instead of 4 brings most of them into the database once.
	//
	// The schema's own SQL is not trusted more than need be, and a page that
	// a broken disk garbled is an error and not a crash.
	if _, err := conn.ExecContext(ctx, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 8192"); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close drops an open transaction.
func (s *Writer) Close() error {
	var errs []error
	if s.Active {
		errs = append(errs, s.Abort())
	}
	for _, p := range s.prepared {
		errs = append(errs, p.Close())
	}
	s.prepared = nil
	return errors.Join(append(errs, s.Conn.Close(), s.db.Close())...)
}

// Statement returns query as a prepared statement. Queries are constants, so
// there are a few dozen of them.
func (s *Writer) statement(query string) (*Statement, error) {
	if p := s.prepared[query]; p != nil {
		return p, nil
	}
	if s.prepared == nil {
		return nil, ErrClosed
	}
	p, err := Prepare(s.raw, query)
	if err != nil {
		return nil, err
	}
	s.prepared[query] = p
	return p, nil
}

// use begins a transaction if none is open and returns the statement.
func (s *Writer) use(query string) (*Statement, error) {
	if !s.Active {
		begin, err := s.statement("BEGIN IMMEDIATE")
		if err != nil {
			return nil, err
		}
		if _, _, err := begin.Exec(); err != nil {
			return nil, err
		}
		s.Active, s.Changed = true, 0
	}
	s.Statements++
	return s.statement(query)
}

// Exec runs a statement that changes rows and returns the last inserted row's
// id and the number of changed rows.
func (s *Writer) Exec(query string, args ...any) (id, changed int64, err error) {
	p, err := s.use(query)
	if err != nil {
		return 0, 0, err
	}
	id, changed, err = p.Exec(args...)
	s.Changed += changed
	return id, changed, err
}

// Row runs a query that has at most one row; found is false if it has none.
func (s *Writer) Row(query string, args []any, dest ...any) (found bool, err error) {
	p, err := s.use(query)
	if err != nil {
		return false, err
	}
	err = p.Each(func(row []driver.Value) error {
		found = true
		return scanRow(row, dest)
	}, args...)
	return found && err == nil, err
}

// Each runs a query of many rows and calls f for each of them with a scan
// function that is valid during the call. It stops when ctx ends.
func (s *Writer) Each(ctx context.Context, query string, args []any, f func(scan func(...any) error) error) error {
	p, err := s.use(query)
	if err != nil {
		return err
	}
	return p.EachScan(ctx, args, f)
}

// Commit ends the transaction. If that fails it stays open.
func (s *Writer) Commit() error {
	if !s.Active {
		return nil
	}
	commit, err := s.statement("COMMIT")
	if err != nil {
		return err
	}
	if err := s.beforeCommit(); err != nil {
		return err
	}
	watched := s.Changed > 0
	if watched {
		s.onCommit()
	}
	if _, _, err := commit.Exec(); err != nil {
		return err
	}
	s.Active, s.Changed = false, 0
	if watched {
		s.onCommit()
	}
	return nil
}

// Abort undoes the transaction.
func (s *Writer) Abort() error {
	if !s.Active {
		return nil
	}
	s.Active, s.Changed = false, 0
	_, err := s.Conn.ExecContext(context.Background(), "ROLLBACK")
	return err
}

// Durably runs f in a transaction of its own that, once committed, survives a
// power cut, together with everything committed before.
func (s *Writer) Durably(f func() error) error {
	return s.synced("FULL", f)
}

// Whole runs f in a transaction of its own: all of it happens, or nothing.
func (s *Writer) Whole(f func() error) error {
	return s.synced("NORMAL", f)
}

func (s *Writer) synced(level string, f func() error) error {
	if err := s.Commit(); err != nil {
		return err
	}
	// The level can only be changed between transactions.
	if level != "NORMAL" {
		if _, err := s.Conn.ExecContext(context.Background(), "PRAGMA synchronous = "+level); err != nil {
			return err
		}
		defer s.Conn.ExecContext(context.Background(), "PRAGMA synchronous = NORMAL") //nolint:errcheck // staying at FULL is only slower
	}
	err := f()
	if err == nil {
		err = s.Commit()
	}
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	return nil
}
