package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func TestErrorsBecomeExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{errIncomplete, 3},
		{fmt.Errorf("open: %w", remote.ErrNoStore), 10},
		{fmt.Errorf("run: %w", state.ErrLocked), 11},
		{errMissingIdentity(), 12},
		{fmt.Errorf("open: %w", seal.ErrNoIdentity), 12},
		{errors.Join(errors.New("a gap"), remote.ErrNotTrusted), 13},
		{errors.Join(remote.ErrNotTrusted, remote.ErrNoStore), 13},
		{fmt.Errorf("%w: %w", errInterrupted, remote.ErrNoStore), 130},
		{remote.ErrCorrupt, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestTheWorstSetDecides(t *testing.T) {
	for _, c := range []struct{ a, b, want int }{
		{0, 0, 0}, {0, 3, 3}, {3, 1, 1}, {1, 10, 10}, {10, 12, 12}, {13, 3, 13}, {130, 13, 130},
	} {
		if got := worse(c.a, c.b); got != c.want {
			t.Errorf("worse(%d, %d) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := worse(c.b, c.a); got != c.want {
			t.Errorf("worse(%d, %d) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestHelpListsEveryExitCode(t *testing.T) {
	b := newBench(t)
	if code := b.vaultik("--help"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, b.err.String())
	}
	for _, e := range exits {
		if line := fmt.Sprintf("%3d  %s", e.code, e.meaning); !strings.Contains(b.out.String(), line) {
			t.Errorf("--help lacks %q:\n%s", line, b.out.String())
		}
	}
}

// A command that the person interrupts says so, whatever error that made.
func TestInterruptedIs130(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := b.run(ctx, []string{"vaultik", "init", "--store", b.store(), b.dir + "/source"}); code != 130 {
		t.Errorf("exit code %d, want 130\n%s", code, b.err.String())
	}
	if got := b.err.String(); strings.Contains(got, context.Canceled.Error()) {
		t.Errorf("it tells of its insides: %s", got)
	}
}

// An interrupted backup says what is with it, and nothing of what was going on.
func TestAnInterruptedBackupSaysThatNothingIsLost(t *testing.T) {
	b := newBench(t)
	if code := b.vaultik("init", "--store", b.store(), "--kit", b.dir+"/kit.txt", b.dir+"/source"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, b.err.String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.now = func() time.Time { cancel(); return time.Unix(1_800_000_000, 0) } // asked for when the run starts
	b.err.Reset()
	code := b.run(ctx, []string{"vaultik", "backup"})
	want := "vaultik: error: interrupted: set default was not finished; what was uploaded is kept, and the next run goes on from there\n"
	if code != 130 || b.err.String() != want {
		t.Errorf("exit code %d, %q", code, b.err.String())
	}
}
