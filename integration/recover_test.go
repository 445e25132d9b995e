package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// With the stock programs alone a snapshot comes back: Debian's age on a
// store with an X25519 recipient, a current age on a hybrid one.
func TestStockToolsRecoverASnapshot(t *testing.T) {
	for _, c := range []struct {
		name string
		init []string
		path func(t *testing.T) string // searched before PATH
	}{
		{"x25519 with the system's age", []string{"--x25519"}, func(*testing.T) string { return "" }},
		{"hybrid with a current age", nil, currentAge},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "store")
			m := newMachine(t, "file://"+store)
			src := filepath.Join(m.dir, "source")
			everyCase(t, src)
			m.init(append(c.init, src)...)
			m.backup()
			write(t, filepath.Join(src, "later"), "in the second snapshot only")
			id := m.backup()
			want := without(scan(t, src, Look{Root: true}), "s") // no stock tool makes sockets
			must(t, os.RemoveAll(filepath.Join(m.dir, "state")))

			dest := filepath.Join(t.TempDir(), "restored")
			cmd := exec.Command("sh", "../docs/recover.sh", m.kit(), store, "tester", "latest", dest)
			cmd.Env = append(os.Environ(), "PATH="+c.path(t)+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("recover.sh: %v\n%s", err, out)
			}
			if !strings.Contains(string(out), id) {
				t.Errorf("recover.sh does not name snapshot %s:\n%s", id, out)
			}
			same(t, "what recover.sh restored", want, scan(t, filepath.Join(dest, src), Look{Root: true}))
		})
	}
}

// currentAge builds the age program of the module that vaultik itself uses.
func currentAge(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	version := strings.TrimSpace(tool(t, "go", "list", "-m", "-f", "{{.Version}}", "filippo.io/age"))
	// Installed by version, it brings dependencies that vaultik has not.
	tool(t, "env", "GOBIN="+dir, "go", "install", "filippo.io/age/cmd/age@"+version)
	return dir
}

// recover.sh believes nothing that is not signed.
func TestRecoverRefusesWhatIsNotSigned(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	m := newMachine(t, "file://"+store)
	src := filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "file"), "content")
	m.init("--x25519", src)
	m.backup()
	for _, c := range []struct{ name, pattern, says string }{
		{"manifest", "tester/metadata/*/manifest.json.zst", "signature is wrong"},
		{"signature", "tester/metadata/*/manifest.json.zst.minisig", "signature is wrong"},
		{"dump", "tester/metadata/*/*.db.zst.age", "damaged"},
		{"blob", "tester/blobs/*/*", "LOST"},
		{"certificate", "tester/signers/1.pub.minisig", "certified"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := object(t, store, c.pattern)
			whole, err := os.ReadFile(path)
			must(t, err)
			flip(t, path)
			defer func() { must(t, os.WriteFile(path, whole, 0o600)) }()
			out, err := exec.Command("sh", "../docs/recover.sh", m.kit(), store, "tester", "1", filepath.Join(t.TempDir(), "x")).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("with a damaged %s: %v\n%s", c.name, err, out)
			}
		})
	}
}

// object is the one file of a store that a pattern names.
func object(t *testing.T, store, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(store, pattern))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%s: %d objects, want one: %v", pattern, len(found), found)
	}
	return found[0]
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, b, 0o600))
}
