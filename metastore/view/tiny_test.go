package view_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

// tiny is the tree of the example in docs/FORMAT.md.
func tiny() metatest.Tree {
	owner := func(e metatest.Entry, f func(*metastore.File)) metatest.Entry {
		e.User, e.Group, e.MTime = "root", "root", metastore.Time{Sec: 1767323045, Nsec: 6}
		if f != nil {
			f(&e.File)
		}
		return e
	}
	blob := view.BlobInfo{Hash: [32]byte{0xbb}, Seq: 1, Size: 4096, Header: 1659}
	shared := []view.Extent{
		{Length: 6, Chunk: [32]byte{0xc1}, Blob: blob, FrameOffset: 24, FrameLength: 19},
		{Length: 65536, Hole: true},
		{Length: 7, Chunk: [32]byte{0xc2}, Blob: blob, FrameOffset: 24, FrameLength: 19, FrameStart: 6},
	}
	linked := func(f *metastore.File) { f.Inode, f.Nlink = 77, 2 }
	return metatest.Tree{
		Snapshot: metastore.Snapshot{
			Started: metastore.Time{Sec: 1767323045}, Finished: metastore.Time{Sec: 1767323046, Nsec: 5},
			Version: "1.0", Revision: "0123abc",
			Roots: []string{"/srv"}, Excludes: []string{"*.o", "/srv/tmp"}, NewFiles: 6, NewBytes: 131098, StoredBytes: 4096,
		},
		Entries: []metatest.Entry{
			owner(metatest.Dir("/"), func(f *metastore.File) { f.Role = metastore.RoleParent }),
			owner(metatest.Dir("/srv"), func(f *metastore.File) {
				f.Role, f.Xattrs = metastore.RoleRoot, []metastore.Xattr{{Name: "user.k", Value: []byte{0, 255}}}
			}),
			owner(metatest.File("/srv/a", shared...), linked),
			owner(metatest.File("/srv/b", shared...), linked),
			owner(metatest.Symlink("/srv/l", "a"), nil),
			owner(metatest.File("/srv/z'\n\xff"), nil),
		},
	}
}

// parts makes full parts of texts.
func parts(texts ...string) (parts []build.Part) {
	for _, text := range texts {
		parts = append(parts, build.Part{Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		}})
	}
	return parts
}

func built(t testing.TB, want build.Expected, texts ...string) (*view.View, error) {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "view.db")
	err := build.View(t.Context(), path, parts(texts...), want)
	left, failed := filepath.Glob(filepath.Join(folder, "*"))
	if failed != nil {
		t.Fatal(failed)
	}
	if err != nil {
		if len(left) != 0 {
			t.Errorf("a dump that was refused left %q", left)
		}
		return nil, err
	}
	if diff := cmp.Diff([]string{path}, left); diff != "" {
		t.Errorf("files beside the view: %s", diff)
	}
	v, err := view.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v, nil
}

func TestTheTinyDumpIsTheGoldenOneAndTheDocumentedOne(t *testing.T) {
	text, want := metatest.Dump(tiny())
	golden := filepath.Join("..", "testdata", "v1", "tiny.sql")
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored), string(text)); diff != "" {
		t.Error(diff)
	}
	v, err := built(t, want, string(stored))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Totals, v.Totals()); diff != "" {
		t.Error(diff)
	}
	// What the example shows is the file without the schema, one row a line.
	example := strings.Replace(string(stored), dump.Schema(), "", 1)
	chapter, err := os.ReadFile(filepath.Join("..", "..", "docs", "FORMAT.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(chapter), example) || !strings.Contains(string(chapter), dump.Schema()) {
		t.Errorf("docs/FORMAT.md does not show the schema and the tiny dump:\n%s", example)
	}
}

// TestStockSqliteCountsWhatAViewCounts is how somebody without vaultik reads
// the same text.
func TestStockSqliteCountsWhatAViewCounts(t *testing.T) {
	sqlite, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("needs the sqlite3 program")
	}
	for _, name := range []string{"tiny.sql", "full.sql"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "testdata", "v1", name))
			if err != nil {
				t.Fatal(err)
			}
			db := filepath.Join(t.TempDir(), "dump.db")
			load := exec.CommandContext(t.Context(), sqlite, "-safe", "-bail", db)
			load.Stdin = bytes.NewReader(text)
			if out, err := load.CombinedOutput(); err != nil || len(out) != 0 {
				t.Fatalf("sqlite3: %v\n%s", err, out)
			}
			ask := func(query string) string {
				out, err := exec.CommandContext(t.Context(), sqlite, "-safe", "-bail", "-readonly", db, query).Output()
				if err != nil {
					t.Fatalf("%s: %v", query, err)
				}
				return strings.TrimSpace(string(out))
			}
			want := build.Expected{ID: ask("SELECT id FROM snapshots"), Writer: ask("SELECT writer FROM snapshots"),
				Set: ask("SELECT set_name FROM snapshots"), Seq: number(t, ask("SELECT seq FROM snapshots"))}
			for table, n := range map[string]*int64{
				"files": &want.Totals.Files, "volumes": &want.Totals.Volumes, "paths": &want.Totals.Paths,
				"xattrs": &want.Totals.Xattrs, "contents": &want.Totals.Contents, "file_chunks": &want.Totals.FileChunks,
				"chunks": &want.Totals.Chunks, "blobs": &want.Totals.Blobs, "blob_chunks": &want.Totals.BlobChunks,
			} {
				*n = number(t, ask("SELECT count(*) FROM "+table))
			}
			want.Totals.Bytes = number(t, ask("SELECT coalesce(sum(size), 0) FROM files WHERE content IS NOT NULL"))
			v, err := built(t, want, string(text))
			if err != nil {
				t.Fatal(err)
			}
			shown, _ := walk(t, v)
			if got := int64(len(shown)); got != want.Totals.Files {
				t.Errorf("the view shows %d entries, the dump has %d", got, want.Totals.Files)
			}
		})
	}
}
