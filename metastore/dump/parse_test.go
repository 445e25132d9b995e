package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

// rewriter writes what it is told as it must have stood in the text, without
// the borders between statements.
type rewriter struct {
	bytes.Buffer
	last string
}

func (r *rewriter) begin(what string) {
	if what == r.last {
		r.WriteString(",")
	} else {
		r.WriteString("\n" + what)
		r.last = what
	}
}

func (r *rewriter) Insert(t dump.Table, row []dump.Value) error {
	r.begin("INSERT INTO " + t.String() + " VALUES")
	for i, v := range row {
		if i == 0 {
			r.WriteString("(")
		} else {
			r.WriteString(",")
		}
		switch v.Kind {
		case dump.Null:
			r.WriteString("NULL")
		case dump.Integer:
			fmt.Fprintf(r, "%d", v.Int)
		case dump.Text:
			fmt.Fprintf(r, "'%s'", v.Bytes)
		case dump.Bytes:
			fmt.Fprintf(r, "X'%X'", v.Bytes)
		}
	}
	r.WriteString(")")
	return nil
}

func (r *rewriter) Delete(t dump.Table, keys []int64) error {
	for _, key := range keys {
		r.begin("DELETE FROM " + t.String() + " WHERE " + t.Key() + " IN (")
		fmt.Fprintf(r, "%d", key)
	}
	return nil
}

// statementsOf is an accepted text without the borders between statements.
func statementsOf(text string) string {
	var out strings.Builder
	last := ""
	for line := range strings.Lines(text) {
		end := ";\n"
		what, rest, found := strings.Cut(line, " VALUES")
		what += " VALUES"
		if strings.HasPrefix(line, "DELETE FROM ") {
			what, rest, found = strings.Cut(line, "(")
			what, end = what+"(", ");\n"
		} else if !strings.HasPrefix(line, "INSERT INTO ") {
			continue
		}
		if !found {
			continue
		}
		if what == last {
			out.WriteString(",")
		} else {
			out.WriteString("\n" + what)
			last = what
		}
		out.WriteString(strings.TrimSuffix(rest, end))
	}
	return out.String()
}

