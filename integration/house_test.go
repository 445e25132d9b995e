package integration

import (
	"errors"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "git.eeqj.de/sneak/vaultik/"

// The packages depend on each other in one direction, and each of the large
// libraries is behind one door. docs/DESIGN.md draws it.
func TestTheHouseKeepsItsDependencies(t *testing.T) {
	forbidden := []struct{ from, to string }{
		{"backup", "fs"}, {"fs", "backup"},
		{"metastore", "remote"}, {"remote", "metastore"},
		{"remote", "backup"}, {"remote", "fs"}, {"metastore", "backup"}, {"metastore", "fs"},
		{"metastore/dump", "metastore/index"}, {"metastore/dump", "metastore/view"}, {"metastore/view", "metastore/index"},
		{"metastore/index/clean", "metastore/index/snapshot"}, {"metastore/index/clean", "metastore/dump"}, {"metastore/index/clean", "metastore/view"},
		{"metastore/index/snapshot", "metastore/index/clean"}, {"metastore/index/snapshot", "metastore/view"},
		{"metastore/internal", "metastore/dump"}, {"metastore/internal", "metastore/index"}, {"metastore/internal", "metastore/view"},
		{"backup", "cmd"}, {"fs", "cmd"}, {"remote", "cmd"}, {"metastore", "cmd"},
		{"backup", "remote/s3"}, {"backup", "remote/dir"}, {"fs", "remote/s3"}, {"fs", "remote/dir"},
	}
	doors := map[string]string{
		"github.com/minio/minio-go":   "remote/s3",
		"github.com/hanwen/go-fuse":   "fs/fusefs",
		"github.com/mattn/go-sqlite3": "metastore",
	}
	out := tool(t, "go", "list", "-tags", "sqlite_omit_load_extension", "-f", `{{.ImportPath}}: {{join .Imports " "}}`, module+"...")
	imports := map[string][]string{}
	for line := range strings.Lines(out) {
		pkg, list, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok {
			imports[strings.TrimPrefix(pkg, module)] = strings.Fields(list)
		}
	}
	if len(imports) < 10 {
		t.Fatalf("go list shows only %d packages", len(imports))
	}
	if words := reach(imports, "metastore", map[string]bool{}); len(words) > 0 {
		t.Errorf("metastore has the words of the packages below it, and depends on %v", slices.Sorted(maps.Keys(words)))
	}
	for pkg := range imports {
		for dep := range reach(imports, pkg, map[string]bool{}) {
			for _, f := range forbidden {
				if in(pkg, f.from) && in(dep, f.to) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
		for _, dep := range imports[pkg] {
			if strings.HasPrefix(dep, "github.com/urfave/cli") && pkg != "cmd/vaultik" {
				t.Errorf("%s imports %s: only the program itself knows its command line", pkg, dep)
			}
			for library, door := range doors {
				if strings.HasPrefix(dep, library) && !in(pkg, door) {
					t.Errorf("%s imports %s, which belongs behind %s", pkg, dep, door)
				}
			}
		}
	}
}

// reach collects the module's packages that pkg depends on.
func reach(imports map[string][]string, pkg string, seen map[string]bool) map[string]bool {
	for _, dep := range imports[pkg] {
		if dep, ours := strings.CutPrefix(dep, module); ours && !seen[dep] {
			seen[dep] = true
			reach(imports, dep, seen)
		}
	}
	return seen
}

// in reports whether pkg is the package or below it.
func in(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// The program's identity handling never reaches the writer: nothing that
// package backup can call parses or holds an age identity of its own accord.
func TestBackupNeverMentionsIdentities(t *testing.T) {
	out, err := exec.Command("grep", "-rnE", `age\.(\w*Identity|Decrypt)|ParseIdentit`, "--include=*.go", "--exclude=*_test.go", "../backup").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 { // nothing found
		t.Errorf("package backup names identities, or grep cannot tell (%v):\n%s", err, out)
	}
}

// Whoever lists the top level sees the architecture, and nothing else.
func TestTheTopLevelIsTheArchitecture(t *testing.T) {
	rooms := []string{"LICENSE", "Makefile", "README.md", "backup", "cmd", "docs", "fs", "go.mod", "go.sum", "integration", "metastore", "remote"}
	for line := range strings.Lines(tool(t, "git", "-C", "..", "ls-files")) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "/")
		if !strings.HasPrefix(name, ".") && !slices.Contains(rooms, name) {
			t.Errorf("%s does not belong at the top level", strings.TrimSpace(line))
		}
	}
}
