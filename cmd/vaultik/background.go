package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// readyVariable tells a process that it is the one in the background: it
// writes a byte to file descriptor readyFD when it is ready. A Go program
// cannot fork, so it starts itself once more.
const (
	readyVariable = "VAULTIK_BACKGROUND"
	readyFD       = 3
)

// inBackground starts this program again and returns when that one is ready,
// or has failed, in which case it has said why.
func (a *app) inBackground(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), readyVariable+"=1")
	// It keeps the terminal until it is ready: identity_command may ask.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start in the background: %w", err), theirs.Close())
	}
	theirs.Close()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err == nil {
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &exitError{code: exit.ExitCode()}
	}
	if err == nil {
		err = errors.New("it ended before it was ready")
	}
	return fmt.Errorf("in the background: %w", err)
}

// inherited are the files beyond the first three and the one to report to that
// whoever started this program had open: whatever Go opens is marked to be
// closed on exec. It is asked for before anything else may open files.
func inherited() ([]int, error) {
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

// detach lets go of the terminal, the session, the working folder and the
// caller's files, then tells the one in the foreground. Standard error becomes
// the log, if there is one.
func detach(log *mountLog, callers []int) error {
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
