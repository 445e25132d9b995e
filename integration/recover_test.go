package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
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

// A snapshot whose metadata are a full dump of one run and the difference to it
// of another comes back as well, with a folder that was renamed in between.
func TestStockToolsRecoverADifferentialDump(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	m := newMachine(t, "file://"+store)
	src := filepath.Join(m.dir, "source")
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 240 {
		// Names that do not compress: a full dump of less than 16 KiB has no differences.
		name := ""
		for range 15 {
			name += fmt.Sprintf("%016x", rng.Uint64())
		}
		write(t, filepath.Join(src, fmt.Sprintf("folder %d", i%20), name), fmt.Sprint("file ", i))
	}
	write(t, filepath.Join(src, "folder 3/edited"), "before")
	m.init("--x25519", src)
	settle()
	m.backup()
	before := scan(t, src, Look{Root: true})

	write(t, filepath.Join(src, "folder 3/edited"), "after")
	write(t, filepath.Join(src, "folder 4/added"), "new")
	must(t, os.Rename(filepath.Join(src, "folder 5"), filepath.Join(src, "renamed")))
	must(t, os.RemoveAll(filepath.Join(src, "folder 6")))
	must(t, os.Chmod(filepath.Join(src, "folder 7"), 0o700))
	m.backup()
	after := scan(t, src, Look{Root: true})

	if runs := dumpRuns(t, store, 1); !slices.Equal(runs, []remote.Seq{1}) {
		t.Errorf("the first manifest names dump parts of runs %d", runs)
	}
	if runs := dumpRuns(t, store, 2); !slices.Equal(runs, []remote.Seq{1, 2}) {
		t.Fatalf("the second manifest names dump parts of runs %d, want a full one and the difference to it", runs)
	}
	for run, want := range map[string]Tree{"1": before, "2": after} {
		dest := filepath.Join(t.TempDir(), "restored")
		tool(t, "sh", "../docs/recover.sh", m.kit(), store, "tester", run, dest)
		same(t, "what recover.sh restored of run "+run, want, scan(t, filepath.Join(dest, src), Look{Root: true}))
	}
}

// dumpRuns is which runs made the parts of a run's dump.
func dumpRuns(t *testing.T, store string, run remote.Seq) (runs []remote.Seq) {
	t.Helper()
	object, err := os.ReadFile(filepath.Join(store, remote.ManifestKey("tester", run)))
	must(t, err)
	manifest, err := remote.DecodeManifest(object)
	must(t, err)
	for _, d := range manifest.Dumps {
		runs = append(runs, d.Seq)
	}
	return slices.Compact(runs)
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

// withOneFile is a machine that has backed up a folder with one file in it.
func withOneFile(t *testing.T) (m *machine, store, src string) {
	t.Helper()
	store = filepath.Join(t.TempDir(), "store")
	m = newMachine(t, "file://"+store)
	src = filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "file"), "content")
	m.init("--x25519", src)
	m.backup()
	return m, store, src
}

// recover.sh believes nothing that is not signed.
func TestRecoverRefusesWhatIsNotSigned(t *testing.T) {
	m, store, _ := withOneFile(t)
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

// What is wrong with how recover.sh was called shows before it does anything,
// and leaves nothing behind.
func TestRecoverNoticesAMistakeAtOnce(t *testing.T) {
	m, store, src := withOneFile(t)
	m.backup()
	there := t.TempDir()
	// An age that knows no identity of its time, as Debian's is to a hybrid one.
	old := t.TempDir()
	must(t, os.WriteFile(filepath.Join(old, "age"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	temp := t.TempDir()
	for _, c := range []struct {
		name, writer, run, dest, path, says string
	}{
		{"a DEST that is there", "tester", "1", there, "", "DEST has to be a new folder"},
		{"a DEST in no folder", "tester", "1", filepath.Join(there, "no", "x"), "", "DEST has to be a new folder"},
		{"no such run", "tester", "7", filepath.Join(there, "x"), "", "no run 7 of tester in " + store + "; the last ones are 1 2\n"},
		{"no number", "tester", "newest", filepath.Join(there, "x"), "", "no run newest of tester"},
		{"no such writer", "nobody", "latest", filepath.Join(there, "x"), "", "no snapshot of nobody"},
		{"an old age", "tester", "1", filepath.Join(there, "x"), old + ":", "age cannot use the identity in " + m.kit()},
	} {
		cmd := exec.Command("sh", "../docs/recover.sh", m.kit(), store, c.writer, c.run, c.dest)
		cmd.Env = append(os.Environ(), "PATH="+c.path+os.Getenv("PATH"), "TMPDIR="+temp)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	for _, dir := range []string{there, temp} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	// A shell completes folders with a slash; TMPDIR may be relative.
	script, err := filepath.Abs("../docs/recover.sh")
	must(t, err)
	cmd := exec.Command("sh", script, m.kit(), store+"/", "tester/", "0000000002", "x")
	cmd.Dir = there
	must(t, os.Mkdir(filepath.Join(there, "temp"), 0o755))
	cmd.Env = append(os.Environ(), "TMPDIR=temp")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(there, "x", src, "file")); err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if left, err := os.ReadDir(filepath.Join(there, "temp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
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

// Of a key that was revoked, recover.sh believes what the revocation leaves.
func TestRecoverHonoursRevocations(t *testing.T) {
	m, store, src := withOneFile(t)
	write(t, filepath.Join(src, "file"), "changed")
	m.backup()
	write(t, filepath.Join(src, "file"), "a thief's")
	m.backup()
	m.run("key", "revoke", "tester", "--signer", "1", "--through", "2", "--kit", m.kit())
	recovers := func(run, says string) {
		t.Helper()
		dest := filepath.Join(t.TempDir(), "restored")
		out, err := exec.Command("sh", "../docs/recover.sh", m.kit(), store, "tester", run, dest).CombinedOutput()
		if (err == nil) != (says == "restored below") || !strings.Contains(string(out), says) {
			t.Errorf("run %s: %v, want it to say %q:\n%s", run, err, says, out)
		}
	}
	recovers("1", "restored below")
	recovers("2", "restored below")
	recovers("3", "is revoked: its manifest of run 3 is not trusted")

	// Another manifest of a run that counts, by the same key.
	key, err := os.ReadFile(m.state("signing.key"))
	must(t, err)
	thief, err := remote.ParseSigningKey(string(key))
	must(t, err)
	for seq := remote.Seq(1); seq <= 2; seq++ {
		at := filepath.Join(store, remote.ManifestKey("tester", seq))
		object, err := os.ReadFile(at)
		must(t, err)
		manifest, err := remote.DecodeManifest(object)
		must(t, err)
		manifest.Totals.Files++
		forged, err := manifest.Encode()
		must(t, err)
		for path, content := range map[string][]byte{at: forged, at + ".minisig": thief.Sign(forged, remote.ManifestComment("tester", seq))} {
			must(t, os.Remove(path))
			must(t, os.WriteFile(path, content, 0o600))
		}
		recovers(fmt.Sprint(uint64(seq)), "is not the manifest that the revocation names or leads to")
	}
	recovers("1", "is not the manifest that the revocation names or leads to")

	// Who may write to the store can copy the certificate to another number.
	for _, suffix := range []string{".pub", ".pub.minisig"} {
		tool(t, "cp", filepath.Join(store, "tester/signers/1"+suffix), filepath.Join(store, "tester/signers/8"+suffix))
	}
	recovers("3", "is revoked: its manifest of run 3 is not trusted")
}
