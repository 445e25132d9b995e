package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debianSource unpacks the Linux source tree of a Debian package into dir, and
// installs the package first, if it is not there.
func debianSource(ctx context.Context, pkg, dir string) (string, error) {
	archive := "/usr/src/" + pkg + ".tar.xz"
	if _, err := os.Stat(archive); err != nil {
		if err := install(ctx, pkg); err != nil {
			return "", fmt.Errorf("%w\n(-source DIR takes another tree, -corpora leaves it out)", err)
		}
	}
	err := silently(command(ctx, "tar", "-xJf", archive, "-C", dir, "--strip-components=1", "--no-same-owner"))
	return dir, err
}

// install installs a Debian package with apt, as root or through sudo, and
// says so.
func install(ctx context.Context, pkg string) error {
	fmt.Fprintf(os.Stderr, "installing with apt: %s\n", pkg)
	var as []string
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("sudo"); err != nil {
			return fmt.Errorf("install %s as root, then try again", pkg)
		}
		as = []string{"sudo"}
	}
	for _, args := range [][]string{
		{"apt-get", "update", "-qq"}, // lists may be old or absent on a fresh machine
		{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg},
	} {
		line := append(as, args...)
		cmd := command(ctx, line[0], line[1:]...)
		cmd.Stdin = os.Stdin // sudo may ask
		if err := silently(cmd); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies an existing tree, because it will be edited.
func copyTree(ctx context.Context, from, dir string) (string, error) {
	return dir, silently(command(ctx, "cp", "-a", from+"/.", dir))
}

// someFiles is how many files the short form has in place of the Linux tree.
const someFiles = 3000

// someOfGo copies the first files of Go's own source tree, which is wherever
// this is built.
func someOfGo(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go's source tree: %w", err)
	}
	from := filepath.Join(strings.TrimSpace(string(out)), "src")
	n := 0
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if n++; n > someFiles {
			return filepath.SkipAll
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
	return dir, err
}
