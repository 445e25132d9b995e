// Package build makes views of dumps. It parses a dump's text, checks every row
// by itself and against the others, walks the tree, and leaves a view behind, or
// nothing:
//
//	load    parts of text → rows, each checked by itself
//	apply   rows into tables, differences applied
//	relate  rows that refer to others
//	walk    the tree, depth first, into pages of directory entries
//
// It promises that what it made is the dump that was signed for, and a sound
// tree. Who signed, and with what, is not its business.
package build

import (
	"context"
	"database/sql/driver"
	_ "embed" // stage.sql
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

//go:embed stage.sql
var stageSchema string

// Part is one part of a dump, decrypted and decompressed.
type Part struct {
	// Kind and N, from 1, are the place in the dump that the part must have.
	// With N 0 its own header says: the parts must follow one another anyway.
	Kind dump.PartKind
	N    int
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Expected is what a dump must turn out to be: what the manifest signed.
type Expected struct {
	ID, Writer, Set string
	Seq             int64
	Totals          metastore.Totals
}

// View loads the parts of a dump, a full one or a full one and one
// differential, and makes a view of it at path: all of it, or nothing. An
// older file at path is replaced. The file is readable by its owner only, and
// is written beside path under a name that begins with path's and ".tmp-".
//
// A dump that is not exactly what Expected says, or that describes no sound
// tree (a name with a slash, a piece of a file missing, a blob that is too
// short, …) is dump.ErrBad. The dump's text is never executed. Memory does not
// depend on the dump's size.
func View(ctx context.Context, path string, parts []Part, want Expected) error {
	path, err := filepath.Abs(path)
	if err == nil {
		err = buildView(ctx, path, parts, want)
	}
	if err != nil {
		return fmt.Errorf("build view %q: %w", path, err)
	}
	return nil
}

func buildView(ctx context.Context, path string, parts []Part, want Expected) (err error) {
	temp, err := tempFile(path)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	b, err := newBuilder(ctx, temp, path)
	if err != nil {
		return err
	}
	err = b.build(ctx, parts, want)
	if err = errors.Join(err, b.conn.Close()); err != nil {
		return err
	}
	// Without this a power cut could leave a file of the right name and size
	// with pages missing.
	if err := syncFile(temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// tempFile makes an empty file beside path.
func tempFile(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// builder is a view in the making. It uses SQLite's driver without
// database/sql, whose share of inserting a row is as much as SQLite's.
type builder struct {
	ctx  context.Context
	conn *sqlite.Conn
	rows [dump.TableCount]int64

	snapshots, volumes, xattrs, blobs                  plainTable
	paths, files                                       stagedRows
	pathIDs, fileIDs, contents, pieces, chunks, places *packer
	sizes                                              *packer    // of contents with pieces
	size                                               layout.Row // of the content at hand

	dropFile   *sqlite.Statement
	removePath *sqlite.Statement // prepared when the first one goes

	walk walker
}

func newBuilder(ctx context.Context, temp, path string) (*builder, error) {
	stage, err := tempFile(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(stage) // SQLite keeps it open
	// A journal in memory: it stays empty, since every page is new, and unlike
	// no journal it is allowed where SQLite was built to be defensive.
	c, err := (&sqlite3.SQLiteDriver{}).Open(sqlite.Location(temp, "mode=rw&_journal_mode=MEMORY&_synchronous=OFF&_locking_mode=EXCLUSIVE&_cache_size=-8192"))
	if err != nil {
		return nil, err
	}
	b := &builder{ctx: ctx, conn: &sqlite.Conn{SQLiteConn: c.(*sqlite3.SQLiteConn)}}
	if err := b.prepare(stage); err != nil {
		return nil, errors.Join(err, b.conn.Close())
	}
	return b, nil
}

func (b *builder) prepare(stage string) error {
	snapshots, _, _ := strings.Cut(dump.Schema(), "\n")
	for _, q := range []struct {
		text string
		args []driver.Value
	}{
		{"PRAGMA page_size = 8192; PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0", nil},
		{"ATTACH ? AS stage", []driver.Value{sqlite.Location(stage, "mode=rw")}},
		{"PRAGMA stage.journal_mode = MEMORY; PRAGMA stage.synchronous = OFF; PRAGMA stage.cache_size = -65536", nil},
		{"BEGIN;" + layout.Schema + snapshots + stageSchema, nil},
	} {
		if _, err := b.conn.Exec(q.text, q.args); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		to      *plainTable
		table   string
		columns int
		key     string
	}{
		{&b.snapshots, "main.snapshots", 22, dump.TableSnapshots.Key()},
		{&b.volumes, "main.volumes", 4, dump.TableVolumes.Key()},
		{&b.xattrs, "main.xattrs", 3, dump.TableXattrs.Key()},
		{&b.blobs, "main.blobs", 8, dump.TableBlobs.Key()},
	} {
		var err error
		if *t.to, err = newPlainTable(b.conn, t.table, t.columns, t.key); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		to          *stagedRows
		what, table string
		columns     int
	}{{&b.paths, "paths with id", "stage.paths", 3}, {&b.files, "files with path", "stage.files", 4}} {
		var err error
		if *t.to, err = newStagedRows(b.conn, t.what, t.table, t.columns); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		to **packer
		layout.Packing
	}{
		{&b.pathIDs, pathIDs}, {&b.fileIDs, fileIDs}, {&b.contents, contents},
		{&b.pieces, layout.Pieces}, {&b.chunks, layout.Chunks}, {&b.places, layout.Places},
		{&b.sizes, sizes},
	} {
		var err error
		if *t.to, err = newPacker(b.conn, t.Packing); err != nil {
			return err
		}
	}
	var err error
	if b.dropFile, err = b.conn.Prepare("DELETE FROM stage.files WHERE path = ?"); err != nil {
		return err
	}
	return b.walk.prepare(b)
}

func (b *builder) build(ctx context.Context, parts []Part, want Expected) error {
	if len(parts) == 0 {
		return dump.Errorf("it has no parts")
	}
	if err := b.load(ctx, parts); err != nil {
		return err
	}
	if err := b.settle(); err != nil {
		return err
	}
	if err := b.checkSnapshot(want); err != nil {
		return err
	}
	totals := metastore.Totals{
		Files: b.rows[dump.TableFiles], Volumes: b.rows[dump.TableVolumes], Paths: b.rows[dump.TablePaths], Xattrs: b.rows[dump.TableXattrs],
		Contents: b.rows[dump.TableContents], FileChunks: b.rows[dump.TableFileChunks], Chunks: b.rows[dump.TableChunks],
		Blobs: b.rows[dump.TableBlobs], BlobChunks: b.rows[dump.TableBlobChunks],
		Bytes: want.Totals.Bytes, // known after the walk
	}
	if err := compare(totals, want.Totals); err != nil {
		return err
	}
	// Both at once: SQLite lets one of them in at a time, but most of their
	// work is outside.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.relate(ctx) })
	g.Go(func() error { return b.walk.all(ctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	totals.Bytes = b.walk.bytes
	if err := compare(totals, want.Totals); err != nil {
		return err
	}
	return b.finish(totals)
}

// checkSnapshot makes sure that the dump is the one that is meant.
func (b *builder) checkSnapshot(want Expected) error {
	if n := b.rows[dump.TableSnapshots]; n != 1 {
		return dump.Errorf("%d rows of snapshots instead of one", n)
	}
	s, err := b.conn.Prepare("SELECT seq, id, writer, set_name FROM snapshots")
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Each(func(row []driver.Value) error {
		for i, w := range []driver.Value{want.Seq, want.ID, want.Writer, want.Set} {
			if row[i] != w {
				return dump.Errorf("column %s of snapshots is %v, signed was %v", dump.TableSnapshots.Columns()[i].Name, row[i], w)
			}
		}
		return nil
	})
}

// finish writes down that everything is there, which is what makes it a view.
func (b *builder) finish(t metastore.Totals) error {
	s, err := b.conn.Prepare("INSERT INTO about VALUES (?, ?)")
	if err != nil {
		return err
	}
	defer s.Close()
	named := layout.Numbers(&t)
	for _, key := range slices.Sorted(maps.Keys(named)) { // so that a dump makes the same file every time
		if _, _, err := s.Exec(key, *named[key]); err != nil {
			return err
		}
	}
	if _, _, err := s.Exec(layout.CompleteMark, int64(1)); err != nil {
		return err
	}
	if _, err := b.conn.Exec("COMMIT", nil); err != nil {
		return err
	}
	_, err = b.conn.Exec("DETACH stage", nil)
	return err
}
