package mountpoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime is how long a mount may take to answer a question to which no store
// is needed.
const answerTime = 2 * time.Second

// Where Linux shows connections to FUSE file systems, and processes.
const (
	connections = "/sys/fs/fuse/connections"
	processes   = "/proc"
)

// RemoveDead takes dead mounts (ErrDead) away from a folder, and nothing else.
// Whatever the folder holds itself appears, perhaps nothing: programs that
// take the mount for a source would see it empty. So this belongs right before
// mounting there again.
func RemoveDead(dir string) error {
	for {
		place, err := Check(dir)
		if !errors.Is(err, ErrDead) {
			return nil // what else is wrong, mounting says
		}
		if os.Geteuid() == 0 {
			err = unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		} else if out, failed := exec.Command("fusermount3", "-u", "-z", "--", place).CombinedOutput(); failed != nil {
			err = fmt.Errorf("fusermount3: %s: %w", strings.TrimSpace(string(out)), failed)
		} else {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("remove the dead mount on %q: %w", place, err)
		}
	}
}

// state asks what is up with a vaultik mount and returns ErrMounted, ErrDead
// or ErrHangs. A process that was killed and waits for its own mount can never
// end, and whoever looks into that mount waits with it; its connection is
// aborted, which is the end that the kill should have made.
func (m mountedFS) state() error {
	err, answered := ask(m.dir)
	if !answered && killed(m.connection) {
		if abort(m) != nil {
			return ErrHangs
		}
		err, answered = ask(m.dir)
	}
	switch {
	case !answered:
		return ErrHangs
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return ErrDead
	}
	return ErrMounted // if not open to this user, which is an error too
}

// ask asks a mount what its process has to answer. The goroutine stays behind
// if it never does: nothing can end such a call but the end of the connection.
func ask(dir string) (err error, answered bool) {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-answer:
		return err, true
	case <-time.After(answerTime):
		return nil, false
	}
}

// abort ends a connection: everything that waits for it fails. Its file is
// given to the user who mounted, but may not be there; root has another way.
func abort(m mountedFS) error {
	file := filepath.Join(connections, strconv.FormatUint(uint64(m.connection), 10), "abort")
	err := os.WriteFile(file, []byte("1"), 0)
	if err == nil || os.Geteuid() != 0 {
		return err
	}
	// MNT_FORCE aborts, then unmounts what is not in use. Being in use, the dead
	// mount stays where it is, and nobody takes an empty folder for it.
	fd, err := unix.Open(m.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unmount(m.dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// killed reports whether the process that serves a connection was killed.
// Kernels before 6.11 do not say which process that is; there it is any that
// was killed and still holds a connection.
func killed(connection uint32) bool {
	fds, _ := filepath.Glob(processes + "/[0-9]*/task/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "/dev/fuse" {
			continue
		}
		task := filepath.Dir(filepath.Dir(fd))
		info, err := os.ReadFile(filepath.Join(task, "fdinfo", filepath.Base(fd)))
		if err != nil {
			continue
		}
		if id := field(info, "fuse_connection:"); id != "" && id != strconv.FormatUint(uint64(connection), 10) {
			continue
		}
		if dying(filepath.Join(task, "status")) || dying(filepath.Join(filepath.Dir(filepath.Dir(task)), "status")) {
			return true
		}
	}
	return false
}

// dying reports whether a thread ended already, or has a SIGKILL to come.
func dying(file string) bool {
	status, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	if s := field(status, "State:"); strings.HasPrefix(s, "Z") || strings.HasPrefix(s, "X") {
		return true
	}
	for _, name := range []string{"SigPnd:", "ShdPnd:"} {
		if bits, err := strconv.ParseUint(field(status, name), 16, 64); err == nil && bits&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// field finds what follows name at the beginning of a line.
func field(text []byte, name string) string {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
