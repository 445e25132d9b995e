// Package sqlite is how metastore uses SQLite: the one connection that writes an
// index and keeps its statements ([Writer]), several that read one committed
// state side by side ([Readers]), and prepared statements below database/sql
// ([Statement]), whose share of a small statement is as much as SQLite's.
//
// It knows none of the tables.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
)

// Location is a URI for SQLite's open: no byte of path has a meaning in it.
func Location(path string, parameters string) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: parameters}).String()
}

// EachRow calls f for every row with a scan function that is valid during the
// call, and closes rows. It stops when ctx ends.
func EachRow(ctx context.Context, rows *sql.Rows, f func(scan func(...any) error) error) error {
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
