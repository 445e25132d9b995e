package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

// backedUp is a machine with one snapshot of a small folder.
func backedUp(t *testing.T) (m *machine, src string) {
	m = newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src = filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "file"), strings.Repeat("content\n", 1000))
	m.init(src)
	m.backup()
	return m, src
}

// storeFolder is the folder of a local store.
func (m *machine) storeFolder() string { return strings.TrimPrefix(m.store, "file://") }

// bytesOf sums up every file below a folder.
func bytesOf(t *testing.T, folder string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	must(t, filepath.WalkDir(folder, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		sums[p] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	}))
	return sums
}

// Whatever is wrong with store, keys or config: a clear message, the right
// exit code, and nothing changed.
func TestWhatIsWrongIsRefused(t *testing.T) {
	base, src := backedUp(t)
	const manifest, signature = "tester/metadata/0000000001/manifest.json.zst", "tester/metadata/0000000001/manifest.json.zst.minisig"
	mount := func(m *machine) []string {
		return []string{"mount", "--identity", m.kit(), "latest", mountpoint(t, m)}
	}
	backup := func(*machine) []string { return []string{"backup"} }
	list := func(*machine) []string { return []string{"snapshot", "list"} }
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, m *machine)
		args  func(m *machine) []string
		code  int
		says  []string
	}{
		{"wrong identity", func(t *testing.T, m *machine) {
			id, err := age.GenerateHybridIdentity()
			must(t, err)
			must(t, os.WriteFile(m.kit(), []byte(id.String()+"\n"), 0o600))
		}, mount, 12, []string{"identity"}},
		{"flipped byte in the dump", func(t *testing.T, m *machine) {
			flip(t, object(t, m.storeFolder(), "tester/metadata/*/*.db.zst.age"))
		}, mount, 1, []string{".db.zst.age"}},
		{"flipped byte in the manifest", func(t *testing.T, m *machine) {
			flip(t, filepath.Join(m.storeFolder(), manifest))
		}, mount, 13, []string{"manifest.json.zst", "signature"}},
		{"flipped byte in the signature", func(t *testing.T, m *machine) {
			flip(t, filepath.Join(m.storeFolder(), signature))
		}, mount, 13, []string{"manifest.json.zst"}},
		{"missing signature", func(t *testing.T, m *machine) {
			must(t, os.Remove(filepath.Join(m.storeFolder(), signature)))
		}, mount, 13, []string{"signature"}},
		{"manifest copied under another seq", func(t *testing.T, m *machine) {
			to := filepath.Join(m.storeFolder(), "tester/metadata/0000000002")
			tool(t, "cp", "-r", filepath.Join(m.storeFolder(), "tester/metadata/0000000001"), to)
			must(t, os.RemoveAll(filepath.Join(m.storeFolder(), "tester/metadata/0000000001")))
		}, list, 13, []string{"0000000002"}},
		{"manifest copied under another writer", func(t *testing.T, m *machine) {
			tool(t, "mv", filepath.Join(m.storeFolder(), "tester"), filepath.Join(m.storeFolder(), "other"))
		}, list, 13, []string{"other"}},
		{"unknown signer", func(t *testing.T, m *machine) {
			stranger, err := remote.GenerateSigningKey(nil)
			must(t, err)
			resign(t, m, stranger, func(text string) string { return text })
		}, mount, 13, []string{"tester"}},
		{"certificate of another root key", func(t *testing.T, m *machine) {
			root, err := remote.GenerateSigningKey(nil)
			must(t, err)
			pub, err := os.ReadFile(filepath.Join(m.storeFolder(), "tester/signers/1.pub"))
			must(t, err)
			key, err := remote.ParsePublicKey(string(pub))
			must(t, err)
			sig := remote.SignCertificate(root, remote.Certificate{N: 1, Key: key, Role: remote.RoleWriter, Writer: "tester", From: 1})
			must(t, os.WriteFile(filepath.Join(m.storeFolder(), "tester/signers/1.pub.minisig"), sig, 0o600))
		}, mount, 13, []string{"tester"}},
		{"unknown format", func(t *testing.T, m *machine) {
			resign(t, m, signingKey(t, m), func(s string) string { return strings.Replace(s, `"format":1`, `"format":2`, 1) })
		}, mount, 1, []string{"format"}},
		{"unknown requirement", func(t *testing.T, m *machine) {
			resign(t, m, signingKey(t, m), func(s string) string {
				return strings.Replace(s, `"requires":[]`, `"requires":["time-travel"]`, 1)
			})
		}, mount, 1, []string{"time-travel"}},
		{"store missing", func(t *testing.T, m *machine) { must(t, os.RemoveAll(m.storeFolder())) }, backup, 10, []string{"store"}},
		{"store unreachable", func(t *testing.T, m *machine) {
			m.env = append(m.env, "VAULTIK_STORE=s3://bucket/x?endpoint=http://127.0.0.1:9&path_style=on", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b")
		}, list, 10, []string{"127.0.0.1:9"}},
		{"store emptied", func(t *testing.T, m *machine) {
			must(t, os.RemoveAll(filepath.Join(m.storeFolder(), "tester/metadata")))
		}, backup, 1, []string{"run 1"}},
		{"config with a typo", func(t *testing.T, m *machine) {
			path := filepath.Join(m.dir, "vaultik.toml")
			config, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte("recipents = []\n"+string(config)), 0o600))
		}, backup, 1, []string{"vaultik.toml:1:", "recipients"}},
		{"mountpoint missing", func(*testing.T, *machine) {}, func(m *machine) []string {
			return []string{"mount", "--identity", m.kit(), "latest", filepath.Join(m.dir, "nowhere")}
		}, 1, []string{"nowhere"}},
		{"mountpoint inside the store", func(t *testing.T, m *machine) {
			must(t, os.Mkdir(filepath.Join(m.storeFolder(), "mnt"), 0o755))
		}, func(m *machine) []string {
			return []string{"mount", "--identity", m.kit(), "latest", filepath.Join(m.storeFolder(), "mnt")}
		}, 1, []string{"store"}},
		{"mountpoint inside the source", func(t *testing.T, m *machine) {
			must(t, os.MkdirAll(filepath.Join(src, "mnt"), 0o755))
		}, func(m *machine) []string {
			return []string{"mount", "--identity", m.kit(), "latest", filepath.Join(src, "mnt")}
		}, 1, []string{"mnt", "is inside what set"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := base.clone()
			c.spoil(t, m)
			args := c.args(m)
			before := bytesOf(t, m.dir)
			m.fails(c.code, args, c.says...)
			after := bytesOf(t, m.dir)
			for _, volatile := range []string{"seen.json", "index.db-shm", "index.db-wal", "lock"} {
				for _, sums := range []map[string]string{before, after} {
					for p := range sums {
						if filepath.Base(p) == volatile {
							delete(sums, p)
						}
					}
				}
			}
			if d := cmp.Diff(before, after); d != "" {
				t.Errorf("something changed (-before +after):\n%s", d)
			}
		})
	}
}

