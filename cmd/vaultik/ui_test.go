package main

import (
	"bytes"
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
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
	var out bytes.Buffer
	u := &ui{stdout: &out, stderr: &out}
	u.warn("%s", "a\x1b]0;title\x07b\x9bc\nd")
	if got, want := out.String(), "vaultik: warning: a\\x1b]0;title\\ab\ufffdc\nd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableColumnsStandBelowEachOther(t *testing.T) {
	var out bytes.Buffer
	u := &ui{stdout: &out}
	u.table([]string{"NAME", "<SIZE", "LAST"}, [][]string{{"ä", "1", "x"}, {"longer", "1,234", ""}})
	want := "NAME     SIZE  LAST\n" +
		"ä           1  x\n" +
		"longer  1,234\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestProgressLeavesNoTraceInWhatIsSaid(t *testing.T) {
	var out, err bytes.Buffer
	u := &ui{stdout: &out, stderr: &err, terminal: true}
	u.progress("%s", strings.Repeat("x", 200))
	u.say("done")
	if got := out.String(); got != "done\n" {
		t.Errorf("stdout %q", got)
	}
	if got := err.String(); !strings.HasSuffix(got, "\r\x1b[K") || strings.Count(got, "x") > 79 {
		t.Errorf("stderr %q", got)
	}
	for name, silent := range map[string]*ui{"pipe": {stderr: &err}, "quiet": {stderr: &err, terminal: true, quiet: true}, "json": {stderr: &err, terminal: true, json: true}} {
		err.Reset()
		silent.progress("x")
		if err.Len() > 0 {
			t.Errorf("%s: %q", name, err.String())
		}
	}
}
