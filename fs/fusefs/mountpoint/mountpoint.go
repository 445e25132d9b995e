// Package mountpoint is about folders that something is to be mounted on: what
// lies there, whether its process lives, and how to take away what is dead.
//
// Nobody may take a mount that is missing for a folder that is empty. So nothing
// that is alive, or merely slow, is touched, and a mount whose process is gone
// stays until its successor is ready. Looking at a mount can hang as long as its
// process does; this package asks without waiting for more than seconds.
package mountpoint

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Errors of Check.
var (
	// ErrMounted: the folder is a vaultik mount already.
	ErrMounted = errors.New("already a vaultik mount")
	// ErrDead: a vaultik mount whose process is gone lies there. Nobody can
	// look into it: all is ENOTCONN.
	ErrDead = errors.New("a vaultik mount whose process is gone")
	// ErrHangs: a vaultik mount lies there whose process does not answer.
	ErrHangs = errors.New("a vaultik mount that hangs")
)

const fsType = "fuse.vaultik" // in /proc/mounts

// Check refuses what cannot or must not be mounted on, and returns the
// place that dir leads to. It fails with io/fs.ErrNotExist, syscall.ENOTDIR,
// ErrMounted, ErrDead or ErrHangs, with the place for these three, and does not
// hang where a vaultik mount does; one whose process was killed and cannot end
// is helped to end. A folder that is not empty is fine, as for any mount: what
// is in it comes back afterwards.
func Check(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for range 40 { // symbolic links, as the kernel counts them
		parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
		if err != nil {
			return "", fmt.Errorf("mountpoint: %w", err)
		}
		dir = filepath.Join(parent, filepath.Base(dir))
		// First, because looking at a mount whose process hangs would hang too.
		switch m, err := mountOn(dir); {
		case err != nil:
			return "", err
		case m.kind == fsType:
			return dir, fmt.Errorf("%q: %w", dir, m.state())
		}
		i, err := os.Lstat(dir)
		if err != nil {
			return "", fmt.Errorf("mountpoint: %w", err)
		}
		if i.IsDir() {
			return dir, nil
		}
		target, err := os.Readlink(dir)
		if err != nil {
			return "", fmt.Errorf("mountpoint %q: %w", dir, syscall.ENOTDIR)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(parent, target)
		}
		dir = target
	}
	return "", fmt.Errorf("mountpoint %q: %w", dir, syscall.ELOOP)
}

// mountedFS is a file system in the mount table.
type mountedFS struct {
	dir, kind  string
	connection uint32 // of a FUSE file system: its number in fusectl, and the minor number of its device
}

// mountOn finds the file system mounted on dir last; its kind is "" if none
// is. dir is absolute and free of symbolic links.
func mountOn(dir string) (mountedFS, error) {
	m := mountedFS{dir: dir}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return m, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kinds := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(kinds) > 0 && unescape(fields[4]) == dir {
			_, minor, _ := strings.Cut(fields[2], ":")
			n, err := strconv.ParseUint(minor, 10, 32)
			if err != nil {
				return m, fmt.Errorf("mount table: device %q of %q: %w", fields[2], dir, err)
			}
			m.kind, m.connection = kinds[0], uint32(n)
		}
	}
	return m, lines.Err()
}

// Mounted reports whether what is mounted on dir last is a vaultik mount.
func Mounted(dir string) (bool, error) {
	m, err := mountOn(dir)
	return m.kind == fsType, err
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
