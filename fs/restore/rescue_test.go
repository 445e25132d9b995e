package restore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// What an old snapshot's blobs have lost is restored from where a later run
// stored it again; what no run could, is told.
func TestLostBlobsAreMadeUpForByLaterRuns(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"gone":    func([]byte) []byte { return nil },
		"short":   func(b []byte) []byte { return b[:1000] },
		"flipped": func(b []byte) []byte { b[len(b)/3] ^= 1; b[len(b)/2] ^= 1; return b },
		"header":  func(b []byte) []byte { b[100] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{World: fstest.New(t), t: t, dir: filepath.Join(t.TempDir(), "to")}
			tree := spread()
			vanished := fstest.Regular("/d20/vanished", append(mib(7, 5), mib(1, 1)...))
			first := w.Snapshot("ann", "home", append(spread(), vanished)...)
			if n := len(w.Blobs(first)); n < 4 {
				t.Fatalf("only %d blobs", n)
			}
			for _, key := range w.Blobs(first) {
				w.Damage(key, change)
			}
			w.Snapshot("ann", "home", tree...)
			c, err := fs.NewCatalog(fs.CatalogOptions{Store: w.Store, Root: w.Root.Public(), Identities: []age.Identity{w.Identity}, Cache: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if w.tree, err = c.Open(t.Context(), "ann", 1); err != nil {
				t.Fatal(err)
			}
			defer w.tree.Close()
			r, err := w.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range tree {
				if got, err := os.ReadFile(filepath.Join(w.dir, e.Path)); err != nil || !bytes.Equal(got, e.Bytes()) {
					t.Errorf("%s: %v, the same: %t", e.Path, err, bytes.Equal(got, e.Bytes()))
				}
			}
			told := w.problems[vanished.Path]
			if name != "flipped" && (len(w.problems) != 1 || told == nil) || name == "gone" && !errors.Is(told, fs.ErrLost) {
				t.Errorf("problems: %v", w.problems)
			}
			if _, err := os.Lstat(filepath.Join(w.dir, vanished.Path)); (err == nil) == (told != nil) {
				t.Errorf("%s: told %v, there: %v", vanished.Path, told, err)
			}
			if r.Rescued == 0 {
				t.Error("nothing was rescued")
			}
		})
	}
}
