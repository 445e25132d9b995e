package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// ErrLocked says that another run works with the state folder.
var ErrLocked = errors.New("another run is at work")

// Lock makes sure that one run at a time works with the state folder. The
// kernel lets go of it when the process ends, however it ends, so a lock is
// never stale. The file stays and names the last holder. state is the folder,
// which is made if need be; ErrLocked says that somebody else holds the lock.
func Lock(state string) (unlock func(), err error) {
	if err := MakePrivate(state); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	path := filepath.Join(state, LockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
		holder := "another process"
		if b, err := io.ReadAll(io.LimitReader(f, 64)); err == nil {
			if pid := strings.TrimSpace(string(b)); pid != "" {
				holder = "process " + ui.Quote(pid)
			}
		}
		return nil, fmt.Errorf("%w: %s holds %q; wait until it is done", ErrLocked, holder, path)
	}
	// An init that failed may have removed the file while this one was opened.
	mine, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("look at the lock: %w", err)
	}
	if there, err := os.Stat(path); err != nil || !os.SameFile(mine, there) {
		f.Close()
		return Lock(state)
	}
	// Who looks while it is being written sees an old holder's number or
	// none: it serves people only.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write the lock: %w", err)
	}
	return func() { f.Close() }, nil
}
