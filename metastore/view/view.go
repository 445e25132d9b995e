// Package view is the reader's side of metastore: a private database that shows
// one snapshot, built by package build and laid out for looking up and listing
// directories fast.
//
// A view never changes once it is there, and nothing in it is trusted: damage is
// [ErrBad], and then the view has to be built again.
package view

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/mattn/go-sqlite3"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

var (
	// ErrBad: the file is not a view that this program can use. It has to
	// be built again.
	ErrBad = errors.New("not a usable view")
	// ErrNotDirectory: something else than a directory was asked for entries.
	ErrNotDirectory = errors.New("not a directory")
)

// View shows one snapshot: a tree of numbered entries. Everything it tells
// comes from a local file. Its methods may be called from several goroutines
// and take a few microseconds; a context that has ended keeps them from
// starting.
type View struct {
	path     string
	db       *sql.DB
	snapshot metastore.Snapshot
	totals   metastore.Totals
	xattrs   bool

	// One page by slot, a directory's first page, the page for a name in it.
	node, list, find *sql.Stmt
	attributes, blob *sql.Stmt

	pieces, chunks, places layout.Reader

	recent recentPages
	blobs  knownBlobs
	hashes knownHashes
}

// Open opens a view. A file that its builder did not complete, of another
// version or damaged is ErrBad, a missing one fs.ErrNotExist. The file may
// be removed while the view is open; it must not be changed.
func Open(ctx context.Context, path string) (*View, error) {
	v, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open view %q: %w", path, err)
	}
	return v, nil
}

func open(ctx context.Context, path string) (_ *View, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	// A complete view never changes, so SQLite need neither lock it nor look
	// for a journal.
	v := &View{path: path, db: sql.OpenDB(connector(sqlite.Location(path, "mode=ro&immutable=1&_query_only=1&_cache_size=-8192")))}
	defer func() {
		if err != nil {
			err = errors.Join(asBad(err), v.db.Close())
		}
	}()
	if err := v.connect(ctx); err != nil {
		return nil, err
	}
	if err := v.load(ctx); err != nil {
		return nil, err
	}
	return v, nil
}

// connect makes all connections there will be: the path may lead elsewhere
// later.
func (v *View) connect(ctx context.Context) (err error) {
	n := min(8, max(2, runtime.GOMAXPROCS(0)))
	v.db.SetMaxOpenConns(n)
	v.db.SetMaxIdleConns(n)
	for range n {
		conn, failed := v.db.Conn(ctx)
		if failed != nil {
			return errors.Join(err, failed)
		}
		defer func() { err = errors.Join(err, conn.Close()) }() // gives it back
	}
	return nil
}

// asBad makes errors of SQLite about the file's content ErrBad.
func asBad(err error) error {
	if failed := (sqlite3.Error{}); errors.As(err, &failed) {
		switch failed.Code {
		case sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrFormat, sqlite3.ErrError, sqlite3.ErrIoErr:
			return fmt.Errorf("%w: %w", ErrBad, err)
		}
	}
	if errors.Is(err, layout.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	return err
}

// connector opens read-only connections with the settings that SQLite keeps
// per connection.
type connector string

func (c connector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(string(c))
}

func (c connector) Driver() driver.Driver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0", nil)
		return err
	}}
}

// load checks the file and reads what is kept in memory.
func (v *View) load(ctx context.Context) error {
	for _, n := range []struct {
		pragma string
		want   int64
	}{{"application_id", layout.Application}, {"user_version", layout.Version}} {
		var got int64
		if err := v.db.QueryRowContext(ctx, "PRAGMA "+n.pragma).Scan(&got); err != nil {
			return err
		}
		if got != n.want {
			return fmt.Errorf("%w: its %s is %#x, not %#x", ErrBad, n.pragma, got, n.want)
		}
	}
	var pages, pageSize int64
	if err := errors.Join(
		v.db.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages),
		v.db.QueryRowContext(ctx, "PRAGMA page_size").Scan(&pageSize),
	); err != nil {
		return err
	}
	info, err := os.Stat(v.path)
	if err != nil {
		return err
	}
	if info.Size() != pages*pageSize {
		return fmt.Errorf("%w: it has %d bytes instead of %d", ErrBad, info.Size(), pages*pageSize)
	}
	if err := v.loadAbout(ctx); err != nil {
		return err
	}
	if err := v.loadSnapshot(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&v.node, "SELECT first, dir, data FROM pages WHERE first <= ? ORDER BY first DESC LIMIT 1"},
		{&v.list, "SELECT first, dir, data FROM pages WHERE dir = ? ORDER BY low LIMIT 1"},
		{&v.find, "SELECT first, dir, data FROM pages WHERE dir = ? AND low <= ? ORDER BY low DESC LIMIT 1"},
		{&v.attributes, "SELECT name, value FROM xattrs WHERE file = ? ORDER BY name"},
		{&v.blob, "SELECT hash, seq, size, header FROM blobs WHERE id = ?"},
	} {
		var err error
		if *s.to, err = v.db.PrepareContext(ctx, s.query); err != nil {
			return err
		}
	}
	if err := v.packed(ctx); err != nil {
		return err
	}
	root, err := v.Node(ctx, v.Root())
	if err == nil && (root.Type != metastore.Directory || root.Name != "") {
		err = fmt.Errorf("%w: it has no root", ErrBad)
	}
	return err
}

func (v *View) loadAbout(ctx context.Context) error {
	wanted, complete := layout.Numbers(&v.totals), int64(0)
	wanted[layout.CompleteMark] = &complete
	rows, err := v.db.QueryContext(ctx, "SELECT key, value FROM about")
	if err != nil {
		return err
	}
	err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
		var key string
		var n int64
		if err := scan(&key, &n); err != nil {
			return err
		}
		to := wanted[key]
		if to == nil {
			return fmt.Errorf("%w: it counts %q twice or for no reason", ErrBad, key)
		}
		*to = n
		delete(wanted, key)
		return nil
	})
	if err == nil && (len(wanted) != 0 || complete != 1) {
		err = fmt.Errorf("%w: it is not complete", ErrBad)
	}
	v.xattrs = v.totals.Xattrs > 0
	return err
}

func (v *View) loadSnapshot(ctx context.Context) error {
	rows, err := v.db.QueryContext(ctx, "SELECT * FROM snapshots")
	if err != nil {
		return err
	}
	found := 0
	err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
		found++
		columns := dump.TableSnapshots.Columns()
		row, dest := make([]dump.Value, len(columns)), make([]any, len(columns))
		for i, c := range columns {
			row[i].Kind, dest[i] = c.Kind, &row[i].Bytes
			if c.Kind == dump.Integer {
				dest[i] = &row[i].Int
			}
		}
		if err := scan(dest...); err != nil {
			return err
		}
		v.snapshot, err = dump.SnapshotOf(row)
		return err
	})
	if err == nil && found != 1 {
		err = fmt.Errorf("%w: it describes %d snapshots", ErrBad, found)
	}
	return err
}

// Close closes the view. It must not be used afterwards.
func (v *View) Close() error { return v.db.Close() }

// Snapshot describes the snapshot.
func (v *View) Snapshot() metastore.Snapshot { return v.snapshot }

// Totals are the signed counts, which what was loaded agreed with.
func (v *View) Totals() metastore.Totals { return v.totals }

// HasXattrs reports whether any entry has an extended attribute.
func (v *View) HasXattrs() bool { return v.xattrs }

// Root is the inode number of "/".
func (v *View) Root() uint64 { return 1 }

// fail says which view failed and that it should be built again.
func (v *View) fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s in view %q: %w", doing, v.path, asBad(err))
}
