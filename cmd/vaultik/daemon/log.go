package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// LogFile is the log's name in the state folder.
const LogFile = "mount.log"

// logLimit is how many bytes make the log mount.log.old.
const logLimit = 1 << 20

// Log is where a mount in the background says what goes wrong once the
// terminal is out of reach: a file that all mounts of this user share. It is
// safe for concurrent use, also by several processes.
type Log struct {
	path  string
	about string // the mountpoint that every line names
	now   func() time.Time

	mu       sync.Mutex
	file     *os.File
	isStderr bool // file is standard error as well, for what the runtime says in a crash
}

// OpenLog opens the log in a state folder, or makes it. about is what every message
// begins with, now the time of it.
func OpenLog(folder, about string, now func() time.Time) (*Log, error) {
	if err := state.MakePrivate(folder); err != nil {
		return nil, err
	}
	l := &Log{path: filepath.Join(folder, LogFile), about: about, now: now}
	var err error
	if l.file, err = l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// Path is the log's file.
func (l *Log) Path() string { return l.path }

func (l *Log) open() (*os.File, error) {
	return os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Write implements io.Writer for one message at a time.
func (l *Log) Write(message []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.turn(); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(l.file, "%s %s: %s", ui.When(l.now()), ui.Quote(l.about), message); err != nil {
		return 0, err
	}
	return len(message), nil
}

// turn begins a new file when this one is full, or was moved by another mount.
// mu is held.
func (l *Log) turn() error {
	ours, err := l.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(l.path)
	if err == nil && os.SameFile(ours, there) {
		if ours.Size() < logLimit {
			return nil
		}
		if err := os.Rename(l.path, l.path+".old"); err != nil {
			return err
		}
	}
	f, err := l.open()
	if err != nil {
		return err
	}
	l.file.Close()
	l.file = f
	if l.isStderr {
		return unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
	}
	return nil
}

// becomeStderr makes the log the process's standard error.
func (l *Log) becomeStderr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isStderr = true
	return unix.Dup3(int(l.file.Fd()), int(os.Stderr.Fd()), 0)
}
