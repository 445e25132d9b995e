package ui

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Names from outside cannot drive the terminal.
func TestNamesCannotDriveTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain name":      "plain name",
		"öl":              "öl",
		"":                `""`,
		"red\x1b[31m":     `"red\x1b[31m"`,
		"line\nbreak":     `"line\nbreak"`,
		"not\xffutf8":     `"not\xffutf8"`,
		`say "hi"`:        `"say \"hi\""`,
		"right\u202eleft": `"right\u202eleft"`,
	} {
		if got := Quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
	var out bytes.Buffer
	u := &Printer{Out: &out, Err: &out}
	u.Warn("%s", "a\x1b]0;title\x07b\x9bc\nd")
	if got, want := out.String(), "vaultik: warning: a\\x1b]0;title\\ab\ufffdc\nd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableColumnsStandBelowEachOther(t *testing.T) {
	var out bytes.Buffer
	u := &Printer{Out: &out}
	u.Table([]string{"NAME", "<SIZE", "LAST"}, [][]string{{"ä", "1", "x"}, {"longer", "1,234", ""}})
	want := "NAME     SIZE  LAST\n" +
		"ä           1  x\n" +
		"longer  1,234\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestProgressLeavesNoTraceInWhatIsSaid(t *testing.T) {
	var out, err bytes.Buffer
	u := &Printer{Out: &out, Err: &err, Terminal: true}
	u.Progress("", "%s", strings.Repeat("x", 200))
	u.Say("done")
	if got := out.String(); got != "done\n" {
		t.Errorf("stdout %q", got)
	}
	if got := err.String(); !strings.HasSuffix(got, "\r\x1b[K") || strings.Count(got, "x") > 79 {
		t.Errorf("stderr %q", got)
	}
	for name, silent := range map[string]*Printer{"pipe": {Err: &err}, "quiet": {Err: &err, Terminal: true, Quiet: true}, "json": {Err: &err, Terminal: true, JSON: true}} {
		err.Reset()
		silent.Progress("", "x")
		if err.Len() > 0 {
			t.Errorf("%s: %q", name, err.String())
		}
	}
}

func TestAProgressLineFitsTheTerminal(t *testing.T) {
	for _, c := range []struct {
		columns    int
		path, want string
	}{
		{80, "/home/ann/letters/1.txt", "home: 12 entries  /home/ann/letters/1.txt"},
		{41, "/home/ann/letters/1.txt", "home: 12 entries  /home/ann/letters/1.txt"},
		{40, "/home/ann/letters/1.txt", "home: 12 entries  …ome/ann/letters/1.txt"},
		{26, "/home/ann/letters/1.txt", "home: 12 entries  …s/1.txt"},
		{25, "/home/ann/letters/1.txt", "home: 12 entries"},
		{10, "/home/ann/letters/1.txt", "home: 12 …"},
		{80, "", "home: 12 entries"},
		{26, "/home/写真/写真", "home: 12 entries  …真/写真"},
	} {
		got := fit("home: 12 entries", c.path, c.columns)
		if got != c.want || wide([]rune(got)) > c.columns {
			t.Errorf("%d columns, %s: got %q, want %q", c.columns, c.path, got, c.want)
		}
	}
	if got := columns(&bytes.Buffer{}); got != 80 {
		t.Errorf("what is no terminal has %d columns", got)
	}
}

// JSON from vaultik can be looked at in a terminal, and says what it said.
func TestJSONHoldsNothingATerminalObeys(t *testing.T) {
	var out bytes.Buffer
	u := &Printer{Out: &out, JSON: true}
	path := "a\x1b\u009b\u202e\u200b\U000e0001ö"
	u.Result(map[string]string{"path": path})
	want := `{"path":"a\u001b\u009b\u202e\u200b\udb40\udc01ö"}` + "\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["path"] != path {
		t.Errorf("read back: %q, %v", back["path"], err)
	}
}

// ^C stands on the line that the person left; what follows begins a new one.
func TestAnInterruptionEndsTheLineOnce(t *testing.T) {
	var err bytes.Buffer
	u := &Printer{Err: &err, Terminal: true}
	u.EndLine()
	u.EndLine()
	(&Printer{Err: &err}).EndLine()
	if err.String() != "\n" {
		t.Errorf("got %q", err.String())
	}
}
