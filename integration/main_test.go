package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// vaultik is the program under test, built once.
var vaultik string

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		os.Exit(crashMain())
	}
	dir, err := os.MkdirTemp("", "vaultik-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	vaultik = filepath.Join(dir, "vaultik")
	build := exec.Command("go", "build", "-tags", "sqlite_omit_load_extension", "-o", vaultik, "../cmd/vaultik")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build vaultik: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// machine is a computer with vaultik on it: its own home, config, state and
// cache, and a store that other machines may share.
type machine struct {
	t       *testing.T
	dir     string
	store   string
	env     []string
	mounts  []func() // unmount, once each
	serving int      // process of the newest mount
	as      []string // words before the program's name, to run it as somebody else
}

func newMachine(t *testing.T, store string, env ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	return &machine{t: t, dir: dir, store: store, env: append(append(os.Environ(),
		"HOME="+dir,
		"VAULTIK_CONFIG="+filepath.Join(dir, "vaultik.toml"),
		"VAULTIK_STATE_DIR="+filepath.Join(dir, "state"),
		"VAULTIK_CACHE_DIR="+filepath.Join(dir, "cache"),
		"VAULTIK_STORE=", "VAULTIK_IDENTITY=", "VAULTIK_IDENTITY_FILE=", "NO_COLOR=1",
	), env...)}
}

// becomeNobody runs vaultik as an ordinary user from now on, if the test runs
// as root, to whom nothing is unreadable.
func (m *machine) becomeNobody() {
	m.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	openFuse(m.t)
	m.as = []string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"}
	for p := m.dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		must(m.t, os.Chmod(p, 0o755))
	}
	must(m.t, os.Chmod(filepath.Dir(vaultik), 0o755))
	m.own(m.dir)
	if store, ok := strings.CutPrefix(m.store, "file://"); ok {
		for p := filepath.Dir(store); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
			must(m.t, os.Chmod(p, 0o777))
		}
	}
}

// openFuse lets every user open /dev/fuse, as Debian's udev rules do where
// there is udev.
func openFuse(t *testing.T) {
	t.Helper()
	info, err := os.Stat("/dev/fuse")
	must(t, err)
	if info.Mode().Perm() == 0o666 {
		return
	}
	must(t, os.Chmod("/dev/fuse", 0o666))
	t.Cleanup(func() { must(t, os.Chmod("/dev/fuse", info.Mode().Perm())) })
}

// look runs a stock program as whom the machine's vaultik runs, and returns
// what it says, be it an error.
func (m *machine) look(args ...string) string {
	m.t.Helper()
	line := append(slices.Clone(m.as), args...)
	out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return string(out)
}

// own gives a tree to whom the machine's vaultik runs as.
func (m *machine) own(path string) {
	m.t.Helper()
	if len(m.as) > 0 {
		tool(m.t, "chown", "-R", "nobody:nogroup", path)
	}
}

// kit is where the machine's recovery kit is written.
func (m *machine) kit() string { return filepath.Join(m.dir, "kit.txt") }

// init sets the machine up to back up paths.
func (m *machine) init(paths ...string) {
	m.t.Helper()
	m.run(append([]string{"init", "--store", m.store, "--kit", m.kit(), "--writer", "tester"}, paths...)...)
}

