// Vaultik backs up a Linux machine to an object store and gives it back as an
// ordinary folder.
//
// This package is the command line and nothing else: it reads the config file,
// opens the store and the local files by hand, calls the packages that do the
// work, and turns their errors into messages and exit codes. Each verb is a
// file of its own. Results go to standard output, everything about the run
// (problems, progress, notes) to standard error, except that with --json a
// path's problem and the progress are results too; only main exits.
package main

import (
	"context"
	"os"
	"os/signal"
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