// mountpoint is a folder to mount on.
func mountpoint(t *testing.T, m *machine) string {
	t.Helper()
	dir := filepath.Join(m.dir, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	return dir
}

func signingKey(t *testing.T, m *machine) remote.SigningKey {
	t.Helper()
	text, err := os.ReadFile(m.state("signing.key"))
	must(t, err)
	key, err := remote.ParseSigningKey(string(text))
	must(t, err)
	return key
}

// resign changes the manifest's text and signs it with key.
func resign(t *testing.T, m *machine, key remote.SigningKey, change func(string) string) {
	t.Helper()
	path := filepath.Join(m.storeFolder(), remote.ManifestKey("tester", 1))
	text := tool(t, "zstd", "-dqc", path)
	plain := filepath.Join(t.TempDir(), "manifest")
	must(t, os.WriteFile(plain, []byte(change(text)), 0o600))
	must(t, os.Chmod(path, 0o600))
	tool(t, "zstd", "-qf", plain, "-o", path)
	object, err := os.ReadFile(path)
	must(t, err)
	sig := key.Sign(object, remote.ManifestComment("tester", 1))
	must(t, os.Chmod(path+".minisig", 0o600))
	must(t, os.WriteFile(path+".minisig", sig, 0o600))
}

// A flipped byte in a blob costs the files in it: reading them fails, always,
// and never gives other bytes. Everything else goes on.
func TestADamagedBlobIsNeverServed(t *testing.T) {
	m, src := backedUp(t)
	damaged := object(t, m.storeFolder(), "tester/blobs/*/*")
	random(t, filepath.Join(src, "other"), 100_000)
	id := m.backup()
	flip(t, damaged)
	mnt := filepath.Join(m.mount(id), src)
	for range 3 {
		if _, err := os.ReadFile(filepath.Join(mnt, "file")); !errors.Is(err, syscall.EIO) {
			t.Errorf("reading the damaged file: %v, want EIO", err)
		}
	}
	want, err := os.ReadFile(filepath.Join(src, "other"))
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(mnt, "other")); err != nil || string(got) != string(want) {
		t.Errorf("the other file does not come back: %v", err)
	}
}