func golden(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "v1", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParsedDumpsCanBeWrittenAgain(t *testing.T) {
	schema := dump.Schema()
	for name, c := range map[string]struct {
		kind dump.PartKind
		n    int
		text string
	}{
		"golden, small": {dump.Full, 1, golden(t, "tiny.sql")},
		"golden, all":   {dump.Full, 1, golden(t, "full.sql")},
		"empty":         {dump.Full, 1, "-- vaultik dump 1 full 1\nBEGIN;\n" + schema + "COMMIT;\n"},
		"second part":   {dump.Full, 2, "-- vaultik dump 1 full 2\nBEGIN;\nINSERT INTO contents VALUES(-9223372036854775808),(9223372036854775807),(0),(-1);\nCOMMIT;\n"},
		"differential":  {dump.Differential, 1, "-- vaultik dump 1 differential 1\nBEGIN;\nDELETE FROM files WHERE id IN (1,2);\nDELETE FROM xattrs WHERE file IN (3);\nDELETE FROM snapshots WHERE seq IN (4);\nINSERT INTO xattrs VALUES(1,X'',X'00FF7F');\nCOMMIT;\n"},
		"no changes":    {dump.Differential, 12, "-- vaultik dump 1 differential 12\nBEGIN;\nCOMMIT;\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out rewriter
			// One byte at a time: where reads end must not matter.
			if err := dump.Parse(iotest.OneByteReader(strings.NewReader(c.text)), c.kind, c.n, &out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(statementsOf(c.text), out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingOutsideTheGrammarIsParsed(t *testing.T) {
	in := func(statements string) string {
		return "-- vaultik dump 1 differential 1\nBEGIN;\n" + statements + "COMMIT;\n"
	}
	long := func(n int) string {
		line := "INSERT INTO xattrs VALUES(1,X'61',X'"
		return line + strings.Repeat("0", n-len(line)-len("');\n")-(n-len(line)-len("');\n"))%2) + "');\n"
	}
	many := func(what, item, end string, n int) string {
		return what + strings.Repeat(item+",", n-1) + item + end
	}
	if err := dump.Parse(strings.NewReader(in(long(1_000_000)+many("INSERT INTO contents VALUES", "(1)", ";\n", 500)+
		many("DELETE FROM contents WHERE id IN (", "1", ");\n", 500))), dump.Differential, 1, &rewriter{}); err != nil {
		t.Errorf("the greatest statements: %v", err)
	}
	for _, text := range []string{
		"",
		"\n",
		"-- vaultik dump 1 differential 1\n",
		"-- vaultik dump 1 differential 1\nBEGIN;\n",
		"-- vaultik dump 1 differential 1\nBEGIN;\nCOMMIT;",
		"-- vaultik dump 1 differential 1\nBEGIN;\nCOMMIT;\n\n",
		"-- vaultik dump 1 differential 1\nBEGIN;\nCOMMIT;\nCOMMIT;\n",
		"-- vaultik dump 1 differential 1\nBEGIN;\nCOMMIT;\n.shell echo\n",
		"-- vaultik dump 1 differential 1\r\nBEGIN;\r\nCOMMIT;\r\n",
		"-- vaultik dump 1 differential 1\nBEGIN TRANSACTION;\nCOMMIT;\n",
		"-- vaultik dump 1 differential 1\nCOMMIT;\n",
		"-- vaultik dump 1 differential 2\nBEGIN;\nCOMMIT;\n",
		"-- vaultik dump 1 differential 01\nBEGIN;\nCOMMIT;\n",
		"-- vaultik dump 2 differential 1\nBEGIN;\nCOMMIT;\n",
		"-- vaultik dump 1 full 1\nBEGIN;\nCOMMIT;\n",
		"\ufeff-- vaultik dump 1 differential 1\nBEGIN;\nCOMMIT;\n",
		in(dump.Schema()),
		in("\n"),
		in(";\n"),
		in("-- a comment\n"),
		in("/* a comment */\n"),
		in("ATTACH 'x' AS y;\n"),
		in(".shell echo\n"),
		in("PRAGMA writable_schema=1;\n"),
		in("SELECT 1;\n"),
		in("UPDATE chunks SET size=1;\n"),
		in("DROP TABLE chunks;\n"),
		in("CREATE TABLE x (y);\n"),
		in("CREATE TRIGGER x AFTER INSERT ON chunks BEGIN SELECT 1; END;\n"),
		in("insert into contents VALUES(1);\n"),
		in("INSERT OR REPLACE INTO contents VALUES(1);\n"),
		in("INSERT INTO contents SELECT 1;\n"),
		in("INSERT INTO contents(id) VALUES(1);\n"),
		in("INSERT INTO  contents VALUES(1);\n"),
		in("INSERT INTO contents VALUES (1);\n"),
		in("INSERT INTO contents VALUES(1); \n"),
		in("INSERT INTO contents VALUES(1) ;\n"),
		in("INSERT INTO contents VALUES( 1);\n"),
		in("INSERT INTO contents VALUES(1), (2);\n"),
		in("INSERT INTO contents VALUES(1),;\n"),
		in("INSERT INTO contents VALUES(1)\n,(2);\n"),
		in("INSERT INTO contents VALUES(1);INSERT INTO contents VALUES(2);\n"),
		in("INSERT INTO contents VALUES;\n"),
		in("INSERT INTO contents VALUES();\n"),
		in("INSERT INTO contents VALUES(1"),
		in("INSERT INTO contents VALUES(1,2);\n"),
		in("INSERT INTO volumes VALUES(1,'x',2);\n"),
		in("INSERT INTO content VALUES(1);\n"),
		in("INSERT INTO contentss VALUES(1);\n"),
		in("INSERT INTO sqlite_schema VALUES(1);\n"),
		in("INSERT INTO main.contents VALUES(1);\n"),
		in("INSERT INTO \"contents\" VALUES(1);\n"),
		in("INSERT INTO CONTENTS VALUES(1);\n"),
		in("INSERT INTO contents VALUES(+1);\n"),
		in("INSERT INTO contents VALUES(01);\n"),
		in("INSERT INTO contents VALUES(-0);\n"),
		in("INSERT INTO contents VALUES(00);\n"),
		in("INSERT INTO contents VALUES(--1);\n"),
		in("INSERT INTO contents VALUES(-);\n"),
		in("INSERT INTO contents VALUES(1.0);\n"),
		in("INSERT INTO contents VALUES(1e3);\n"),
		in("INSERT INTO contents VALUES(0x10);\n"),
		in("INSERT INTO contents VALUES(1_000);\n"),
		in("INSERT INTO contents VALUES(9223372036854775808);\n"),
		in("INSERT INTO contents VALUES(-9223372036854775809);\n"),
		in("INSERT INTO contents VALUES(18446744073709551616);\n"),
		in("INSERT INTO contents VALUES(99999999999999999999999999);\n"),
		in("INSERT INTO contents VALUES(NULL);\n"),
		in("INSERT INTO contents VALUES('1');\n"),
		in("INSERT INTO contents VALUES(X'31');\n"),
		in("INSERT INTO contents VALUES(abs(-1));\n"),
		in("INSERT INTO contents VALUES(1+1);\n"),
		in("INSERT INTO file_chunks VALUES(1,0,1,null);\n"),
		in("INSERT INTO file_chunks VALUES(1,NULL,1,1);\n"),
		in("INSERT INTO paths VALUES(2,1,X'6a6b');\n"),
		in("INSERT INTO paths VALUES(2,1,X'4a');\n"),
		in("INSERT INTO paths VALUES(2,1,X'4');\n"),
		in("INSERT INTO paths VALUES(2,1,X'4G');\n"),
		in("INSERT INTO paths VALUES(2,1,X'41 ');\n"),
		in("INSERT INTO paths VALUES(2,1,x'41');\n"),
		in("INSERT INTO paths VALUES(2,1,X'41);\n"),
		in("INSERT INTO paths VALUES(2,1,'A');\n"),
		in("INSERT INTO paths VALUES(2,1,zeroblob(9));\n"),
		in("INSERT INTO paths VALUES(2,1,X'41'||X'42');\n"),
		in("INSERT INTO volumes VALUES(1,'it''s',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'back\\slash',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'tab\t',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'line\n',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'\x00',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'\x7f',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,'ö',2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,\"ext4\",2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,ext4,2,X'');\n"),
		in("INSERT INTO volumes VALUES(1,X'41',2,X'');\n"),
		in("DELETE FROM contents;\n"),
		in("DELETE FROM contents WHERE id IN ();\n"),
		in("DELETE FROM contents WHERE id IN (1,);\n"),
		in("DELETE FROM contents WHERE id IN (1, 2);\n"),
		in("DELETE FROM contents WHERE id IN (SELECT 1);\n"),
		in("DELETE FROM contents WHERE id=1;\n"),
		in("DELETE FROM contents WHERE 1 OR id IN (1);\n"),
		in("DELETE FROM xattrs WHERE id IN (1);\n"),
		in("DELETE FROM nothing WHERE id IN (1);\n"),
		in(long(1_000_002)),
		in(many("INSERT INTO contents VALUES", "(1)", ";\n", 501)),
		in(many("DELETE FROM contents WHERE id IN (", "1", ");\n", 501)),
	} {
		err := dump.Parse(strings.NewReader(text), dump.Differential, 1, &rewriter{})
		if !errors.Is(err, dump.ErrBad) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%.100q: %v", text, err)
		}
	}
	full := func(schema, statements string) string {
		return "-- vaultik dump 1 full 1\nBEGIN;\n" + schema + statements + "COMMIT;\n"
	}
	schema := dump.Schema()
	for _, text := range []string{
		full("", ""),
		full(schema[:len(schema)/2], ""),
		full(schema+schema, ""),
		full(strings.Replace(schema, "parent INTEGER NOT NULL", "parent INTEGER NOT null", 1), ""),
		full(strings.Replace(schema, "BLOB", "TEXT", 1), ""),
		full(strings.TrimSuffix(schema, "\n"), ""),
		full(schema+"\n", ""),
		full(schema, "DELETE FROM contents WHERE id IN (1);\n"),
	} {
		if err := dump.Parse(strings.NewReader(text), dump.Full, 1, &rewriter{}); !errors.Is(err, dump.ErrBad) {
			t.Errorf("%.60q …: %v", text, err)
		}
	}
	second := "-- vaultik dump 1 full 2\nBEGIN;\n" + schema + "COMMIT;\n"
	if err := dump.Parse(strings.NewReader(second), dump.Full, 2, &rewriter{}); !errors.Is(err, dump.ErrBad) {
		t.Errorf("a schema in the second part: %v", err)
	}
}

type refusing struct{ error }

func (r refusing) Insert(dump.Table, []dump.Value) error { return r.error }
func (r refusing) Delete(dump.Table, []int64) error      { return r.error }

func TestErrorsOfReaderAndSinkComeThrough(t *testing.T) {
	text := golden(t, "tiny.sql")
	failure := errors.New("failure")
	err := dump.Parse(strings.NewReader(text), dump.Full, 1, refusing{failure})
	if !errors.Is(err, failure) || errors.Is(err, dump.ErrBad) || !strings.Contains(err.Error(), "line 13") {
		t.Errorf("of the sink: %v", err)
	}
	for n := range len(text) {
		if n > 100 && n < len(text)-100 && n%97 != 0 {
			continue
		}
		short := strings.NewReader(text[:n])
		if err := dump.Parse(short, dump.Full, 1, &rewriter{}); !errors.Is(err, dump.ErrBad) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		broken := iotest.DataErrReader(iotest.TimeoutReader(iotest.HalfReader(strings.NewReader(text[:n]))))
		if err := dump.Parse(broken, dump.Full, 1, &rewriter{}); n > 1 && !errors.Is(err, iotest.ErrTimeout) {
			t.Fatalf("failed after %d bytes: %v", n, err)
		}
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add(true, golden(f, "tiny.sql"))
	f.Add(false, strings.Replace(strings.Replace(golden(f, "tiny.sql"), "full", "differential", 1), dump.Schema(), "", 1))
	f.Add(false, "-- vaultik dump 1 differential 1\nBEGIN;\nDELETE FROM files WHERE id IN (1,2);\nINSERT INTO contents VALUES(-1),(0);\n"+
		"INSERT INTO file_chunks VALUES(1,0,1,NULL);\nINSERT INTO volumes VALUES(1,'ext4',-1,X'00');\nCOMMIT;\n")
	f.Fuzz(func(t *testing.T, full bool, text string) {
		kind := dump.Differential
		if full {
			kind = dump.Full
		}
		var out rewriter
		err := dump.Parse(strings.NewReader(text), kind, 1, &out)
		if err != nil {
			if !errors.Is(err, dump.ErrBad) {
				t.Fatal(err)
			}
			return
		}
		if diff := cmp.Diff(statementsOf(text), out.String()); diff != "" {
			t.Error(diff)
		}
	})
}

// BenchmarkParse shows the parser's share of loading a dump.
func BenchmarkParse(b *testing.B) {
	rows := strings.TrimSuffix(strings.Repeat("(1,X'"+strings.Repeat("0123456789ABCDEF", 4)+"',1048576),", 500), ",")
	text := "-- vaultik dump 1 full 2\nBEGIN;\n" + strings.Repeat("INSERT INTO chunks VALUES"+rows+";\n", 100) + "COMMIT;\n"
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := dump.Parse(strings.NewReader(text), dump.Full, 2, refusing{}); err != nil {
			b.Fatal(err)
		}
	}
}
