package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A tree changes at random and is backed up, and now and then its machine loses
// some or all of its own files and gets them back from the store. Every snapshot
// still equals what the tree was, and what is as it was is not stored again.
func TestAMachineThatLosesItsOwnFiles(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { losses(t, rand.New(rand.NewPCG(seed, 11))) })
	}
}

func losses(t *testing.T, rng *rand.Rand) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	g := &gardener{t: t, rng: rng, root: filepath.Join(m.dir, "source")}
	must(t, os.MkdirAll(g.root, 0o755))
	for range 40 {
		g.grow()
	}
	m.init(g.root)
	models := map[string]Tree{m.backup(): scan(t, g.root, Look{Holes: true, Root: true})}
	for range 5 {
		for range 1 + g.rng.IntN(4) {
			g.mutate()
		}
		models[m.backup()] = scan(t, g.root, Look{Holes: true, Root: true})
		settle() // so that nothing is read again for its young time stamps only
		m.backup()
		m.lose(rng)
		if rng.IntN(2) == 0 {
			continue // the tree changes before the next backup
		}
		out := m.run("backup", "--json")
		if !strings.Contains(out, `"blobs":0,`) {
			t.Errorf("an unchanged tree was stored again:\n%s", out)
		}
		models[m.latest()] = scan(t, g.root, Look{Holes: true, Root: true})
	}
	store := m.mount("")
	for id, model := range models {
		same(t, id, model, scan(t, filepath.Join(store, "snapshots", id, g.root), Look{Holes: true, Root: true}))
	}
}

// lose takes some of a machine's files away and brings them back.
func (m *machine) lose(rng *rand.Rand) {
	m.t.Helper()
	switch rng.IntN(4) {
	case 0:
		must(m.t, os.Remove(m.state("index.db")))
		m.run("index", "rebuild", "--identity", m.kit())
	case 1:
		must(m.t, os.RemoveAll(filepath.Join(m.dir, "state")))
		m.run("index", "rebuild", "--identity", m.kit())
	case 2:
		must(m.t, os.Remove(filepath.Join(m.dir, "vaultik.toml")))
		m.run("init", "--from-kit", m.kit())
	default:
		must(m.t, os.RemoveAll(filepath.Join(m.dir, "state")))
		must(m.t, os.RemoveAll(filepath.Join(m.dir, "cache")))
		must(m.t, os.Remove(filepath.Join(m.dir, "vaultik.toml")))
		m.run("init", "--from-kit", m.kit())
	}
}

// A run that was decided on is finished by the index that has it, whatever else
// the machine has lost: it is not made anew, and a new key signs what follows.
func TestACommitThatWasDecidedOnIsNotGivenUp(t *testing.T) {
	base := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(base.dir, "source")
	write(t, filepath.Join(src, "file"), "first")
	base.init(src)
	base.backup()
	write(t, filepath.Join(src, "file"), "second")
	signed := map[bool]bool{}
	for at := 1; len(signed) < 2; at++ {
		m := base.clone()
		if !m.killedAt(at, recipientOf(t, m), src) {
			t.Fatalf("no backup was killed between its decision and its commit: %v", signed)
		}
		decided := strings.TrimSpace(m.ask("SELECT count(*) FROM runs WHERE state = 'intent'")) == "1"
		half := m.count("metadata/*/manifest.json.zst.minisig") == 2
		if !decided || m.count("metadata/*/manifest.json.zst") == 2 || signed[half] {
			m.stop()
			continue
		}
		signed[half] = true
		m.fails(1, []string{"index", "rebuild", "--force", "--identity", m.kit()}, "in the middle of committing run 2", "vaultik backup")
		must(t, os.Remove(m.state("signing.key")))
		must(t, os.Remove(filepath.Join(m.dir, "vaultik.toml")))
		if out := m.run("init", "--from-kit", m.kit(), "--store", m.store); !strings.Contains(out, "from run 3 on") {
			t.Errorf("the new key:\n%s", out)
		}
		m.backup()
		if _, warnings, _ := m.try("snapshot", "list"); warnings != "" || len(m.snapshots()) != 3 {
			t.Errorf("snapshots %q, %s", m.snapshots(), warnings)
		}
		m.stop()
	}
}
