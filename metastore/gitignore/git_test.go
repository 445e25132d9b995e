package gitignore

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// ignored is how git goes about it: the folders above come first and decide
// for all below them; otherwise the last pattern that matches does.
func ignored(patterns []Pattern, path string, dir bool) bool {
	if i := strings.LastIndexByte(path, '/'); i >= 0 && ignored(patterns, path[:i], true) {
		return true
	}
	for i := len(patterns) - 1; i >= 0; i-- {
		if patterns[i].Match(path, dir) {
			return !patterns[i].Negated()
		}
	}
	return false
}

// Random patterns over a tree of awkward names mean to this package what
// they mean to git.
func TestPatternsMeanWhatTheyMeanToGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	repo := t.TempDir()
	git := func(stdin []byte, args ...string) []byte {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = repo, bytes.NewReader(stdin)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); err != nil && !(asExit(err, &exit) && exit.ExitCode() == 1) {
			t.Fatalf("git %v: %v", args, err)
		}
		return out
	}
	git(nil, "init", "-q")

	dirs := []string{"a", "a/b", "a/b/a", "a/b/c", "b", "ab", "a/ab", "-", "a/]"}
	names := []string{"a", "b", "c", "ab", "aab", "abc", "a.b", "*", "[", "]", "a]", "\\", "!a", "#", "a ", " ", "-", "\xff", "\xc3\xa9", "a\nb", "A", "1"}
	isDir := map[string]bool{}
	var paths []string
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(repo, d), 0o755); err != nil {
			t.Fatal(err)
		}
		isDir[d] = true
		paths = append(paths, d)
	}
	for _, d := range append([]string{""}, dirs...) {
		for _, n := range names {
			path := strings.TrimPrefix(d+"/"+n, "/")
			if isDir[path] {
				continue
			}
			if err := os.WriteFile(filepath.Join(repo, path), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
	}
	stdin := []byte(strings.Join(paths, "\x00") + "\x00")

	atom := rapid.SampledFrom([]string{
		"a", "b", "c", "a", "b", "ab", "/", "/", "/", "*", "*", "?", "**", "**/", "/**/", "/**", `\*`, `\a`, `\[`, `\]`, `\\`, `\ `, " ", "!", "#", "-", ".",
		"[ab]", "[!a]", "[^a]", "[]]", "[!]]", "[a-c]", "[[:alpha:]]", "[[:punct:]]", "[^[:digit:]]", `[\]]`, "[a-]", "[-a]", "[[a]", "[[:a]", "[a/b]", "[\x80-\xff]", "\xff", "\xc3",
	})
	rapid.Check(t, func(t *rapid.T) {
		var file strings.Builder
		var patterns []Pattern
		for range rapid.IntRange(1, 4).Draw(t, "patterns") {
			line := strings.Join(rapid.SliceOfN(atom, 1, 6).Draw(t, "atoms"), "")
			if rapid.IntRange(0, 3).Draw(t, "negate") == 0 {
				line = "!" + line
			}
			p, err := Parse(line)
			if err != nil || starsAfterLiteral(p) {
				continue
			}
			patterns = append(patterns, p)
			file.WriteString(line + "\n")
		}
		if err := os.WriteFile(filepath.Join(repo, ".git/info/exclude"), []byte(file.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for path := range strings.SplitSeq(strings.TrimSuffix(string(git(stdin, "check-ignore", "--no-index", "-z", "--stdin")), "\x00"), "\x00") {
			if path != "" {
				want = append(want, path)
			}
		}
		for _, path := range paths {
			if ignored(patterns, path, isDir[path]) {
				got = append(got, path)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("patterns:\n%s(-git +here):\n%s", file.String(), diff)
		}
	})
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*exit = e
	return ok
}

// starsAfterLiteral finds the one case that is left out of the comparison.
// git compares the literal beginning of a path pattern on its own and then
// takes "**/" right behind it for the special one, although its manual says
// that beside other characters ** is an ordinary *.
func starsAfterLiteral(p Pattern) bool {
	i := strings.IndexAny(p.text, `*?[\`)
	return p.path && i > 0 && p.text[i-1] != '/' && strings.HasPrefix(p.text[i:], "**")
}
