package main

import (
	"errors"
	"fmt"
	"strings"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Errors that only the command line knows.
var (
	errIncomplete  = errors.New("some sources could not be read")
	errInterrupted = errors.New("interrupted")
)

// exits maps errors to exit codes, for all commands alike. They are ordered
// from harmless to grave: of several sets' codes the last one here counts. An
// error takes the gravest code that fits; one that fits none is a 1.
var exits = []struct {
	code    int
	meaning string
	errors  []error
}{
	{0, "done", nil},
	{3, "snapshot saved, but some sources could not be read; restored, but for some files", []error{errIncomplete}},
	{1, "failed, no snapshot; an audit: something is missing, damaged or too old", nil},
	{11, "locked: another run is at work on this machine", []error{state.ErrLocked}},
	{10, "no store there, out of reach, or not the one that init set up", []error{remote.ErrNoStore}},
	{12, "no identity, or none that matches", []error{kit.ErrNoIdentity, seal.ErrNoIdentity}},
	{13, "not trusted: a signature or the chain does not hold", []error{remote.ErrNotTrusted, remote.ErrMissing}},
	{130, "interrupted", []error{errInterrupted}},
}

// exitCode is the code that err ends the program with.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	for i := len(exits) - 1; i >= 0; i-- {
		for _, target := range exits[i].errors {
			if errors.Is(err, target) {
				return exits[i].code
			}
		}
	}
	return 1
}

// worse returns the graver of two exit codes.
func worse(a, b int) int {
	for i := len(exits) - 1; i >= 0; i-- {
		if exits[i].code == a || exits[i].code == b {
			return exits[i].code
		}
	}
	return 1
}

// exitHelp is the table as --help shows it, by number.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, code := range []int{0, 1, 3, 10, 11, 12, 13, 130} {
		for _, e := range exits {
			if e.code == code {
				fmt.Fprintf(&b, "  %3d  %s\n", e.code, e.meaning)
			}
		}
	}
	return b.String() + "Of several sets, the worst one's."
}

// exitError is an error that was told already, or whose code is decided.
type exitError struct {
	code int
	err  error // nil: everything was said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }
