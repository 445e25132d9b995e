// Vaultik backs up a Linux machine to an object store and gives it back as an
// ordinary folder.
//
// This package is the command line and nothing else: it reads the config file,
// opens the store and the local files by hand, calls the packages that do the
// work, and turns their errors into messages and exit codes. Each verb is a
// file of its own, or a few that begin with its name. What verbs have in common
// and the rest of the program need not know is in the packages below. Results go
// to standard output, everything about the run (problems, progress, notes) to
// standard error, except that with --json a path's problem and the progress are
// results too; only main exits.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	cli.FlagStringer = flagHelp // the library has no other place for it
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	a := newApp()
	code := a.run(ctx, os.Args)
	stop()
	os.Exit(code)
}

// endings are the signals that ask the program to end in good order. A
// terminal that closes is one of them, or a mount would stay behind dead; not
// so under nohup(1), which has it ignored.
func endings() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// collectOften bounds the garbage beside what is held, until the returned
// function is called, unless the person has set GOGC. What backups and mounts
// hold is mostly large buffers, which cost a collector nothing to look at, and
// the machine has other work than this one.
func collectOften() (undo func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(25)
	// While little is held, a quarter of that is allocated in no time. This
	// counts as held and takes no memory, since it is never touched.
	ballast := make([]byte, 32<<20)
	return func() {
		runtime.KeepAlive(ballast)
		debug.SetGCPercent(before)
	}
}
