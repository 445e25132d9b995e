package main

import (
	"os"
	"strings"
	"testing"
)

// On a machine with nothing set up, not even a home, the kit is enough, and
// nothing is left behind.
func TestTheKitIsEnoughWithoutAHome(t *testing.T) {
	b := newBench(t)
	if code := b.vaultik("init", "--store", b.store(), "--kit", b.dir+"/kit.txt", "--writer", "ann", b.dir+"/source"); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, b.err.String())
	}
	if code := b.vaultik("backup", "--tag", "first"); code != 0 {
		t.Fatalf("backup: exit code %d\n%s", code, b.err.String())
	}
	b.vars = map[string]string{}
	b.root = false
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"snapshot", "list", "--identity", b.dir + "/kit.txt"}, "ann-"},
		{[]string{"snapshot", "show", "latest", "--identity", b.dir + "/kit.txt"}, "first"},
		{[]string{"store", "info", "--identity", b.dir + "/kit.txt"}, "trusted"},
	} {
		if code := b.vaultik(c.args...); code != 0 || !strings.Contains(b.out.String(), c.says) {
			t.Errorf("vaultik %q: exit code %d\n%s%s", c.args, code, b.out.String(), b.err.String())
		}
		if !strings.Contains(b.err.String(), "cannot be remembered") {
			t.Errorf("vaultik %q does not say that a rollback would go unnoticed:\n%s", c.args, b.err.String())
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if code := b.vaultik("backup"); code != 1 || !strings.Contains(b.err.String(), "HOME is not set") {
		t.Errorf("backup: exit code %d\n%s", code, b.err.String())
	}
}
