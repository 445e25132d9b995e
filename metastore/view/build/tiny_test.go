package build_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/metatest"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
)

func built(t testing.TB, want build.Expected, texts ...string) (*view.View, error) {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "view.db")
	err := build.View(t.Context(), path, metatest.Parts(texts...), want)
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
	text, want := metatest.Dump(metatest.Tiny())
	golden := filepath.Join("..", "..", "testdata", "v1", "tiny.sql")
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
	chapter, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "FORMAT.md"))
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
			text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "v1", name))
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
			shown, _ := metatest.Walk(t, v)
			if got := int64(len(shown)); got != want.Totals.Files {
				t.Errorf("the view shows %d entries, the dump has %d", got, want.Totals.Files)
			}
		})
	}
}

func number(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
