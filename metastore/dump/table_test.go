package dump

import (
	"bytes"
	"database/sql"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
	"pgregory.net/rapid"
)

func TestTablesAreThoseOfTheSchema(t *testing.T) {
	statement := regexp.MustCompile(`^CREATE TABLE (\w+) \((.*)\);$`)
	lines := strings.Split(strings.TrimSuffix(schemaText, "\n"), "\n")
	if len(lines) != len(tables) {
		t.Fatalf("%d tables", len(lines))
	}
	for i, line := range lines {
		m := statement.FindStringSubmatch(line)
		if m == nil || m[1] != tables[i].name {
			t.Fatalf("table %d is %q", i, line)
		}
		var want []Column
		for _, c := range strings.Split(m[2], ", ") {
			words := strings.SplitN(c, " ", 3)
			k := map[string]Kind{"INTEGER": Integer, "TEXT": Text, "BLOB": Bytes}[words[1]]
			want = append(want, Column{strings.Trim(words[0], `"`), k, len(words) == 2})
		}
		if diff := cmp.Diff(want, tables[i].columns, cmp.AllowUnexported(Column{})); diff != "" {
			t.Errorf("%s: %s", m[1], diff)
		}
	}
}

// What SQLite makes of a row is what was put into it.
func TestValuesSurviveSqlite(t *testing.T) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Int64().Draw(t, "number")
		blob := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		text := rapid.StringOf(rapid.RuneFrom([]rune(" !abcXYZ019~(),;\"-"))).Draw(t, "text")
		row, err := appendRow(nil, number, blob, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		var gotNumber int64
		var gotBlob []byte
		var gotText string
		var null any = "not null"
		err = db.QueryRow("SELECT * FROM (VALUES "+string(row)+")").Scan(&gotNumber, &gotBlob, &gotText, &null)
		if err != nil || gotNumber != number || !bytes.Equal(gotBlob, blob) || gotText != text || null != nil {
			t.Fatalf("%s became %d %x %q %v, %v", row, gotNumber, gotBlob, gotText, null, err)
		}
	})
	for _, bad := range []any{"it's", "a\\b", "\x1f", "\x7f", "é", 5, true} {
		if row, err := appendRow(nil, bad); err == nil {
			t.Errorf("%v became %s", bad, row)
		}
	}
}
