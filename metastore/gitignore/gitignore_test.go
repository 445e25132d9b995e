package gitignore

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPatternsMatchWhatTheManualSays(t *testing.T) {
	const yes, no = true, false
	for _, c := range []struct {
		pattern, path string
		dir, want     bool
	}{
		{"*.o", "main.o", false, yes},
		{"*.o", "a/b/main.o", false, yes},
		{"*.o", "main.o/x", false, no}, // the folder matches, and the caller stops there
		{"build", "x/build", false, yes},
		{"build/", "x/build", true, yes},
		{"build/", "x/build", false, no},
		{"/build", "build", false, yes},
		{"/build", "x/build", false, no},
		{"doc/*.txt", "doc/a.txt", false, yes},
		{"doc/*.txt", "x/doc/a.txt", false, no},
		{"doc/*.txt", "doc/x/a.txt", false, no},
		{"**/doc", "doc", true, yes},
		{"**/doc", "a/b/doc", true, yes},
		{"a/**", "a", true, no},
		{"a/**", "a/b/c", false, yes},
		{"a/**/b", "a/b", false, yes},
		{"a/**/b", "a/x/y/b", false, yes},
		{"a/**/b", "a/x/y/c", false, no},
		{"a/**/b/**/c", "a/b/x/b/y/c", false, yes},
		{"a/**/b/*/c", "a/b/x/b/y/c", false, yes},
		{"a**", "abc", false, yes},
		{"x/a**b", "x/a/b", false, no}, // beside other characters ** is only *
		{"?", "é", false, no},          // two bytes
		{"??", "é", false, yes},
		{"[a-c]x", "bx", false, yes},
		{"[!a-c]x", "bx", false, no},
		{"[^a-c]x", "dx", false, yes},
		{"[]-]", "]", false, yes},
		{"[]-]", "-", false, yes},
		{"[[:digit:]]", "7", false, yes},
		{"[\x80-\xff]*", "\xff\xfe", false, yes},
		{"x[/]y", "x/y", false, no},
		{`\*`, "*", false, yes},
		{`\*`, "a", false, no},
		{`\!x`, "!x", false, yes},
		{`\#x`, "#x", false, yes},
		{`x\ `, "x ", false, yes},
		{"x  ", "x", false, yes},
		{"a*b*c", "aXbYbZc", false, yes},
		{"a*b*c", "aXbYbZ", false, no},
		{"a\nb", "a\nb", false, yes},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		if got := p.Match(c.path, c.dir); got != c.want {
			t.Errorf("pattern %q matches %q (dir %t): %t, want %t", c.pattern, c.path, c.dir, got, c.want)
		}
	}
}

func TestPatternsThatCouldNeverMatchAreRefused(t *testing.T) {
	for pattern, reason := range map[string]string{
		"":               "names nothing",
		"   ":            "names nothing",
		"!":              "names nothing",
		"/":              "names nothing",
		"# remark":       `is a comment`,
		"a\x00b":         "NUL",
		`a\`:             "backslash",
		`a\/`:            "backslash",
		"[abc":           "has a [ without its ]",
		"[]":             "has a [ without its ]",
		`[\`:             "has a [ without its ]",
		"[a-":            "has a [ without its ]",
		"[[:nonsense:]]": "class",
		"a//b":           "empty name",
		"a//":            "empty name",
		"//a":            "empty name",
		"./a":            `"." or ".."`,
		"a/../b":         `"." or ".."`,
		`a/\./b`:         `"." or ".."`,
	} {
		if _, err := Parse(pattern); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: error %v, want one about %q", pattern, err, reason)
		}
	}
}

func TestPatternTellsHowItIsTied(t *testing.T) {
	type tied struct{ Negated, Rooted, OnName bool }
	for pattern, want := range map[string]tied{
		"a":    {OnName: true},
		"a/":   {OnName: true},
		"!a":   {OnName: true, Negated: true},
		"/a":   {Rooted: true},
		"!/a/": {Rooted: true, Negated: true},
		"a/b":  {},
	} {
		p, err := Parse(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tied{p.Negated(), p.Rooted(), p.OnName()}); diff != "" {
			t.Errorf("%q: %s", pattern, diff)
		}
	}
}

func TestPatternLeadsIntoAFolder(t *testing.T) {
	for _, c := range []struct {
		pattern, folder string
		want            bool
	}{
		{"/home/ann/.cache", "home/ann", true},
		{"/home/ann", "home/ann", true},
		{"/home/*/.cache", "home/ann", true},
		{"/home/**/x", "home/ann", true},
		{"/home", "home/ann", false},
		{"/home/bob/x", "home/ann", false},
		{"/*/x", "home", false},
		{"/**/x", "home", false},
		{"/.cache", "home/ann", false},
		{"/x", "", true},
		{"*.o", "home", false},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.LeadsInto(c.folder); got != c.want {
			t.Errorf("%q leads into %q: %t, want %t", c.pattern, c.folder, got, c.want)
		}
	}
}

// A pattern must neither crash the parser, nor keep the matcher busy, nor
// change its meaning when it is written down and read again.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{
		"*.o", "!/a/**/b/", "[[:alpha:]x-z]?", `\ \*`, "[!]-]", "a**b/***/c", "[a-\\]]", "[[:x]", "\xff[\x80-\xff]",
		"*a*a*a*a*a*a*a*a*a*b", "**/a/**/a/**/a/**/b", "/", "x ",
	} {
		f.Add(seed, strings.Repeat("a", 40))
		f.Add(seed, strings.Repeat("a/", 20)+"a")
	}
	f.Fuzz(func(t *testing.T, line, path string) {
		p, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("%q is a pattern, but %q is none: %v", line, p, err)
		}
		for _, dir := range []bool{false, true} {
			if p.Match(path, dir) != again.Match(path, dir) {
				t.Fatalf("%q and %q differ on %q", line, p, path)
			}
		}
		if p.Match(path, false) && !p.Match(path, true) {
			t.Fatalf("%q matches the file %q but not a directory of that name", p, path)
		}
	})
}

func BenchmarkMatchTwentyPatterns(b *testing.B) {
	var patterns []Pattern
	for _, line := range strings.Fields("*.o *.a *.so *.pyc node_modules/ .cache/ .git/ target/ *~ .#* *.sw? Thumbs.db .DS_Store core.[0-9]* lost+found *.tmp **/venv/lib /a/b /a/c/*.x tmp") {
		p, err := Parse(line)
		if err != nil {
			b.Fatal(err)
		}
		patterns = append(patterns, p)
	}
	for b.Loop() {
		for _, p := range patterns {
			if p.Match("some/folder/with/a-file-name.go", false) {
				b.Fatal("matched")
			}
		}
	}
}
