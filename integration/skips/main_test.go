package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const pkg = "git.eeqj.de/sneak/vaultik/remote/dir"

func TestSkipsAreListedAndJudged(t *testing.T) {
	skip := func(name, why string) string {
		return `{"Action":"output","Package":"` + pkg + `","Test":"` + name + `","Output":"=== RUN   ` + name + `\n"}
{"Action":"output","Package":"` + pkg + `","Test":"` + name + `","Output":"    dir_test.go:9: ` + why + `\n"}
{"Action":"output","Package":"` + pkg + `","Test":"` + name + `","Output":"--- SKIP: ` + name + ` (0.00s)\n"}
{"Action":"skip","Package":"` + pkg + `","Test":"` + name + `"}
`
	}
	for _, c := range []struct {
		name, in, out string
		fails         bool
	}{
		{"packages", `{"Action":"output","Package":"` + pkg + `","Test":"TestX","Output":"said in passing\n"}
{"Action":"pass","Package":"` + pkg + `","Test":"TestX"}
{"Action":"output","Package":"` + pkg + `","Output":"PASS\n"}
{"Action":"output","Package":"` + pkg + `","Output":"ok  \t` + pkg + `\t1.0s\n"}
{"Action":"pass","Package":"` + pkg + `"}
{"Action":"skip","Package":"` + pkg + `/none"}
`, "ok  \t" + pkg + "\t1.0s\n", false},
		{"an expected skip", skip("TestWhatTheUserMayNotDoIsDenied", "root may do everything"),
			"skipped, as expected: " + pkg + ".TestWhatTheUserMayNotDoIsDenied: dir_test.go:9: root may do everything\n", false},
		{"a skip", skip("TestDisk", "no mount here"), "SKIPPED: " + pkg + ".TestDisk: dir_test.go:9: no mount here\n", true},
		{"a name that begins like an expected one", skip("TestWhatTheUserMayNotDoIsDeniedTwice", "x"),
			"SKIPPED: " + pkg + ".TestWhatTheUserMayNotDoIsDeniedTwice: dir_test.go:9: x\n", true},
		{"a failure", `{"Action":"output","Package":"` + pkg + `","Test":"TestX","Output":"    x_test.go:1: wrong\n"}
{"Action":"fail","Package":"` + pkg + `","Test":"TestX"}
`, "    x_test.go:1: wrong\n", false}, // go test's own exit code tells
		{"a test that ended with its package", `{"Action":"output","Package":"` + pkg + `","Test":"TestX","Output":"panic: oh\n"}
{"Action":"output","Package":"` + pkg + `","Output":"FAIL\t` + pkg + `\t1.0s\n"}
{"Action":"fail","Package":"` + pkg + `"}
`, "FAIL\t" + pkg + "\t1.0s\npanic: oh\n", false},
		{"a build that fails", `{"ImportPath":"` + pkg + `","Action":"build-output","Output":"x.go:1: syntax error\n"}
{"ImportPath":"` + pkg + `","Action":"build-fail"}
`, "x.go:1: syntax error\n", false},
		{"no JSON", "flag provided but not defined\n", "flag provided but not defined\n", false},
	} {
		var out bytes.Buffer
		err := report(strings.NewReader(c.in), &out)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.out, out.String()); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestTheCommandsExitCodeCounts(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"sh", "-c", "echo no packages; exit 1"}, &out); err == nil || out.String() != "no packages\n" {
		t.Errorf("%v, %q", err, &out)
	}
	if err := run([]string{"true"}, &out); err != nil {
		t.Error(err)
	}
}
