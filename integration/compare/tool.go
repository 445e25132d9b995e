package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tool is how to call one backup program. Everything that it keeps goes below
// a home folder of its own, the store into "store" there.
type tool struct {
	name, program string
	version       string
	versionArgs   []string
	env           func(home string) []string
	create        func(home, dir string) []string // arguments that make a store for backups of dir
	backup        func(home, dir string) []string
	restore       func(dst string) []string       // the newest backup; nil: not measured
	mount         func(home, dir string) []string // the newest backup, in the foreground; nil: not measured
}

func newVaultik() *tool {
	return &tool{
		name: "vaultik", versionArgs: []string{"version"},
		env: func(home string) []string {
			return []string{
				"VAULTIK_CONFIG=" + filepath.Join(home, "vaultik.toml"),
				"VAULTIK_STATE_DIR=" + filepath.Join(home, "state"),
				"VAULTIK_CACHE_DIR=" + filepath.Join(home, "cache"),
			}
		},
		create: func(home, dir string) []string {
			return []string{"init", "--store", "file://" + store(home), "--kit", filepath.Join(home, "kit.txt"), "--writer", "bench", dir}
		},
		backup: func(home, dir string) []string { return []string{"backup", "--quiet"} },
		restore: func(dst string) []string {
			return []string{"restore", "--identity", "kit.txt", "--quiet", "latest", dst}
		},
		mount: func(home, dir string) []string {
			return []string{"mount", "--identity", filepath.Join(home, "kit.txt"), "latest", dir}
		},
	}
}

func newRestic() *tool {
	return &tool{
		name: "restic", versionArgs: []string{"version"},
		env: func(home string) []string {
			return []string{
				"RESTIC_REPOSITORY=" + store(home), "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + filepath.Join(home, "cache"),
			}
		},
		create: func(home, dir string) []string { return []string{"init", "--quiet"} },
		backup: func(home, dir string) []string { return []string{"backup", "--quiet", dir} },
		// Its mount is not measured: cp takes ten times as long there.
		restore: func(dst string) []string { return []string{"restore", "--quiet", "latest", "--target", dst} },
	}
}

func newBorg() *tool {
	return &tool{
		name: "borg", versionArgs: []string{"--version"},
		env: func(home string) []string {
			return []string{"BORG_REPO=" + store(home), "BORG_PASSPHRASE=bench", "BORG_BASE_DIR=" + home}
		},
		create: func(home, dir string) []string { return []string{"init", "--encryption", "repokey"} },
		backup: func(home, dir string) []string {
			return []string{"create", fmt.Sprintf("::run-%d", time.Now().UnixNano()), dir}
		},
	}
}

// store is the folder whose size counts.
func store(home string) string { return filepath.Join(home, "store") }

// askVersion fills in the version, or fails if the program does not run.
func (t *tool) askVersion(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, t.program, t.versionArgs...).Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", t.program, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.version = strings.TrimPrefix(lines[0], t.name+" ")
	for _, l := range lines[1:] {
		if revision, ok := strings.CutPrefix(l, "revision "); ok {
			t.version += ", revision " + fmt.Sprintf("%.12s", strings.TrimSpace(revision))
		}
	}
	return nil
}

// command is the program with args in its home.
func (t *tool) command(ctx context.Context, home string, args []string) *exec.Cmd {
	cmd := command(ctx, t.program, args...)
	cmd.Dir = home
	cmd.Env = append(cmd.Env, "HOME="+home)
	cmd.Env = append(cmd.Env, t.env(home)...)
	return cmd
}

// command is a program in an environment that does not depend on who runs it,
// ended politely when ctx ends.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TMPDIR=" + os.TempDir()}
	return cmd
}

// fresh gives the tool an empty home with a new store for backups of dir.
func (t *tool) fresh(ctx context.Context, home, dir string) error {
	if err := os.RemoveAll(home); err != nil {
		return err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	return silently(t.command(ctx, home, t.create(home, dir)))
}

// silently runs a command and puts what it said into the error, if it fails.
func silently(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	return explained(cmd, err, out)
}

func explained(cmd *exec.Cmd, err error, out []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out[max(0, len(out)-4000):])
}