// An index brought back from an old copy, or a second copy of it in use, is
// noticed before anything is written over.
func TestAnOldOrClonedIndexIsNoticed(t *testing.T) {
	m, src := backedUp(t)
	old := filepath.Join(t.TempDir(), "state")
	tool(t, "cp", "-a", filepath.Join(m.dir, "state"), old)
	write(t, filepath.Join(src, "second"), "run")
	m.backup()
	before := bytesOf(t, m.storeFolder())
	must(t, os.RemoveAll(filepath.Join(m.dir, "state")))
	tool(t, "cp", "-a", old, filepath.Join(m.dir, "state"))
	m.fails(1, []string{"backup"}, "old copy", "init")
	if d := cmp.Diff(before, bytesOf(t, m.storeFolder())); d != "" {
		t.Errorf("the store changed:\n%s", d)
	}
}

// While one backup runs, a second one says so and leaves.
func TestASecondBackupAtTheSameTimeIsRefused(t *testing.T) {
	m, src := backedUp(t)
	random(t, filepath.Join(src, "large"), 400<<20)
	first := m.command("backup", "--quiet")
	must(t, first.Start())
	for !opened(t, first.Process.Pid, m.state("index.db")) { // which comes after the lock
	}
	must(t, first.Process.Signal(syscall.SIGSTOP)) // in the middle of the large file
	m.fails(11, []string{"backup"}, "another run")
	must(t, first.Process.Signal(syscall.SIGCONT))
	must(t, first.Wait())
	m.backup() // and afterwards it may
}

// opened reports whether a process has a file open.
func opened(t *testing.T, pid int, path string) bool {
	t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	must(t, err) // the process has ended otherwise
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil && to == path {
			return true
		}
	}
	return false
}

// Nothing that init and backup leave on the machine opens a blob or a dump.
func TestTheHostHoldsNoDecryptionKey(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	write(t, filepath.Join(m.dir, "source/file"), "content")
	m.init("--x25519", filepath.Join(m.dir, "source")) // which the system's age reads
	m.backup()
	kit := filepath.Join(t.TempDir(), "kit")
	must(t, os.Rename(m.kit(), kit))
	blob := object(t, m.storeFolder(), "tester/blobs/*/*")
	dump := object(t, m.storeFolder(), "tester/metadata/*/*.db.zst.age")
	tool(t, "age", "-d", "-i", kit, "-o", "/dev/null", blob) // the kit does
	files := 0
	must(t, filepath.WalkDir(m.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		t.Log("left on the machine: ", strings.TrimPrefix(p, m.dir))
		for _, object := range []string{blob, dump} {
			if out, err := exec.Command("age", "-d", "-i", p, "-o", "/dev/null", object).CombinedOutput(); err == nil {
				t.Errorf("%s opens %s\n%s", p, object, out)
			}
		}
		content, err := os.ReadFile(p)
		if strings.Contains(strings.ToUpper(string(content)), "AGE-SECRET-KEY") {
			t.Errorf("%s holds an identity", p)
		}
		return err
	}))
	if files < 4 {
		t.Errorf("only %d files looked at", files)
	}
}
