package metastore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"
	"sync"

	"github.com/mattn/go-sqlite3" // and the driver "sqlite3"
)

// batchRows is how many changed rows make a transaction be committed. What it
// bounds is the log's size and nothing else: rows of an interrupted run are
// undone anyway, and blobs are committed one by one. Hashes of chunks are
// spread over the whole of their index, so that few big commits write far
// fewer pages than many small ones.
const batchRows = 50_000

// session is the one connection that writes an index. Its statements are
// prepared once and kept. Everything happens in a transaction that is begun by
// the first statement and committed in batches.
type session struct {
	db       *sql.DB
	conn     *sql.Conn           // of db, which has no other
	raw      *sqlite3.SQLiteConn // the same one, below database/sql
	onCommit func()
	batch    int64 // batchRows, but for tests

	mu         sync.Mutex // held by whoever uses what follows
	prepared   map[string]*statement
	last       ids   // given out, and written when the transaction is committed
	saved      ids   // as in the database
	active     bool  // a transaction is open
	changed    int64 // rows changed in it
	statements int64 // executed so far, for tests of what an unchanged directory costs
}

// location is a URI for SQLite's open: no byte of path has a meaning in it.
func location(path string, parameters string) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: parameters}).String()
}

// openSession opens an existing database for writing. WAL lets dumps read
// beside the writer; synchronous=NORMAL makes every commit survive the end of
// the process, while a power cut may take the latest ones back, in order.
func openSession(ctx context.Context, path string, onCommit func()) (*session, error) {
	db, err := sql.Open("sqlite3", location(path, "mode=rw&_journal_mode=WAL&_synchronous=NORMAL&_busy_timeout=2000&_cache_size=-32768"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &session{db: db, conn: conn, onCommit: onCommit, batch: batchRows, prepared: map[string]*statement{}}
	if s.onCommit == nil {
		s.onCommit = func() {}
	}
	// Kept beyond Raw's call: the connection is held, and used by one
	// goroutine at a time.
	err = conn.Raw(func(c any) error { s.raw = c.(*sqlite3.SQLiteConn); return nil })
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	// Pages of a growing index are written again and again: a log of 32 MiB
	// instead of 4 brings most of them into the database once.
	//
	// The schema's own SQL is not trusted more than need be, and a page that
	// a broken disk garbled is an error and not a crash.
	if _, err := conn.ExecContext(ctx, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 8192"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close drops an open transaction.
func (s *session) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.active {
		errs = append(errs, s.abort())
	}
	for _, p := range s.prepared {
		errs = append(errs, p.stmt.Close())
	}
	s.prepared = nil
	return errors.Join(append(errs, s.conn.Close(), s.db.Close())...)
}

// statement returns query as a prepared statement. Queries are constants, so
// there are a few dozen of them.
func (s *session) statement(query string) (*statement, error) {
	if p := s.prepared[query]; p != nil {
		return p, nil
	}
	if s.prepared == nil {
		return nil, errClosed
	}
	p, err := prepare(s.raw, query)
	if err != nil {
		return nil, err
	}
	s.prepared[query] = p
	return p, nil
}

// use begins a transaction if none is open and returns the statement.
func (s *session) use(query string) (*statement, error) {
	if !s.active {
		begin, err := s.statement("BEGIN IMMEDIATE")
		if err != nil {
			return nil, err
		}
		if _, _, err := begin.exec(); err != nil {
			return nil, err
		}
		s.active, s.changed = true, 0
	}
	s.statements++
	return s.statement(query)
}

// exec runs a statement that changes rows and returns the last inserted row's
// id and the number of changed rows.
func (s *session) exec(query string, args ...any) (id, changed int64, err error) {
	p, err := s.use(query)
	if err != nil {
		return 0, 0, err
	}
	id, changed, err = p.exec(args...)
	s.changed += changed
	return id, changed, err
}

// row runs a query that has at most one row; found is false if it has none.
func (s *session) row(query string, args []any, dest ...any) (found bool, err error) {
	p, err := s.use(query)
	if err != nil {
		return false, err
	}
	err = p.each(func(row []driver.Value) error {
		found = true
		return scanRow(row, dest)
	}, args...)
	return found && err == nil, err
}

// each runs a query of many rows and calls f for each of them with a scan
// function that is valid during the call. It stops when ctx ends.
func (s *session) each(ctx context.Context, query string, args []any, f func(scan func(...any) error) error) error {
	p, err := s.use(query)
	if err != nil {
		return err
	}
	return p.eachScan(ctx, args, f)
}

func eachRow(ctx context.Context, rows *sql.Rows, f func(scan func(...any) error) error) error {
	for n := 0; rows.Next(); n++ {
		err := f(rows.Scan)
		if err == nil && n%1024 == 0 {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// commit ends the transaction. If that fails it stays open.
func (s *session) commit() error {
	if !s.active {
		return nil
	}
	commit, err := s.statement("COMMIT")
	if err != nil {
		return err
	}
	if err := s.saveIDs(); err != nil {
		return err
	}
	watched := s.changed > 0
	if watched {
		s.onCommit()
	}
	if _, _, err := commit.exec(); err != nil {
		return err
	}
	s.active, s.changed = false, 0
	if watched {
		s.onCommit()
	}
	return nil
}

// abort undoes the transaction.
func (s *session) abort() error {
	if !s.active {
		return nil
	}
	s.active, s.changed = false, 0
	_, err := s.conn.ExecContext(context.Background(), "ROLLBACK")
	return err
}

// durably runs f in a transaction of its own that, once committed, survives a
// power cut, together with everything committed before.
func (s *session) durably(f func() error) error {
	return s.synced("FULL", f)
}

// whole runs f in a transaction of its own: all of it happens, or nothing.
func (s *session) whole(f func() error) error {
	return s.synced("NORMAL", f)
}

func (s *session) synced(level string, f func() error) error {
	if err := s.commit(); err != nil {
		return err
	}
	// The level can only be changed between transactions.
	if level != "NORMAL" {
		if _, err := s.conn.ExecContext(context.Background(), "PRAGMA synchronous = "+level); err != nil {
			return err
		}
		defer s.conn.ExecContext(context.Background(), "PRAGMA synchronous = NORMAL") //nolint:errcheck // staying at FULL is only slower
	}
	err := f()
	if err == nil {
		err = s.commit()
	}
	if err != nil {
		return errors.Join(err, s.abort())
	}
	return nil
}
