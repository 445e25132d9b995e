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
	"git.eeqj.de/sneak/vaultik/metastore/index"
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
	x, err := index.Open(ctx, filepath.Join(state, "index.db"), index.Options{OnCommit: point})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	disk, err := localfs.New()
	if err != nil {
		return err
	}
	_, err = backup.Run(ctx, backup.Config{
		Store: s, Index: x, Source: disk, Writer: "tester", Hostname: "host", Version: "test",
		Recipients: []string{recipient}, Signer: signer,
		Chunking: metastore.Chunking{Algorithm: "fastcdc-v1.0.0", Min: 256 << 10, Avg: 1 << 20, Max: 4 << 20, Secret: secret},
		Level:    seal.Default, BlobSize: 1 << 20, Now: time.Now,
	}, backup.Set{Name: "default", Roots: []string{source}})
	return err
}

// Killed at any call of the store and any commit of the index, be it the first
// run, a later one, or the one that follows a killed one, a backup loses
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

	want := map[string]Tree{}
	t.Run("the first run", func(t *testing.T) { killEverywhere(t, base, src, scale(2, 1), want) })
	want[base.backup()] = scan(t, src, Look{Root: true})
	must(t, os.RemoveAll(filepath.Join(src, "folder 1")))
	write(t, filepath.Join(src, "folder 2/new"), "added")
	random(t, filepath.Join(src, "larger"), 4<<20)
	t.Run("the second run", func(t *testing.T) { killEverywhere(t, base, src, 1, want) })
}

// killEverywhere kills a backup of src by clones of base, at one point after
// the other, and backs up again. The store has the snapshots in want.
func killEverywhere(t *testing.T, base *machine, src string, stride int, want map[string]Tree) {
	if testing.Short() {
		stride = 7
	}
	of := *base
	base = &of
	base.t = t
	recipient, now := recipientOf(t, base), scan(t, src, Look{Root: true})
	earlier := len(base.uploaded())
	died, diedAgain, resumed := 0, 0, 0
	for at := 1; ; at += stride {
		m := base.clone()
		if !m.killedAt(at, recipient, src) {
			break
		}
		died++
		// The one after it too, now and then, at a point that is another each time.
		if died%5 == 0 && m.killedAt(1+died*4%31, recipient, src) {
			diedAgain++
		}
		confirmed, objects := m.uploaded(), m.count("blobs/*/*")
		if len(confirmed) > earlier {
			resumed++
		}
		decided := strings.TrimSpace(m.ask("SELECT count(*) FROM runs WHERE state <> 'running'"))
		again := m.summarise(0)
		if n := m.count("metadata/*/manifest.json.zst"); fmt.Sprint(n-1) != decided {
			t.Errorf("point %d: %s runs had got as far as their intent, and after one more there are %d snapshots", at, decided, n)
		}
		if n := m.count("blobs/*/*") - objects; int64(n) != again.Blobs {
			t.Errorf("point %d: the next run tells of %d blobs and uploaded %d", at, again.Blobs, n)
		}
		for chunk, blobs := range m.uploaded() {
			if then := confirmed[chunk]; then != "" && blobs != then {
				t.Errorf("point %d: chunk %s was confirmed in blob %s, and is now in %s", at, chunk, then, blobs)
			}
		}
		view := m.mount("")
		for id, tree := range want {
			same(t, fmt.Sprintf("killed at point %d: an old snapshot", at), tree, scan(t, filepath.Join(view, "snapshots", id, src), Look{Root: true}))
		}
		same(t, fmt.Sprintf("killed at point %d: the new snapshot", at), now, scan(t, filepath.Join(view, "snapshots", again.Snapshot, src), Look{Root: true}))
		if t.Failed() {
			t.FailNow()
		}
		m.stop()
	}
	if died*stride < 20 || diedAgain == 0 || resumed == 0 {
		t.Errorf("killed at %d points, once more after %d, with confirmed blobs after %d: the wiring is broken", died, diedAgain, resumed)
	}
	t.Logf("killed at %d points, once more after %d of them; %d times there was something to resume", died, diedAgain, resumed)
}

// killedAt runs a backup that kills itself at a point, and reports whether it
// came to it.
func (m *machine) killedAt(at int, recipient, src string) bool {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprint(crashEnv, "=", at), crashEnv+"_ARGS="+
		strings.Join([]string{m.storeFolder(), filepath.Join(m.dir, "state/tester"), recipient, src}, "\n"))
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) {
		m.t.Fatalf("point %d: %v\n%s", at, err, out)
	}
	if exit.ExitCode() == survived {
		return false
	}
	if status := exit.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		m.t.Fatalf("point %d: %v\n%s", at, err, out)
	}
	return true
}

// uploaded is which blobs have each chunk, as the index knows.
func (m *machine) uploaded() map[string]string {
	m.t.Helper()
	chunks := map[string]string{}
	for line := range strings.Lines(m.ask(`SELECT hex(c.hash), group_concat(hex(b.hash)) FROM blob_chunks l
		JOIN chunks c ON c.id = l.chunk JOIN blobs b ON b.id = l.blob GROUP BY c.id`)) {
		chunk, blobs, _ := strings.Cut(strings.TrimSpace(line), "|")
		chunks[chunk] = blobs
	}
	return chunks
}

// ask queries a copy of the index: whoever opens that of a killed run tidies it
// up.
func (m *machine) ask(query string) string {
	m.t.Helper()
	return tool(m.t, "sh", "-c", `cp "$1"/index.db* "$2" && sqlite3 "$2/index.db" "$3"`, "sh", m.state(""), m.t.TempDir(), query)
}

// count is how many objects of the writer match a pattern.
func (m *machine) count(pattern string) int {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.storeFolder(), "tester", pattern))
	must(m.t, err)
	return len(found)
}
