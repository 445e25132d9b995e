package integration

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/backup/localfs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/seal"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// crashEnv makes the test binary a backup that kills itself at the given
// point: each call of the store and each commit of the index is two points,
// one before and one after.
const crashEnv = "VAULTIK_TEST_CRASH_AT"

// survived is the exit code of a backup that got through before its point.
const survived = 7

// crashMain is that backup. Its arguments are those of crashBackup.
func crashMain() int {
	at, err := strconv.ParseInt(os.Getenv(crashEnv), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	args := strings.Split(os.Getenv(crashEnv+"_ARGS"), "\n")
	var points atomic.Int64
	point := func() {
		if points.Add(1) == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
	if err := crashBackup(args[0], args[1], args[2], args[3], point); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return survived
}

// crashBackup is what "vaultik backup" does, with the points wired in.
func crashBackup(store, state, recipient, source string, point func()) (err error) {
	ctx := context.Background()
	d, err := dir.Open(store)
	if err != nil {
		return err
	}
	s := storetest.NewFaulty(d)
	s.OnCall = func(int, string, string) { point() }
	key, err := os.ReadFile(filepath.Join(state, "signing.key"))
	if err != nil {
		return err
	}
	signer, err := remote.ParseSigningKey(string(key))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(state, "chunker.secret"))
	if err != nil {
		return err
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	index, err := metastore.OpenIndex(ctx, filepath.Join(state, "index.db"), metastore.Options{OnCommit: point})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	_, err = backup.Run(ctx, backup.Config{
		Store: s, Index: index, Source: disk, Writer: "tester", Hostname: "host", Version: "test",
		Recipients: []string{recipient}, Signer: signer,
		Chunking: metastore.Chunking{Algorithm: "fastcdc-v1.0.0", Min: 256 << 10, Avg: 1 << 20, Max: 4 << 20, Secret: secret},
		Level:    seal.Default, BlobSize: 1 << 20, Now: time.Now,
	}, backup.Set{Name: "default", Roots: []string{source}})
	return err
}

// Killed at any call of the store and any commit of the index, a backup loses
// nothing: earlier snapshots stay, the next run makes a whole one, and it does
// not upload again what the index had confirmed.
func TestKilledAnywhereNothingIsLost(t *testing.T) {
	base := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(base.dir, "source")
	for i := range 12 {
		write(t, filepath.Join(src, fmt.Sprintf("folder %d/file", i%4), fmt.Sprint(i)), strings.Repeat(fmt.Sprintln("file", i), 1000*i))
	}
	random(t, filepath.Join(src, "large"), 3<<20)
	base.init(src)
	first, before := base.backup(), scan(t, src, Look{Root: true})
	recipient := recipientOf(t, base)

	must(t, os.RemoveAll(filepath.Join(src, "folder 1")))
	write(t, filepath.Join(src, "folder 2/new"), "added")
	random(t, filepath.Join(src, "larger"), 4<<20)
	after := scan(t, src, Look{Root: true})

	stride := 1
	if testing.Short() {
		stride = 7
	}
	died := 0
	for at := 1; ; at += stride {
		m := base.clone()
		store := strings.TrimPrefix(m.store, "file://")
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprint(crashEnv, "=", at), crashEnv+"_ARGS="+
			strings.Join([]string{store, filepath.Join(m.dir, "state/tester"), recipient, src}, "\n"))
		out, err := cmd.CombinedOutput()
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) {
			t.Fatalf("point %d: %v\n%s", at, err, out)
		}
		if exit.ExitCode() == survived {
			break
		}
		if status := exit.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("point %d: %v\n%s", at, err, out)
		}
		died++
		committed := len(m.snapshots())
		second := m.backup()
		if committed == 2 && len(m.snapshots()) != 3 {
			t.Errorf("point %d: the killed run had committed, yet the next run is not the third", at)
		}
		view := m.mount("")
		same(t, fmt.Sprintf("killed at point %d: the old snapshot", at), before, scan(t, filepath.Join(view, "snapshots", first, src), Look{Root: true}))
		same(t, fmt.Sprintf("killed at point %d: the new snapshot", at), after, scan(t, filepath.Join(view, "snapshots", second, src), Look{Root: true}))
		if t.Failed() {
			t.FailNow()
		}
		m.stop()
	}
	if died < 20 {
		t.Errorf("only %d points: the wiring is broken", died)
	}
	t.Logf("killed at %d points", died)
}
