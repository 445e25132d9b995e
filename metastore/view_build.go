package metastore

import (
	"bufio"
	"context"
	"database/sql/driver"
	_ "embed" // view.sql
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/mattn/go-sqlite3"
)

//go:embed view.sql
var viewSchema string

//go:embed view_stage.sql
var stageSchema string

// Part is one part of a dump, decrypted and decompressed.
type Part struct {
	// Kind and N, from 1, are the place in the dump that the part must have.
	// With N 0 its own header says: the parts must follow one another anyway.
	Kind PartKind
	N    int
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Expected is what a dump must turn out to be: what the manifest signed.
type Expected struct {
	ID, Writer, Set string
	Seq             int64
	Totals          Totals
}

// BuildView loads the parts of a dump, a full one or a full one and one
// differential, and makes a view of it at path: all of it, or nothing. An
// older file at path is replaced. The file is readable by its owner only, and
// is written beside path under a name that begins with path's and ".tmp-".
//
// A dump that is not exactly what Expected says, or that describes no sound
// tree (a name with a slash, a piece of a file missing, a blob that is too
// short, …) is ErrBadDump. The dump's text is never executed. Memory does not
// depend on the dump's size.
func BuildView(ctx context.Context, path string, parts []Part, want Expected) error {
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
	ctx    context.Context
	conn   *sqlite3.SQLiteConn
	insert [tableCount]*statement
	remove [tableCount]*statement
	rows   [tableCount]int64
	seen   int // rows, to look at ctx now and then

	kind PartKind // of the part loaded last
	part int      // its number; 0 before the first

	file   File   // scratch
	packed []byte // scratch
	// The pieces of a content must come one after the other: the next one of
	// this content begins at end.
	content, end int64

	walk walker
}

// targets says where the rows of each table go: the first columns of a dump's
// row, but for files, which are packed.
var targets = [tableCount]struct {
	table   string
	columns int
}{
	TableSnapshots:  {"main.snapshots", 22},
	TableVolumes:    {"stage.volumes", 1},
	TablePaths:      {"stage.paths", 3},
	TableFiles:      {"stage.files", 5},
	TableXattrs:     {"main.xattrs", 3},
	TableContents:   {"stage.contents", 1},
	TableFileChunks: {"main.file_chunks", 4},
	TableChunks:     {"main.chunks", 3},
	TableBlobs:      {"main.blobs", 5},
	TableBlobChunks: {"main.blob_chunks", 6},
}

func newBuilder(ctx context.Context, temp, path string) (*builder, error) {
	stage, err := tempFile(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(stage) // SQLite keeps it open
	c, err := (&sqlite3.SQLiteDriver{}).Open(location(temp, "mode=rw&_journal_mode=OFF&_synchronous=OFF&_locking_mode=EXCLUSIVE&_cache_size=-65536"))
	if err != nil {
		return nil, err
	}
	b := &builder{ctx: ctx, conn: c.(*sqlite3.SQLiteConn)}
	if err := b.prepare(stage); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return b, nil
}

func (b *builder) prepare(stage string) error {
	snapshots, _, _ := strings.Cut(dumpSchema, "\n")
	for _, q := range []struct {
		text string
		args []driver.Value
	}{
		{"PRAGMA page_size = 8192; PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0", nil},
		{"ATTACH ? AS stage", []driver.Value{location(stage, "mode=rw")}},
		{"PRAGMA stage.journal_mode = OFF; PRAGMA stage.synchronous = OFF; PRAGMA stage.cache_size = -65536", nil},
		{"BEGIN;" + viewSchema + snapshots + stageSchema, nil},
	} {
		if _, err := b.conn.Exec(q.text, q.args); err != nil {
			return err
		}
	}
	for t, target := range targets {
		var err error
		values := "(?" + strings.Repeat(", ?", target.columns-1) + ")"
		if b.insert[t], err = b.statement("INSERT INTO " + target.table + " VALUES " + values); err != nil {
			return err
		}
		key := Table(t).Key()
		if b.remove[t], err = b.statement("DELETE FROM " + target.table + " WHERE " + key + " = ?"); err != nil {
			return err
		}
	}
	return b.walk.prepare(b)
}

// statement is a prepared statement with room for its arguments.
type statement struct {
	stmt *sqlite3.SQLiteStmt
	args []driver.NamedValue
}

func (b *builder) statement(query string) (*statement, error) {
	s, err := b.conn.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	st := &statement{stmt: s.(*sqlite3.SQLiteStmt)}
	st.args = make([]driver.NamedValue, st.stmt.NumInput())
	for i := range st.args {
		st.args[i].Ordinal = i + 1
	}
	return st, nil
}

func (s *statement) exec(args ...driver.Value) (changed int64, err error) {
	for i, a := range args {
		s.args[i].Value = a
	}
	return s.run()
}

// run executes the statement with what is in args.
func (s *statement) run() (changed int64, err error) {
	// Without a context that ends: one would cost a goroutine a row.
	r, err := s.stmt.ExecContext(context.Background(), s.args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// each calls f for every row of a query. The row is valid during the call.
func (s *statement) each(f func(row []driver.Value) error, args ...driver.Value) error {
	for i, a := range args {
		s.args[i].Value = a
	}
	rows, err := s.stmt.QueryContext(context.Background(), s.args)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(row)
		if err == nil {
			err = f(row)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, rows.Close())
		}
	}
}

func (b *builder) build(ctx context.Context, parts []Part, want Expected) error {
	for _, p := range parts {
		if err := b.load(ctx, p); err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		return bad("it has no parts")
	}
	if err := b.checkSnapshot(want); err != nil {
		return err
	}
	totals := Totals{
		Files: b.rows[TableFiles], Volumes: b.rows[TableVolumes], Paths: b.rows[TablePaths], Xattrs: b.rows[TableXattrs],
		Contents: b.rows[TableContents], FileChunks: b.rows[TableFileChunks], Chunks: b.rows[TableChunks],
		Blobs: b.rows[TableBlobs], BlobChunks: b.rows[TableBlobChunks],
		Bytes: want.Totals.Bytes, // known after the walk
	}
	if err := totals.compare(want.Totals); err != nil {
		return err
	}
	if err := b.relate(); err != nil {
		return err
	}
	if err := b.walk.all(ctx); err != nil {
		return err
	}
	totals.Bytes = b.walk.bytes
	if err := totals.compare(want.Totals); err != nil {
		return err
	}
	return b.finish(totals)
}

// load reads one part, which must be the next one.
func (b *builder) load(ctx context.Context, p Part) error {
	r, err := p.Open(ctx)
	if err != nil {
		return fmt.Errorf("open a part of the dump: %w", err)
	}
	return errors.Join(b.loadPart(p, bufio.NewReaderSize(r, statementBytes)), r.Close())
}

func (b *builder) loadPart(p Part, r *bufio.Reader) error {
	follows := func(kind PartKind, n int) bool {
		header := partHeader(kind, n)
		start, _ := r.Peek(len(header)) // an error comes back with the first read
		return string(start) == header && (p.N == 0 || p.Kind == kind && p.N == n)
	}
	switch {
	case b.kind == Full && b.part > 0 && follows(Differential, 1):
		b.kind, b.part = Differential, 1
	default:
		b.part++
		if p.N != 0 && !follows(b.kind, b.part) {
			return bad("%s part %d is not where %s part %d belongs", p.Kind, p.N, b.kind, b.part)
		}
	}
	return ParseDump(r, b.kind, b.part, b)
}

// Insert takes a row of the dump.
func (b *builder) Insert(t Table, row []Value) error {
	if b.seen++; b.seen%1024 == 0 {
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	s := b.insert[t]
	if t == TableFiles {
		if err := fileOf(row, &b.file); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
		b.packed = appendFile(b.packed[:0], &b.file)
		s.args[0].Value, s.args[1].Value = row[1].Int, row[0].Int
		s.args[2].Value, s.args[3].Value, s.args[4].Value = b.file.Type == Directory, nil, b.packed
		if b.file.Content != 0 {
			s.args[3].Value = b.file.Content
		}
	} else {
		if err := checks[t](row); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
		for i := range s.args {
			switch v := &row[i]; v.Kind {
			case Null:
				s.args[i].Value = nil
			case Integer:
				s.args[i].Value = v.Int
			case Text:
				s.args[i].Value = string(v.Bytes)
			case Bytes:
				s.args[i].Value = v.Bytes
			}
		}
	}
	if t == TableFileChunks {
		if err := b.tile(row); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
	}
	b.rows[t]++
	if _, err := s.run(); err != nil {
		if failed := (sqlite3.Error{}); errors.As(err, &failed) && failed.Code == sqlite3.ErrConstraint {
			return bad("%s: there is another such row (%v)", rowName(t, row), err)
		}
		return err
	}
	return nil
}

// tile makes sure that the pieces of a content follow one another without a
// gap. A content cannot be taken up again later, since it has a piece at 0.
func (b *builder) tile(row []Value) error {
	content, offset, length := row[0].Int, row[1].Int, row[2].Int
	if content != b.content {
		b.content, b.end = content, 0
	}
	if offset != b.end {
		return fmt.Errorf("a piece at %d where one at %d belongs", offset, b.end)
	}
	b.end += length
	return nil
}

// Delete takes rows away that a differential dump replaces or leaves out.
func (b *builder) Delete(t Table, keys []int64) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if t == TableFileChunks {
		b.content = 0
	}
	for _, key := range keys {
		n, err := b.remove[t].exec(key)
		if err != nil {
			return err
		}
		b.rows[t] -= n
	}
	return nil
}

// checkSnapshot makes sure that the dump is the one that is meant.
func (b *builder) checkSnapshot(want Expected) error {
	if n := b.rows[TableSnapshots]; n != 1 {
		return bad("%d rows of snapshots instead of one", n)
	}
	s, err := b.statement("SELECT seq, id, writer, set_name FROM snapshots")
	if err != nil {
		return err
	}
	defer s.stmt.Close()
	return s.each(func(row []driver.Value) error {
		for i, w := range []driver.Value{want.Seq, want.ID, want.Writer, want.Set} {
			if row[i] != w {
				return bad("column %s of snapshots is %v, signed was %v", TableSnapshots.columns()[i].name, row[i], w)
			}
		}
		return nil
	})
}

// relate sums up contents and looks for rows that refer to nothing.
func (b *builder) relate() error {
	if _, err := b.conn.ExecContext(b.ctx, fmt.Sprintf(`INSERT INTO stage.sizes
		SELECT content, sum(length), sum(CASE WHEN chunk IS NULL THEN 0 ELSE (length + %d - 1) / %[1]d END)
		FROM main.file_chunks GROUP BY content`, blockSize), nil); err != nil {
		return err
	}
	for _, r := range relations {
		s, err := b.statement(r.query)
		if err != nil {
			return err
		}
		err = s.each(func(row []driver.Value) error {
			return bad("%s with %s %d: %s", r.table, r.table.Key(), row[0], r.wrong)
		})
		if err = errors.Join(err, s.stmt.Close(), b.ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// finish writes down that everything is there, which is what makes it a view.
func (b *builder) finish(t Totals) error {
	s, err := b.statement("INSERT INTO about VALUES (?, ?)")
	if err != nil {
		return err
	}
	defer s.stmt.Close()
	for key, n := range t.numbers() {
		if _, err := s.exec(key, *n); err != nil {
			return err
		}
	}
	if _, err := s.exec(completeMark, int64(1)); err != nil {
		return err
	}
	if _, err := b.conn.Exec("COMMIT", nil); err != nil {
		return err
	}
	_, err = b.conn.Exec("DETACH stage", nil)
	return err
}
