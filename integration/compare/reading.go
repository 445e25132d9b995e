package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What is measured of getting a tree back, each time into an empty folder in
// memory and with caches of the tool's own that are empty, too.
const (
	restored = "restore"
	copied   = "cp -a"
	tarred   = "tar to tar"
	synced   = "rsync -a"
)

// plain is a program that reads the tree itself.
const plain = "from disk"

// readers are the programs that read a mounted tree, from src to below dst.
var readers = []struct {
	step    string
	command func(src, dst string) []string
}{
	{copied, func(src, dst string) []string { return []string{"cp", "-a", src, dst} }},
	{tarred, func(src, dst string) []string {
		return []string{"sh", "-c", `tar -C "$1" -cf - . | tar -C "$2" -xf -`, "sh", src, dst}
	}},
	{synced, func(src, dst string) []string { return []string{"rsync", "-a", src, dst} }},
}

// reading measures how the tree at root comes back, which every tool has just
// backed up.
func (b *bench) reading(ctx context.Context, r *results, root string, tools []*tool) error {
	for _, t := range tools {
		if t.restore == nil {
			continue
		}
		if err := b.into(r, key{t.name, restored}, func(dst string) (sample, error) {
			return measure(t.command(ctx, b.home(t), t.restore(dst)))
		}); err != nil {
			return err
		}
	}
	for _, p := range readers {
		if _, err := exec.LookPath(p.command("", "")[0]); err != nil {
			continue
		}
		if err := b.into(r, key{plain, p.step}, func(dst string) (sample, error) {
			args := p.command(root, dst)
			return measure(command(ctx, args[0], args[1:]...))
		}); err != nil {
			return err
		}
		for _, t := range tools {
			if t.mount == nil {
				continue
			}
			if err := b.into(r, key{t.name, p.step}, func(dst string) (sample, error) {
				return b.mounted(ctx, t, func(mount string) []string { return p.command(filepath.Join(mount, root), dst) })
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// into measures something that fills a folder, which is removed again.
func (b *bench) into(r *results, k key, once func(dst string) (sample, error)) error {
	return b.measure(r, k, calm, func() (s sample, err error) {
		dst, err := os.MkdirTemp(b.target, "vaultik-compare-")
		if err != nil {
			return s, err
		}
		defer os.RemoveAll(dst)
		return once(dst)
	})
}

// mounted measures a program that reads a mount, from the moment at which the
// mount is asked for. What both use is added up; the peak is the mount's.
func (b *bench) mounted(ctx context.Context, t *tool, args func(mount string) []string) (s sample, err error) {
	home := b.home(t)
	mount := filepath.Join(home, "mount")
	if err := os.MkdirAll(mount, 0o700); err != nil {
		return s, err
	}
	if err := os.RemoveAll(filepath.Join(home, "cache")); err != nil {
		return s, err
	}
	server := t.command(ctx, home, t.mount(home, mount))
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	return measureAll(func() ([]*exec.Cmd, time.Duration, error) {
		start := time.Now()
		if err := server.Start(); err != nil {
			return nil, 0, err
		}
		err := untilMounted(mount)
		reader := args(mount)
		program := command(ctx, reader[0], reader[1:]...)
		if err == nil {
			err = silently(program)
		}
		wall := time.Since(start)
		if failed := unix.Unmount(mount, 0); failed != nil {
			server.Process.Signal(unix.SIGTERM) //nolint:errcheck // Wait tells
		}
		if failed := server.Wait(); failed != nil && err == nil {
			err = explained(server, failed, said.Bytes())
		}
		return []*exec.Cmd{server, program}, wall, err
	})
}

// untilMounted waits until another file system is mounted on a folder.
func untilMounted(dir string) error {
	var above, here unix.Stat_t
	for range 3000 {
		if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
			return err
		}
		if err := unix.Stat(dir, &here); err == nil && here.Dev != above.Dev {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("nothing was mounted on %s within 30 s", dir)
}
