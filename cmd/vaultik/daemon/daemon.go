// Package daemon is what it takes to stay in the background: a process that has let
// go of everything its caller may wait for, whose caller returns when it is ready or
// has failed, and a bounded log for what goes wrong later.
//
// What is done there is the caller's business, and so is when it ends: signals are
// not handled here.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// Variable, in the environment, tells a process that it is the one in the
// background: it calls Inherited and Detach. A Go program cannot fork, so it starts
// itself once more.
const Variable = "VAULTIK_BACKGROUND"

// readyFD is the file descriptor to which that process writes a byte when it is
// ready.
const readyFD = 3

// Start starts this program again, with the same arguments, and returns when that
// one is ready. code is the one with which it ended instead, having said why; 0 if
// it is ready, or if err says what went wrong.
func Start(ctx context.Context) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("start in the background: %w", err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start in the background: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), Variable+"=1")
	// It keeps the terminal until it is ready: identity_command may ask.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return 0, errors.Join(fmt.Errorf("start in the background: %w", err), theirs.Close())
	}
	theirs.Close()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err == nil {
		return 0, cmd.Process.Release()
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err == nil {
		err = errors.New("it ended before it was ready")
	}
	return 0, fmt.Errorf("in the background: %w", err)
}

// Inherited are the files beyond the first three and the one to report to that
// whoever started this program had open: whatever Go opens is marked to be
// closed on exec. It is asked for before anything else may open files.
func Inherited() ([]int, error) {
	// Else what identity_command leaves behind could hold it open, and keep the
	// one in the foreground waiting.
	unix.CloseOnExec(readyFD)
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd <= readyFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// Detach lets go of the terminal, the session, the working folder and the
// caller's files, then tells the one in the foreground. Standard error becomes
// the log; a nil log is none.
func Detach(log *Log, callers []int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("let go of the terminal: %w", err)
		}
	}
	if log != nil {
		if err := log.becomeStderr(); err != nil {
			return fmt.Errorf("let go of the terminal: %w", err)
		}
	}
	for _, fd := range callers {
		_ = unix.Close(fd) // one that an identity from /dev/fd closed already
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: leads a group already
		return fmt.Errorf("leave the session: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	ready := os.NewFile(readyFD, "ready")
	_, err = ready.Write([]byte{1})
	return errors.Join(err, ready.Close())
}

// HasTerminal reports whether a terminal controls this process.
func HasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// NotifyReady tells systemd, if it listens at an address, that a unit of Type=notify
// is ready: the value of NOTIFY_SOCKET, "" if nobody waits.
func NotifyReady(address string) error {
	if address == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd that the mount is ready: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		return fmt.Errorf("tell systemd that the mount is ready: %w", err)
	}
	return nil
}
