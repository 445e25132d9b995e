package fusefs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mountpoint refuses what cannot or must not be mounted on, and returns the
// place that dir leads to. It fails with io/fs.ErrNotExist, syscall.ENOTDIR,
// ErrMounted or ErrDead, with the place for these two, and does not hang where
// a vaultik mount does. A folder that is not empty is fine, as for any mount:
// what is in it comes back afterwards.
func Mountpoint(dir string) (string, error) {
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
		switch kind, err := mountedAt(dir); {
		case err != nil:
			return "", err
		case kind == fsType && alive(dir):
			return dir, fmt.Errorf("%q: %w", dir, ErrMounted)
		case kind == fsType:
			return dir, fmt.Errorf("%q: %w", dir, ErrDead)
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

// alive asks a mount a question that its process has to answer. The goroutine
// stays behind if it never does: nothing can end such a call but unmounting.
func alive(dir string) bool {
	answered := make(chan bool, 1)
	go func() {
		var st unix.Statfs_t
		answered <- unix.Statfs(dir, &st) == nil
	}()
	select {
	case ok := <-answered:
		return ok
	case <-time.After(2 * time.Second):
		return false
	}
}

// mountedAt returns the type of the file system mounted on dir last, "" if
// none is. dir is absolute and free of symbolic links.
func mountedAt(dir string) (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	kind := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kinds := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(kinds) > 0 && unescape(fields[4]) == dir {
			kind = kinds[0]
		}
	}
	return kind, lines.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
