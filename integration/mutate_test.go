package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// While backups run, others append, rewrite, replace, delete, link and rename
// in the tree. Each snapshot can be read to the last byte, shows files that are
// replaced as a whole as one whole or another, and the first one of a tree that
// has come to rest is like it.
func TestBackupsOfATreeThatIsBeingChanged(t *testing.T) {
	const (
		mutators = 4
		rounds   = 5
		steps    = 3000 // of each mutator in a round, at most
	)
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	for i := range 2000 {
		write(t, filepath.Join(src, fmt.Sprintf("still %d/%d", i%20, i)), fmt.Sprint("nobody touches ", i))
	}
	must(t, os.Mkdir(filepath.Join(m.dir, "spare"), 0o755))
	var all []*mutator
	for i := range uint64(mutators) {
		all = append(all, &mutator{
			rng: rand.New(rand.NewPCG(i, 5)), root: src, whole: filepath.Join(src, fmt.Sprintf("still %d/whole", i)),
			spare: filepath.Join(m.dir, "spare", fmt.Sprint(i)),
		})
		for range 200 {
			must(t, all[i].step())
		}
		must(t, all[i].replace())
	}
	m.init(src)
	total := int64(0)
	for round := range rounds {
		var over atomic.Bool
		var done atomic.Int64
		var g errgroup.Group
		for _, mu := range all {
			g.Go(func() error {
				for n := 0; n < steps && !over.Load(); n++ {
					if err := errors.Join(mu.step(), mu.replace()); err != nil {
						return err
					}
					done.Add(1)
				}
				return nil
			})
		}
		stdout, stderr, code := m.try("backup", "--json")
		over.Store(true)
		must(t, g.Wait())
		if code != 0 {
			t.Errorf("round %d: exit %d\n%s%s", round, code, stdout, stderr)
		}
		total += done.Load()
		t.Logf("round %d: %d steps; %d problems", round, done.Load(), strings.Count(stdout, `"problem"`))
	}
	if total == 0 {
		t.Error("nothing was changed while the backups ran")
	}
	settle()
	quiet := m.backup()
	want := scan(t, src, Look{Root: true})

	ids := m.snapshots()
	if len(ids) != rounds+1 {
		t.Fatalf("%d snapshots after %d backups", len(ids), rounds+1)
	}
	mnt := m.mount("")
	for _, id := range ids {
		at := filepath.Join(mnt, "snapshots", id, src)
		tree := scan(t, at, Look{Root: true}) // which reads everything
		if id == quiet {
			same(t, "the snapshot of the tree at rest", want, tree)
		}
		for _, mu := range all {
			b, err := os.ReadFile(filepath.Join(at, strings.TrimPrefix(mu.whole, src)))
			if err != nil || !mu.isWhole(b) {
				t.Errorf("snapshot %s: a file that was replaced has %d bytes (%v) of several", id, len(b), err)
			}
		}
	}
}

// mutator changes a tree that others change as well. The names are few, so
// that they get into each other's way.
type mutator struct {
	rng   *rand.Rand
	root  string
	whole string // a file of its own that it replaces atomically
	spare string // where the next one is made
}

func (mu *mutator) folder() string {
	p := filepath.Join(mu.root, fmt.Sprintf("folder %d", mu.rng.IntN(4)))
	if mu.rng.IntN(2) == 0 {
		p = filepath.Join(p, fmt.Sprintf("sub %d", mu.rng.IntN(3)))
	}
	return p
}

func (mu *mutator) file() string {
	return filepath.Join(mu.folder(), fmt.Sprintf("file %d", mu.rng.IntN(8)))
}

// bytes are of one kind only, and few; now and then many.
func (mu *mutator) bytes() []byte {
	n := mu.rng.IntN(3_000)
	if mu.rng.IntN(30) == 0 {
		n = mu.rng.IntN(1_500_000)
	}
	return bytes.Repeat([]byte{byte('a' + mu.rng.IntN(26))}, n)
}

// replace puts another file in whole's place.
func (mu *mutator) replace() error {
	if err := os.WriteFile(mu.spare, append([]byte("whole"), mu.bytes()...), 0o644); err != nil {
		return err
	}
	return os.Rename(mu.spare, mu.whole)
}

func (mu *mutator) isWhole(b []byte) bool {
	rest, ok := bytes.CutPrefix(b, []byte("whole"))
	return ok && len(bytes.Trim(rest, string(rest[:min(1, len(rest))]))) == 0
}

// step changes one thing, if nobody was faster.
func (mu *mutator) step() error {
	err := mu.try()
	// What another mutator did meanwhile, or a folder that would go into itself.
	for _, e := range []error{unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func (mu *mutator) try() error {
	switch file := mu.file(); mu.rng.IntN(12) {
	case 0, 1:
		return os.MkdirAll(mu.folder(), 0o755)
	case 2, 3:
		return os.WriteFile(file, mu.bytes(), 0o644)
	case 4:
		return mu.into(file, os.O_APPEND, func(f *os.File) error { _, err := f.Write(mu.bytes()); return err })
	case 5:
		return mu.into(file, 0, func(f *os.File) error { _, err := f.WriteAt(mu.bytes(), int64(mu.rng.IntN(1000))); return err })
	case 6:
		return os.Rename(file, mu.file())
	case 7:
		return os.Remove(file)
	case 8:
		return os.Link(file, mu.file())
	case 9:
		return os.Chmod(file, os.FileMode(0o600|mu.rng.IntN(0o200)))
	case 10:
		return unix.Setxattr(file, "user.note", fmt.Append(nil, mu.rng.Uint32()), 0)
	default:
		if mu.rng.IntN(10) == 0 {
			return os.RemoveAll(mu.folder())
		}
		return os.Rename(mu.folder(), mu.folder())
	}
}

func (mu *mutator) into(file string, flag int, change func(*os.File) error) error {
	f, err := os.OpenFile(file, os.O_WRONLY|flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(change(f), f.Close())
}
