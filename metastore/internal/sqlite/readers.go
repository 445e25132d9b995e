package sqlite

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sync/errgroup"
)

// Reader reads one state of a database, whatever is written meanwhile.
type Reader struct {
	conn *sqlite3.SQLiteConn
}

// OpenReader opens a reader of what was committed last. Nobody may write
// meanwhile.
func OpenReader(path string) (*Reader, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(Location(path, "mode=ro&_mutex=no&_busy_timeout=2000&_cache_size=-4096"))
	if err != nil {
		return nil, err
	}
	s := &Reader{c.(*sqlite3.SQLiteConn)}
	// The state is fixed by the first read.
	if _, err := s.conn.Exec("BEGIN; SELECT count(*) FROM sqlite_schema", nil); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the transaction as well.
func (s *Reader) Close() error { return s.conn.Close() }

// Prepare prepares a query of the state.
func (s *Reader) Prepare(query string) (*Statement, error) { return Prepare(s.conn, query) }

// Each calls f for every row of a query with a scan function that is valid
// during the call. It stops when ctx ends.
func (s *Reader) Each(ctx context.Context, query string, args []any, f func(scan func(...any) error) error) error {
	p, err := s.Prepare(query)
	if err != nil {
		return err
	}
	return errors.Join(p.EachScan(ctx, args, f), p.Close())
}

// Readers read the same state side by side: the tables of a large index are
// gone through as fast as there are cores.
type Readers []*Reader

// maxReaders bounds how many there are: each has a cache of 4 MiB.
const maxReaders = 4

// OpenReaders opens readers of what was committed last. Nobody may write
// meanwhile.
func OpenReaders(path string) (Readers, error) {
	var all Readers
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		s, err := OpenReader(path)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, s)
	}
	return all, nil
}

// Close closes all of them.
func (rs Readers) Close() error {
	var errs []error
	for _, s := range rs {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Keys is a range of a table's keys: those behind After, up to UpTo.
type Keys struct{ After, UpTo int64 }

// RangeKeys is how many keys a range has.
const RangeKeys = 8192

// Sweep calls f for ranges that together are the keys from 1 to last, from a
// goroutine for each reader; n is the reader's number.
func (rs Readers) Sweep(ctx context.Context, last int64, f func(ctx context.Context, n int, s *Reader, k Keys) error) error {
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for n, s := range rs {
		g.Go(func() error {
			for {
				upTo := taken.Add(RangeKeys)
				if upTo-RangeKeys >= last {
					return nil
				}
				if err := f(ctx, n, s, Keys{upTo - RangeKeys, min(upTo, last)}); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
