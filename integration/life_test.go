package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Three machines share a store. They back up at the same time and forget all but
// their newest snapshots, while two prunes run over the store without a pause, of
// which one is killed wherever it happens to be, as is a backup now and then. In
// the end every snapshot that was not forgotten is what its machine had then, as
// cp copies it from a mount and as restore writes it, and nothing is left that
// nobody needs.
func TestThreeMachinesAndTwoPrunesOneOfWhichIsKilled(t *testing.T) {
	const days, keep = 8, 3
	ann := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	rng := rand.New(rand.NewPCG(5, 11))
	var lives []*life
	for i, name := range []string{"ann", "bob", "web"} {
		m := ann
		if i > 0 {
			m = newMachine(t, ann.store)
		}
		l := &life{machine: m, name: name, models: map[string]Tree{},
			garden: &gardener{t: t, rng: rng, root: filepath.Join(m.dir, "source")}}
		must(t, os.Mkdir(l.garden.root, 0o755))
		for range 12 {
			l.garden.grow()
		}
		if i == 0 {
			m.run("init", "--store", m.store, "--kit", m.kit(), "--writer", name, l.garden.root)
		} else {
			m.run("init", "--store", m.store, "--writer", name, "--root", rootOf(t, ann), "--recipient", recipientOf(t, ann), l.garden.root)
			ann.run("key", "certify", name, "--kit", ann.kit())
		}
		lives = append(lives, l)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var pruners errgroup.Group
	var whole, killed int // prunes that came to their end, and that were killed
	pruners.Go(func() (err error) { whole, err = pruneOn(ctx, lives[1].machine); return err })
	pruners.Go(func() (err error) {
		killed, err = killPrunes(ctx, lives[2].machine, rand.New(rand.NewPCG(6, 11)))
		return err
	})
	for day := range days {
		dies := -1 // whose backup is killed
		if day%2 == 1 {
			dies = rng.IntN(len(lives))
		}
		for i, l := range lives {
			l.garden.mutate()
			random(t, filepath.Join(l.garden.root, "day"), 20_000+rng.IntN(300_000))
			l.start()
			if i == dies {
				time.Sleep(time.Duration(rng.IntN(120)) * time.Millisecond)
				must(t, l.running.Process.Kill())
				_ = l.running.Wait() // it may have been done
				l.start()
			}
		}
		for _, l := range lives {
			l.finish()
		}
		for _, l := range lives {
			l.run("snapshot", "purge", "--yes", "--keep-last", fmt.Sprint(keep))
		}
	}
	stop()
	must(t, pruners.Wait())

	retained := ann.snapshots()
	for _, l := range lives {
		l.machine.run("backup", "--quiet") // which gives up what is mostly forgotten
	}
	ann.run("prune")
	if out := ann.run("prune", "--dry-run"); strings.Contains(out, "would free") {
		t.Errorf("a prune has left something to the next one:\n%s", out)
	}
	ann.run("audit", "--read")
	view := filepath.Join(ann.mount(""), "writers")
	compared, uploaded, left := 0, int64(0), 0
	for _, l := range lives {
		var of []string
		for _, id := range retained {
			if strings.HasPrefix(id, l.name+"-") {
				of = append(of, id)
			}
		}
		if len(of) < keep {
			t.Errorf("of %s only %q are left", l.name, of)
		}
		uploaded += l.blobs
		left += len(glob(t, filepath.Join(ann.storeFolder(), l.name, "blobs/*/*")))
		for _, id := range of {
			want, known := l.models[id]
			if !known {
				continue // of a backup that was killed after its commit
			}
			compared++
			l.compare(view, ann.kit(), id, want)
		}
	}
	t.Logf("%d prunes came to their end, %d were killed; %d snapshots compared", whole, killed, compared)
	if int64(left) >= uploaded {
		t.Errorf("%d blobs were uploaded, and %d are still there", uploaded, left)
	}
	if whole == 0 || killed == 0 || compared < 2*len(lives) {
		t.Error("nothing much has happened")
	}
}

// life is a machine, the tree that it backs up, and what that was at each backup.
type life struct {
	*machine
	name    string
	garden  *gardener
	models  map[string]Tree // by snapshot
	blobs   int64           // uploaded
	running *exec.Cmd
	out     *bytes.Buffer
}

// start begins a backup.
func (l *life) start() {
	l.t.Helper()
	l.running, l.out = l.command("backup", "--json"), new(bytes.Buffer)
	l.running.Stdout, l.running.Stderr = l.out, os.Stderr
	must(l.t, l.running.Start())
}

// finish waits for the backup, which must succeed.
func (l *life) finish() {
	l.t.Helper()
	if err := l.running.Wait(); err != nil {
		l.t.Fatalf("backup of %s: %v\n%s", l.name, err, l.out)
	}
	s := l.summary(l.out.String())
	l.models[s.Snapshot] = scan(l.t, l.garden.root, Look{Root: true})
	l.blobs += s.Blobs
}

// compare copies a snapshot from a mount of the store, restores it too, and
// compares both with what was backed up.
func (l *life) compare(view, kit, id string, want Tree) {
	l.t.Helper()
	copied, restored := filepath.Join(l.dir, "copy of "+id), filepath.Join(l.dir, "restored "+id)
	tool(l.t, "cp", "-a", filepath.Join(view, l.name, "snapshots", id, l.garden.root), copied)
	same(l.t, "cp of "+id, want, scan(l.t, copied, Look{Root: true}))
	l.run("restore", "--quiet", "--identity", kit, id+":"+l.garden.root, restored)
	same(l.t, "restore of "+id, want, scan(l.t, restored, Look{Root: true}))
}

// pruneOn prunes the store until ctx ends. Each prune must succeed.
func pruneOn(ctx context.Context, m *machine) (whole int, err error) {
	for ctx.Err() == nil {
		if out, err := m.command("prune").CombinedOutput(); err != nil {
			return whole, fmt.Errorf("prune: %w\n%s", err, out)
		}
		whole++
	}
	return whole, nil
}

// killPrunes begins a prune until ctx ends, and kills it soon.
func killPrunes(ctx context.Context, m *machine, rng *rand.Rand) (killed int, err error) {
	for ctx.Err() == nil {
		var out bytes.Buffer
		cmd := m.command("prune")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			return killed, err
		}
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		err := errors.Join(ignoreDone(cmd.Process.Kill()), cmd.Wait())
		exit := (*exec.ExitError)(nil)
		switch {
		case err == nil:
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
			killed++
		default:
			return killed, fmt.Errorf("prune: %w\n%s", err, out.String())
		}
	}
	return killed, nil
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	must(t, err)
	return found
}