func (m *machine) command(args ...string) *exec.Cmd {
	line := append(append(slices.Clone(m.as), vaultik), args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir, cmd.Env = m.dir, m.env
	return cmd
}

// run must succeed; it returns what the program printed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	stdout, stderr, code := m.try(args...)
	if code != 0 {
		m.t.Fatalf("vaultik %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// fails must end with that exit code and say each of words on standard error.
func (m *machine) fails(code int, args []string, words ...string) {
	m.t.Helper()
	stdout, stderr, got := m.try(args...)
	if got != code {
		m.t.Fatalf("vaultik %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			m.t.Errorf("vaultik %s: the message lacks %q:\n%s", strings.Join(args, " "), w, stderr)
		}
	}
}

func (m *machine) try(args ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	cmd := m.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("run vaultik: %v", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// backup makes a snapshot and returns its id.
func (m *machine) backup(args ...string) string {
	m.t.Helper()
	m.run(append([]string{"backup", "--quiet"}, args...)...)
	return m.latest()
}

// latest is the id of the newest snapshot in the store.
func (m *machine) latest() string {
	m.t.Helper()
	ids := m.snapshots()
	if len(ids) == 0 {
		m.t.Fatal("the store has no snapshot")
	}
	return ids[len(ids)-1]
}

// mount mounts a snapshot, or the store if snapshot is "", until the test
// ends, and returns the mountpoint.
func (m *machine) mount(snapshot string, args ...string) string {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.dir, "mnt-")
	must(m.t, err)
	m.own(dir)
	args = append([]string{"mount", "--store", m.store, "--identity", m.kit()}, args...)
	if snapshot != "" {
		args = append(args, snapshot)
	}
	cmd := m.command(append(args, dir)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.serving = cmd.Process.Pid
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop := sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			m.t.Errorf("vaultik mount does not stop:\n%s", log.String())
			syscall.Unmount(dir, syscall.MNT_FORCE|syscall.MNT_DETACH)
			cmd.Process.Kill()
		}
	})
	m.mounts = append(m.mounts, stop)
	m.t.Cleanup(stop)
	for deadline := time.Now().Add(2 * time.Minute); !mounted(dir); {
		select {
		case err := <-done:
			done <- err
			m.t.Fatalf("vaultik %s: %v\n%s", strings.Join(args, " "), err, log.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("no mount at %s\n%s", dir, log.String())
		}
	}
	return dir
}

func mounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && bytes.Contains(mounts, []byte(" "+dir+" fuse"))
}

// stop unmounts what the machine mounted.
func (m *machine) stop() {
	m.t.Helper()
	for _, stop := range m.mounts {
		stop()
	}
	m.mounts = nil
}

// clone copies a machine and its store, a local folder; what it backs up
// stays where it is.
func (m *machine) clone() *machine {
	m.t.Helper()
	dir := m.t.TempDir()
	c := newMachine(m.t, "file://"+filepath.Join(dir, "store"))
	tool(m.t, "cp", "-a", strings.TrimPrefix(m.store, "file://"), filepath.Join(dir, "store"))
	for _, name := range []string{"state", "vaultik.toml", "kit.txt"} {
		tool(m.t, "cp", "-a", filepath.Join(m.dir, name), c.dir)
	}
	config, err := os.ReadFile(filepath.Join(c.dir, "vaultik.toml"))
	must(m.t, err)
	text := strings.ReplaceAll(string(config), filepath.Join(m.dir, "state"), filepath.Join(c.dir, "state"))
	must(m.t, os.WriteFile(filepath.Join(c.dir, "vaultik.toml"), []byte(strings.ReplaceAll(text, m.store, c.store)), 0o600))
	return c
}

// state is the folder of the machine's writer.
func (m *machine) state(name string) string { return filepath.Join(m.dir, "state/tester", name) }

// snapshots lists the ids of the store's snapshots, oldest first.
func (m *machine) snapshots() []string {
	m.t.Helper()
	var ids []string
	for line := range strings.Lines(m.run("snapshot", "list", "--json")) {
		var s struct {
			Type string `json:"message_type"`
			ID   string `json:"snapshot"`
		}
		must(m.t, json.Unmarshal([]byte(line), &s))
		if s.Type == "snapshot" {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// gateway starts a real S3 server and returns the URL of an empty store on it
// and the environment with its credentials.
func gateway(t *testing.T) (url string, env []string) {
	t.Helper()
	g := storetest.StartGateway(t, false)
	return "s3://" + g.Bucket + "/home?endpoint=" + g.Endpoint + "&region=" + g.Region + "&path_style=on",
		[]string{"AWS_ACCESS_KEY_ID=" + g.AccessKey, "AWS_SECRET_ACCESS_KEY=" + g.SecretKey}
}

// recipientOf is the recipient that the machine encrypts to.
func recipientOf(t *testing.T, m *machine) string {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(m.dir, "vaultik.toml"))
	must(t, err)
	r := regexp.MustCompile(`age1[a-z0-9]+`).FindString(string(config))
	if r == "" {
		t.Fatalf("no recipient in\n%s", config)
	}
	return r
}

// random makes a file of n bytes that no two calls share.
func random(t *testing.T, path string, n int) {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	write(t, path, string(b))
}

// tool runs a stock program, which must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// scan reads a tree.
func scan(t *testing.T, root string, look Look) Tree {
	t.Helper()
	tree, err := ScanTree(root, look)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// same compares two trees entry by entry.
func same(t *testing.T, what string, want, got Tree) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		if len(d) > 8000 {
			d = d[:8000] + "\n…"
		}
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

// write makes a file with its parent folders.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settle lets every time stamp made so far grow older than the two seconds
// within which a backup does not trust them.
func settle() { time.Sleep(2100 * time.Millisecond) }

// must is for calls that cannot fail unless the test itself is wrong.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: device nodes, owners and mounts")
	}
}
