package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

var update = flag.Bool("update", false, "write the golden files anew")

// memoryPart is a part of a dump in memory.
type memoryPart struct {
	bytes.Buffer
	writes []int // sizes
	limit  int
	closed bool
}

func (p *memoryPart) Write(b []byte) (int, error) {
	p.writes = append(p.writes, len(b))
	return p.Buffer.Write(b)
}
func (p *memoryPart) Full() bool   { return p.Len() >= p.limit }
func (p *memoryPart) Close() error { p.closed = true; return nil }

// writeDump dumps a run's snapshot into parts of about limit bytes.
func writeDump(t testing.TB, r *Run, s metastore.Snapshot, limit int) ([]*memoryPart, metastore.Totals) {
	t.Helper()
	var parts []*memoryPart
	totals, _, err := r.WriteDump(t.Context(), s, func(n int) (dump.PartWriter, error) {
		if n != len(parts)+1 || n > 1 && !parts[n-2].closed {
			return nil, fmt.Errorf("part %d after %d", n, len(parts))
		}
		parts = append(parts, &memoryPart{limit: limit})
		return parts[n-1], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) == 0 || !parts[len(parts)-1].closed {
		t.Fatal("the last part is not closed")
	}
	return parts, totals
}

// loadDump executes a dump, which only tests of our own dumps may do.
func loadDump(t testing.TB, parts []*memoryPart) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	for _, p := range parts {
		if _, err := db.ExecContext(t.Context(), p.String()); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// exampleRun records a small tree with some of everything.
func exampleRun(t testing.TB, x *Index) (*Run, metastore.Snapshot) {
	t.Helper()
	r := begin(t, x, "home")
	volume, err := r.Volume(t.Context(), "ext4", 1<<63+5, "/")
	if err != nil {
		t.Fatal(err)
	}
	on := func(f metastore.File) metastore.File { f.Volume = volume; return f }
	root := on(folder())
	root.Role = metastore.RoleParent
	record(t, r, "/", root)
	root.Role, root.Inode = metastore.RoleRoot, 3
	record(t, r, "/ann", root)
	hello := withContent(t, r, on(file(10)), "hello, world\n")
	hello.Nlink, hello.BTime = 2, metastore.Time{Sec: -5, Nsec: 999_999_999}
	hello.Xattrs = []metastore.Xattr{{Name: "security.capability", Value: []byte{1, 0, 0, 2}}, {Name: "user.empty", Value: nil}}
	record(t, r, "/ann/hello", hello)
	record(t, r, "/ann/hello again", hello)
	link := on(file(11))
	link.Type, link.Mode, link.Target, link.Size = metastore.Symlink, 0o777, "hello", 5
	record(t, r, "/ann/l\xefnk'\n", link)
	empty := on(file(12))
	if empty.Content, err = r.Content(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
	record(t, r, "/ann/empty", empty)
	sparse := on(file(1<<63 + 13))
	chunk, _, err := r.Chunk(t.Context(), sha256.Sum256([]byte("data")), 4)
	if err != nil {
		t.Fatal(err)
	}
	sparse.Size = 1<<20 + 4
	if sparse.Content, err = r.Content(t.Context(), []ContentChunk{{0, 1 << 20, 0}, {1 << 20, 4, chunk}}, 0); err != nil {
		t.Fatal(err)
	}
	record(t, r, "/ann/sparse", sparse) // its chunk was never uploaded
	tty := on(file(14))
	tty.Type, tty.RdevMajor, tty.RdevMinor = metastore.CharDev, 4, 64
	record(t, r, "/ann/tty", tty)
	record(t, r, "/ann/gone", on(file(15)))
	if _, err := r.Close(t.Context(), at(t, r, "/ann/gone")); err != nil {
		t.Fatal(err)
	}
	record(t, r, "/ann/secret", on(folder()))
	record(t, r, "/ann/secret/hidden", on(file(16)))
	if err := r.Gap(t.Context(), at(t, r, "/ann/secret"), on(folder()), 13); err != nil {
		t.Fatal(err)
	}
	return r, metastore.Snapshot{
		Seq: r.Seq(), ID: "ann-20231114-221320Z", Writer: "ann", Set: "home", Hostname: "ann's",
		Started: metastore.Time{Sec: 1_700_000_000, Nsec: 5}, Finished: metastore.Time{Sec: 1_700_000_060, Nsec: 0}, Version: "1.0.0", Revision: "abcdef",
		Roots: []string{"/ann"}, Excludes: []string{"*.o", "/ann/tmp\xff"},
		Chunking: metastore.Chunking{Algorithm: "jc-v1", Min: 1 << 18, Avg: 1 << 20, Max: 1 << 22, Secret: bytes.Repeat([]byte{7}, 32)},
		NewFiles: 9, NewBytes: 17, StoredBytes: 1000,
	}
}

func TestDumpOfASmallTreeIsTheGoldenOne(t *testing.T) {
	r, s := exampleRun(t, newIndex(t, Options{}))
	parts, totals := writeDump(t, r, s, 1<<20)
	golden := filepath.Join("..", "testdata", "v1", "full.sql")
	if *update {
		if err := os.WriteFile(golden, parts[0].Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), parts[0].String()); diff != "" || len(parts) != 1 {
		t.Errorf("%d parts: %s", len(parts), diff)
	}
	if diff := cmp.Diff(metastore.Totals{
		Files: 9, Bytes: 13 + 13 + 1<<20 + 4, Volumes: 1, Paths: 9, Xattrs: 4, Contents: 3, FileChunks: 3, Chunks: 2, Blobs: 1, BlobChunks: 1,
	}, totals); diff != "" {
		t.Error(diff)
	}
}

func TestStockSqliteLoadsADump(t *testing.T) {
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("there is no sqlite3 program here")
	}
	r, s := exampleRun(t, newIndex(t, Options{}))
	parts, totals := writeDump(t, r, s, 1) // one statement a part
	if len(parts) < 10 {
		t.Fatalf("%d parts", len(parts))
	}
	path := filepath.Join(t.TempDir(), "loaded.db")
	for _, p := range parts {
		run := exec.CommandContext(t.Context(), program, "-safe", "-bail", path)
		run.Stdin = bytes.NewReader(p.Bytes())
		if out, err := run.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%v: %s\n%s", err, out, p.String())
		}
	}
	db, err := sql.Open("sqlite3", sqlite.Location(path, "mode=ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for table, want := range map[string]int64{
		"files": totals.Files, "volumes": totals.Volumes, "paths": totals.Paths, "xattrs": totals.Xattrs, "contents": totals.Contents,
		"file_chunks": totals.FileChunks, "chunks": totals.Chunks, "blobs": totals.Blobs, "blob_chunks": totals.BlobChunks, "snapshots": 1,
	} {
		var n int64
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != want {
			t.Errorf("%s has %d rows, not %d: %v", table, n, want, err)
		}
	}
	var roots []byte
	var bytes int64
	err = db.QueryRowContext(t.Context(), `SELECT excludes, (SELECT sum(size) FROM files WHERE content IS NOT NULL) FROM snapshots`).Scan(&roots, &bytes)
	if string(roots) != "*.o\x00/ann/tmp\xff\x00" || bytes != totals.Bytes || err != nil {
		t.Errorf("%q %d %v", roots, bytes, err)
	}
	if diff := cmp.Diff(dumpFiles(t, r), readFiles(t, db, db, "SELECT id, path, 0, 0, "+fileColumns+" FROM files")); diff != "" {
		t.Error(diff)
	}
}

// The two sides of this package agree: what an index dumps, a view shows.
func TestAViewShowsWhatWasDumped(t *testing.T) {
	r, s := exampleRun(t, newIndex(t, Options{}))
	parts, totals := writeDump(t, r, s, 1)
	var sources []build.Part
	for n, p := range parts {
		sources = append(sources, build.Part{Kind: dump.Full, N: n + 1, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(p.Bytes())), nil
		}})
	}
	path := filepath.Join(t.TempDir(), "view.db")
	if err := build.View(t.Context(), path, sources, build.Expected{ID: s.ID, Writer: s.Writer, Set: s.Set, Seq: s.Seq, Totals: totals}); err != nil {
		t.Fatal(err)
	}
	v, err := view.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if diff := cmp.Diff(s, v.Snapshot(), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	got := map[string]metastore.File{}
	var walk func(n view.Node, where string)
	walk = func(n view.Node, where string) {
		f := n.File
		if f.Xattrs, err = v.Xattrs(t.Context(), n.Ino); err != nil {
			t.Fatal(err)
		}
		got[where] = f
		if f.Type != metastore.Directory {
			return
		}
		children, err := v.ReadDir(t.Context(), n.Ino, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range children {
			walk(c, strings.TrimSuffix(where, "/")+"/"+c.Name)
		}
	}
	root, err := v.Node(t.Context(), v.Root())
	if err != nil {
		t.Fatal(err)
	}
	walk(root, "/")
	if diff := cmp.Diff(dumpFiles(t, r), got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	sparse := got["/ann/sparse"]
	root.File = sparse
	extents, err := v.Extents(t.Context(), root, 0, sparse.Size)
	if err != nil || len(extents) != 2 || !extents[0].Hole || !extents[1].Lost {
		t.Errorf("%+v, %v", extents, err)
	}
}

func TestStatementsStayWithinTheirLimits(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	record(t, r, "/", folder())
	for i := range 1200 { // more rows than a statement has
		record(t, r, fmt.Sprintf("/%04d", i), file(uint64(i)))
	}
	for i := range 40 { // more bytes: 128 KiB of hex each
		f := file(uint64(i))
		f.Xattrs = []metastore.Xattr{{Name: "user.big", Value: bytes.Repeat([]byte{byte(i)}, 64<<10)}}
		record(t, r, fmt.Sprintf("/big%d", i), f)
	}
	parts, totals := writeDump(t, r, metastore.Snapshot{Seq: r.Seq()}, 1<<20)
	rows := 0
	for n, p := range parts {
		head := fmt.Sprintf("-- vaultik dump 1 full %d\nBEGIN;\n", n+1)
		if n == 0 {
			head += dump.Schema()
		}
		body, found := strings.CutPrefix(p.String(), head)
		body, ended := strings.CutSuffix(body, "COMMIT;\n")
		if !found || !ended {
			t.Fatalf("part %d begins with %.80q and ends with %q", n+1, p.String(), p.String()[p.Len()-20:])
		}
		if want := strings.Count(body, ";\n") + 2; len(p.writes) != want {
			t.Errorf("part %d had %d writes for %d statements", n+1, len(p.writes), want-2)
		}
		for _, statement := range strings.SplitAfter(body, ";\n") {
			count := strings.Count(statement, "),(") + 1
			if len(statement) > 1_000_000 || count > 500 {
				t.Errorf("a statement of %d bytes and %d rows", len(statement), count)
			}
			if statement != "" {
				rows += count
			}
		}
		if limit := 1<<20 + 1_000_000 + len("COMMIT;\n"); p.Len() > limit {
			t.Errorf("part %d has %d bytes", n+1, p.Len())
		}
	}
	if len(parts) < 4 || rows != int(1+totals.Files+totals.Paths+totals.Volumes+totals.Xattrs) {
		t.Errorf("%d parts with %d rows, totals %+v", len(parts), rows, totals)
	}
	db := loadDump(t, parts)
	loaded := readFiles(t, db, db, "SELECT id, path, 0, 0, "+fileColumns+" FROM files")
	if len(loaded) != 1241 || len(loaded["/big39"].Xattrs) != 1 || loaded["/big39"].Xattrs[0].Value[0] != 39 {
		t.Errorf("%d files", len(loaded))
	}
}

func TestARowThatFitsNoStatementIsAnError(t *testing.T) {
	x := newIndex(t, Options{})
	r := begin(t, x, "home")
	f := folder()
	f.Xattrs = []metastore.Xattr{{Name: "user.huge", Value: make([]byte, 600_000)}}
	record(t, r, "/", f)
	_, _, err := r.WriteDump(t.Context(), metastore.Snapshot{Seq: 1}, func(int) (dump.PartWriter, error) { return &memoryPart{limit: 1 << 20}, nil })
	if err == nil || !strings.Contains(err.Error(), "xattrs") {
		t.Error(err)
	}
}

func TestDumpErrorsComeThrough(t *testing.T) {
	x := newIndex(t, Options{})
	r, s := exampleRun(t, x)
	broken := errors.New("broken")
	if _, _, err := r.WriteDump(t.Context(), s, func(int) (dump.PartWriter, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*metastore.Snapshot){
		"seq":      func(s *metastore.Snapshot) { s.Seq++ },
		"id":       func(s *metastore.Snapshot) { s.ID = "it's" },
		"version":  func(s *metastore.Snapshot) { s.Version = "é" },
		"NUL":      func(s *metastore.Snapshot) { s.Tags = []string{"a\x00b"} },
		"new line": func(s *metastore.Snapshot) { s.Set = "a\nb" },
	} {
		s := s
		spoil(&s)
		if _, _, err := r.WriteDump(t.Context(), s, func(int) (dump.PartWriter, error) { return &memoryPart{limit: 1 << 20}, nil }); err == nil {
			t.Errorf("a wrong %s was dumped", what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := r.WriteDump(ctx, s, func(int) (dump.PartWriter, error) { cancel(); return &memoryPart{limit: 1 << 20}, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	writeDump(t, r, s, 1<<20) // none of which ended the run
}

// A dump shows one state, whatever is recorded while it is written.
func TestADumpSeesOneState(t *testing.T) {
	x := newIndex(t, Options{})
	r, s := exampleRun(t, x)
	want := dumpFiles(t, r)
	var parts []*memoryPart
	_, _, err := r.WriteDump(t.Context(), s, func(n int) (dump.PartWriter, error) {
		record(t, r, fmt.Sprintf("/ann/during-%d", n), file(uint64(n)))
		if _, err := r.Close(t.Context(), at(t, r, "/ann/hello")); err != nil {
			return nil, err
		}
		upload(t, r, fmt.Sprintf("blob during %d", n))
		parts = append(parts, &memoryPart{limit: 1})
		return parts[n-1], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	db := loadDump(t, parts)
	if diff := cmp.Diff(want, readFiles(t, db, db, "SELECT id, path, 0, 0, "+fileColumns+" FROM files")); diff != "" {
		t.Error(diff)
	}
	if _, still := dumpFiles(t, r)["/ann/hello"]; still {
		t.Error("what was recorded meanwhile is lost")
	}
}
