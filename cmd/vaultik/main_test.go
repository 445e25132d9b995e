package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vaultik": main})
}

// The stories in testdata tell what a person sees. Each has a home of its own
// with an empty store next to it.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, v := range [][2]string{
				{"HOME", e.WorkDir},
				{"XDG_CONFIG_HOME", ""}, {"XDG_STATE_HOME", ""}, {"XDG_CACHE_HOME", ""},
				{"VAULTIK_CONFIG", e.WorkDir + "/vaultik.toml"},
				{"VAULTIK_STATE_DIR", e.WorkDir + "/state"},
				{"VAULTIK_CACHE_DIR", e.WorkDir + "/cache"},
				{"STORE", "file://" + e.WorkDir + "/store"},
				{"TZ", "UTC"},
			} {
				e.Setenv(v[0], v[1])
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "fuse":
				return canMount(), nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exitsWith, "setvar": setvar, "mode": mode, "flip": flip, "machine": machine, "hold": hold, "unmount": unmount,
			"buildage": buildAge, "await": await,
			"claim": claim, "certificate": certificate, "stored": stored, "tombstone": tombstone,
		},
	})
}

// canMount reports whether this machine has FUSE and lets this user use it.
// Users need fusermount3, which opens the device with their own rights.
func canMount() bool {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	_, err = exec.LookPath("fusermount3")
	return err == nil || os.Geteuid() == 0
}

// exits CODE COMMAND…: the command ends with that exit code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want := args[0]; want != fmt.Sprint(got) {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

// setvar NAME FILE [PREFIX]: the variable becomes the file's text, or what
// follows PREFIX on the first line that begins with it.
func setvar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: setvar NAME FILE [PREFIX]")
	}
	text := strings.TrimSpace(ts.ReadFile(args[1]))
	if len(args) == 3 {
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), args[2]); ok {
				ts.Setenv(args[0], strings.Trim(rest, "\" \n"))
				return
			}
		}
		ts.Fatalf("no line of %s begins with %q", args[1], args[2])
	}
	ts.Setenv(args[0], text)
}

// mode OCTAL PATH: the permission bits.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Lstat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("mode of %s is %s", args[1], got)
	}
}

// flip PATTERN: one bit in the middle of the one file changes.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s: %d files", args[0], len(found))
	}
	b, err := os.ReadFile(found[0])
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(found[0], 0o600))
	ts.Check(os.WriteFile(found[0], b, 0o600))
}

// machine NAME: from here on the story is on another machine of the same
// store.
func machine(ts *testscript.TestScript, _ bool, args []string) {
	home := filepath.Join(ts.Getenv("WORK"), args[0])
	ts.Check(os.MkdirAll(home, 0o755))
	ts.Setenv("HOME", home)
	ts.Setenv("VAULTIK_CONFIG", filepath.Join(home, "vaultik.toml"))
	ts.Setenv("VAULTIK_STATE_DIR", filepath.Join(home, "state"))
	ts.Setenv("VAULTIK_CACHE_DIR", filepath.Join(home, "cache"))
}

// hold DIR: another process holds the lock of the state folder to the end of
// the story.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	unlock, err := state.Lock(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(unlock)
}

// unmount DIR, now and in any case at the end of the story.
func unmount(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	if os.Geteuid() == 0 {
		// What the kernel still finishes on behalf of a program that has ended
		// keeps a mount busy for a moment.
		err := syscall.Unmount(dir, 0)
		for end := time.Now().Add(10 * time.Second); err == syscall.EBUSY && time.Now().Before(end); err = syscall.Unmount(dir, 0) {
			time.Sleep(10 * time.Millisecond)
		}
		ts.Check(err)
		return
	}
	ts.Check(ts.Exec("fusermount3", "-u", dir))
}

// await PATTERN: a file of such a name is there, or will be before long.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await PATTERN")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		if len(found) > 0 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("there is no %s", args[0])
		}
	}
}

// buildage DIR: builds the age program of the release that vaultik uses, and
// puts it in front of PATH.
func buildAge(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "filippo.io/age").Output()
	ts.Check(err)
	cmd := exec.Command("go", "install", "filippo.io/age/cmd/age@"+strings.TrimSpace(string(version)))
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("build age: %v\n%s", err, out)
	}
	ts.Setenv("PATH", dir+":"+ts.Getenv("PATH"))
}

// bench is a program in this process, for tests that look inside.
type bench struct {
	*app
	out, err bytes.Buffer
	vars     map[string]string
	dir      string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	b.vars = map[string]string{
		"HOME": b.dir, "VAULTIK_CONFIG": b.dir + "/vaultik.toml", "VAULTIK_STATE_DIR": b.dir + "/state", "VAULTIK_CACHE_DIR": b.dir + "/cache",
	}
	b.app = newApp()
	b.stdin, b.stdout, b.stderr = strings.NewReader(""), &b.out, &b.err
	b.env = func(name string) string { return b.vars[name] }
	b.hostname = func() (string, error) { return "ann.example.org", nil }
	b.now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	if err := os.Mkdir(b.dir+"/source", 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// vaultik runs the program and returns its exit code.
func (b *bench) vaultik(args ...string) int {
	b.out.Reset()
	b.err.Reset()
	return b.run(context.Background(), append([]string{"vaultik"}, args...))
}

func (b *bench) store() string { return "file://" + b.dir + "/store" }
