package index

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// What schema.sql writes into the file's header.
const (
	applicationID = 0x766b6978 // "vkix"
	formatVersion = 3
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotIndex: the file is something else than an index.
	ErrNotIndex = errors.New("not a vaultik index")
	// ErrVersion: the index has a format that this program does not know.
	ErrVersion = errors.New("the index has another format")
	// ErrDamaged: SQLite finds the index's file inconsistent.
	ErrDamaged = errors.New("the index is damaged")
	// ErrPending: an earlier run is neither confirmed nor rolled back.
	ErrPending = errors.New("an earlier run is not finished")
	// ErrRunOver: the run was committed or rolled back before.
	ErrRunOver = errors.New("the run is over")
)

// Index is one writer's record of its backups. Its methods may be called from
// several goroutines.
type Index struct {
	path   string
	writer string

	mu    sync.Mutex // held by whoever uses what follows
	db    *sqlite.Writer
	run   *Run // in progress in this process
	last  ids  // given out, and written when the transaction is committed
	saved ids  // as in the database
}

// Options of an index; the zero value will do.
type Options struct {
	// OnCommit is called right before and right after every transaction's
	// commit, by the goroutine that commits. Tests of crashes stop there. It
	// must not call the index.
	OnCommit func()
}

// Create makes an empty index for a writer: all of it, or nothing. The
// file is readable by its owner only. It fails with fs.ErrExist if path is
// taken.
func Create(ctx context.Context, path, writer string, o Options) (*Index, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("create index %q: %w", path, err)
	}
	if err := create(ctx, path, writer); err != nil {
		return nil, fmt.Errorf("create index %q: %w", path, err)
	}
	return Open(ctx, path, o)
}

func create(ctx context.Context, path, writer string) (err error) {
	for _, p := range []string{path, path + "-wal", path + "-journal"} {
		// SQLite would take another database's log for this one's.
		if _, err := os.Lstat(p); err == nil {
			return fmt.Errorf("%q: %w; move it away if it is not wanted any more", p, fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	temp := file.Name()
	defer os.Remove(temp)
	if err := file.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", sqlite.Location(temp, "mode=rw&_synchronous=FULL"))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "BEGIN;\n"+metastore.Schema()+"COMMIT;")
	if err == nil {
		_, err = db.ExecContext(ctx, "INSERT INTO settings VALUES ('writer', ?)", writer)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link never replaces what came to be there meanwhile.
	if err := os.Link(temp, path); err != nil {
		return err
	}
	return syncFolder(folder)
}

// syncFolder makes a new name in a folder survive a power cut.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens an index. It fails with fs.ErrNotExist if there is none,
// with ErrNotIndex, ErrVersion or ErrDamaged if the file is of no
// use, and with the file system's error if it cannot be read.
func Open(ctx context.Context, path string, o Options) (*Index, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open index %q: %w", path, err)
	}
	unclean, err := checkHeader(path)
	if err != nil {
		return nil, openError(path, err)
	}
	x := &Index{path: path}
	if x.db, err = sqlite.OpenWriter(ctx, path, x.saveIDs, o.OnCommit); err != nil {
		return nil, openError(path, damage(err))
	}
	if err := x.check(ctx, unclean); err != nil {
		return nil, openError(path, errors.Join(damage(err), x.db.Close()))
	}
	return x, nil
}

// makeAnew is what to do without an index.
const makeAnew = `make it anew from the store: "vaultik index rebuild --identity KIT"; ` +
	`without the recovery kit, move the config away and start a new writer: ` +
	`"vaultik init --store URL --root KEY --recipient KEY PATH…", all as that config has them`

func openError(path string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, ErrVersion):
		advice = `; use the version of vaultik that wrote it, or ` + makeAnew
	case errors.Is(err, ErrNotIndex), errors.Is(err, ErrDamaged):
		advice = "; " + makeAnew
	}
	return fmt.Errorf("open index %q: %w%s", path, err, advice)
}

// checkHeader looks at a database's first bytes before SQLite does, which
// would leave a log beside a file that is none of ours. unclean reports that
// the last writer did not close it.
func checkHeader(path string) (unclean bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%w: it is not a regular file", ErrNotIndex)
	}
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	// https://www.sqlite.org/fileformat.html, "The Database Header"
	var header [100]byte
	if _, err := io.ReadFull(file, header[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, fmt.Errorf("%w: it has only %d bytes", ErrNotIndex, info.Size())
		}
		return false, err
	}
	if string(header[:16]) != "SQLite format 3\x00" || binary.BigEndian.Uint32(header[68:]) != applicationID {
		return false, ErrNotIndex
	}
	if version := binary.BigEndian.Uint32(header[60:]); version != formatVersion {
		return false, fmt.Errorf("%w: it is %d, this program knows %d", ErrVersion, version, formatVersion)
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return true, nil // the file is complete only together with the log
	}
	pageSize, pages := int64(binary.BigEndian.Uint16(header[16:])), int64(binary.BigEndian.Uint32(header[28:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	if info.Size() < pages*pageSize {
		return false, fmt.Errorf("%w: it has %d bytes instead of %d", ErrDamaged, info.Size(), pages*pageSize)
	}
	return false, nil
}

// check reads what every use of the index needs. After an unclean end, when a
// disk is most likely to have lost something, it looks at every page.
func (x *Index) check(ctx context.Context, unclean bool) error {
	if unclean {
		if err := x.quickCheck(ctx); err != nil {
			return err
		}
	}
	if err := x.loadIDs(ctx); err != nil {
		return err
	}
	err := x.db.Conn.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = 'writer'").Scan(&x.writer)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: it does not say whose it is", ErrDamaged)
	}
	return err
}

func (x *Index) quickCheck(ctx context.Context) error {
	var result string
	if err := x.db.Conn.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, result)
	}
	return nil
}

// Close closes the index. What a run in progress has not committed is lost, as
// in a crash.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.db.Close(); err != nil {
		return fmt.Errorf("close index %q: %w", x.path, err)
	}
	return nil
}
