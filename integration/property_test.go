package integration

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// mutations is how often a random tree is changed and backed up.
const mutations = 20

// Random trees, changed at random twenty times with a backup after each
// change: every snapshot still equals what the tree was then.
func TestEverySnapshotEqualsItsModel(t *testing.T) {
	if testing.Short() {
		must(t, flag.Set("rapid.checks", "2"))
	} else if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		must(t, flag.Set("rapid.checks", "6"))
	}
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++ // a seed may be drawn twice, and no two tests have one name
		// rapid draws the seed; the tree's own generator keeps the story
		// short to tell and quick to replay.
		seed := rapid.Uint64().Draw(r, "seed")
		if !t.Run(fmt.Sprintf("%d with seed %d", n, seed), func(t *testing.T) { history(t, rand.New(rand.NewPCG(seed, 1))) }) {
			r.FailNow()
		}
	})
}

func history(t *testing.T, rng *rand.Rand) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	g := &gardener{t: t, rng: rng, root: filepath.Join(m.dir, "source")}
	must(t, os.MkdirAll(g.root, 0o755))
	for range 40 {
		g.grow()
	}
	m.init(g.root)
	models := map[string]Tree{m.backup(): scan(t, g.root, Look{Holes: true, Root: true})}
	for range mutations {
		for range 1 + rng.IntN(4) {
			g.mutate()
		}
		models[m.backup()] = scan(t, g.root, Look{Holes: true, Root: true})
	}
	if len(models) != mutations+1 {
		t.Fatalf("%d snapshots after %d backups", len(models), mutations+1)
	}
	store := m.mount("")
	for id, model := range models {
		same(t, id, model, scan(t, filepath.Join(store, "snapshots", id, g.root), Look{Holes: true, Root: true}))
	}
}

// gardener changes a tree at random.
type gardener struct {
	t    *testing.T
	rng  *rand.Rand
	root string
	made int
}

// pick returns an entry of a type, "" for any but the root, or "" if there is
// none.
func (g *gardener) pick(kind string) string {
	var found []string
	for p, e := range scan(g.t, g.root, Look{Root: true}) {
		if (kind == "" && p != ".") || e.Type == kind {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return filepath.Join(g.root, found[g.rng.IntN(len(found))])
}

func (g *gardener) name() string {
	g.made++
	return filepath.Join(g.pick("d"), fmt.Sprintf("%c%d", 'a'+rune(g.rng.IntN(26)), g.made))
}

func (g *gardener) bytes() []byte {
	n := []int{0, 1, 100, 5_000, 300_000, 2_500_000}[g.rng.IntN(6)]
	if g.rng.IntN(2) == 0 {
		return bytes.Repeat([]byte{byte(g.rng.IntN(4))}, n)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.rng.Uint32())
	}
	return b
}

func (g *gardener) grow() {
	switch p := g.name(); g.rng.IntN(6) {
	case 0, 1:
		must(g.t, os.Mkdir(p, 0o755))
	case 2:
		must(g.t, os.Symlink(fmt.Sprint("to ", g.made), p))
	default:
		must(g.t, os.WriteFile(p, g.bytes(), 0o644))
	}
}

func (g *gardener) mutate() {
	file, any := g.pick("f"), g.pick("")
	if file == "" || any == "" {
		g.grow()
		return
	}
	switch g.rng.IntN(13) {
	case 0, 1:
		g.grow()
	case 2:
		must(g.t, os.WriteFile(file, g.bytes(), 0o644))
	case 3:
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		must(g.t, err)
		_, err = f.Write(g.bytes())
		must(g.t, err)
		must(g.t, f.Close())
	case 4:
		must(g.t, os.Truncate(file, int64(g.rng.IntN(400_000))))
	case 5:
		must(g.t, os.RemoveAll(any))
	case 6: // within its folder, so that no folder goes below itself
		g.made++
		must(g.t, os.Rename(any, filepath.Join(filepath.Dir(any), fmt.Sprint("renamed ", g.made))))
	case 7:
		must(g.t, os.Rename(file, g.name()))
	case 8:
		must(g.t, os.Chmod(file, os.FileMode(0o600|g.rng.IntN(0o200))))
	case 9:
		must(g.t, os.Link(file, g.name()))
	case 10:
		must(g.t, unix.Setxattr(file, "user.note", []byte(fmt.Sprint(g.rng.Uint32())), 0))
	case 11: // one kind in another's place
		must(g.t, os.RemoveAll(any))
		if g.rng.IntN(2) == 0 {
			must(g.t, os.Mkdir(any, 0o700))
			must(g.t, os.WriteFile(filepath.Join(any, "inside"), g.bytes(), 0o600))
		} else {
			must(g.t, os.WriteFile(any, g.bytes(), 0o600))
		}
	case 12: // other content of the same length, and the old time stamp
		info, err := os.Stat(file)
		must(g.t, err)
		b, err := os.ReadFile(file)
		must(g.t, err)
		for i := range b {
			b[i] ^= 0x55
		}
		must(g.t, os.WriteFile(file, b, 0o644))
		must(g.t, os.Chtimes(file, info.ModTime(), info.ModTime()))
	}
}
