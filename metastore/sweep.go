package metastore

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sync/errgroup"
)

// snapshotReader reads one state of a database, whatever is written meanwhile.
type snapshotReader struct {
	conn *sqlite3.SQLiteConn
}

func openReader(path string) (*snapshotReader, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(location(path, "mode=ro&_mutex=no&_busy_timeout=2000&_cache_size=-4096"))
	if err != nil {
		return nil, err
	}
	s := &snapshotReader{c.(*sqlite3.SQLiteConn)}
	// The state is fixed by the first read.
	if _, err := s.conn.Exec("BEGIN; SELECT count(*) FROM sets", nil); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the transaction as well.
func (s *snapshotReader) close() error { return s.conn.Close() }

func (s *snapshotReader) each(ctx context.Context, query string, args []any, f func(scan func(...any) error) error) error {
	p, err := prepare(s.conn, query)
	if err != nil {
		return err
	}
	return errors.Join(p.eachScan(ctx, args, f), p.stmt.Close())
}

// readers read the same state side by side: the tables of a large index are
// gone through as fast as there are cores.
type readers []*snapshotReader

// maxReaders bounds how many there are: each has a cache of 4 MiB.
const maxReaders = 4

// openReaders opens readers of what was committed last. Nobody may write
// meanwhile.
func openReaders(path string) (readers, error) {
	var all readers
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		s, err := openReader(path)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, s)
	}
	return all, nil
}

func (rs readers) close() error {
	var errs []error
	for _, s := range rs {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// keys is a range of a table's keys: those behind after, up to upTo.
type keys struct{ after, upTo int64 }

// rangeKeys is how many keys a range has.
const rangeKeys = 8192

// sweep calls f for ranges that together are the keys from 1 to last, from a
// goroutine for each reader; n is the reader's number.
func (rs readers) sweep(ctx context.Context, last int64, f func(ctx context.Context, n int, s *snapshotReader, k keys) error) error {
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for n, s := range rs {
		g.Go(func() error {
			for {
				upTo := taken.Add(rangeKeys)
				if upTo-rangeKeys >= last {
					return nil
				}
				if err := f(ctx, n, s, keys{upTo - rangeKeys, min(upTo, last)}); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
