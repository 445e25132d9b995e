package backup

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// After two thousand runs the index is as large as what changed in them makes
// it, however many entries there are that did not change. VAULTIK_SOAK=1 makes
// all of them, CI two hundred.
func TestTheIndexGrowsWithWhatChangesOnly(t *testing.T) {
	runs := 200
	if testing.Short() {
		runs = 40
	}
	if os.Getenv("VAULTIK_SOAK") != "" {
		runs = 2000
	}
	for _, c := range []struct {
		name string
		most int64 // bytes that a run may add
		edit func(w *world, run int)
	}{
		{"nothing changes", 512, func(*world, int) {}},
		{"a file is edited, one added and one deleted", 2 << 10, func(w *world, run int) {
			at := int64(1000 + run)
			w.source.edit(func(n *node) { n.Content, n.Time = fmt.Sprint("edit ", run), at }, fmt.Sprintf("/home/3/%d", 8*(run%60)+3))
			w.source.set(fmt.Sprintf("/home/4/added %d", run), node{Content: fmt.Sprint("added ", run), Time: at, Inode: uint64(100_000 + run)})
			w.source.remove(fmt.Sprintf("/home/4/added %d", run-5))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := map[string]node{}
			for i := range 500 {
				tree[fmt.Sprintf("/home/%d/%d", i%8, i)] = node{Content: fmt.Sprint("file ", i), Time: 1000, Inode: uint64(1000 + i)}
			}
			w := newWorld(t, tree)
			size, took := map[int]int64{}, map[int]time.Duration{}
			var first map[string]string
			for run := 1; run <= runs; run++ {
				c.edit(w, run)
				began := time.Now()
				r := w.backup()
				elapsed := time.Since(began)
				if int(r.Seq) != run {
					t.Fatalf("run %d is number %d", run, r.Seq)
				}
				// The fastest of five, so that what else the machine does counts less.
				if last := (run + 4) / 5 * 5; took[last] == 0 || elapsed < took[last] {
					took[last] = elapsed
				}
				if run == 1 {
					first = w.shows(1)
				}
				if run == 10 || run == runs {
					w.reopen() // brings the log into the file
					info, err := os.Stat(w.indexAt)
					check(t, err)
					size[run] = info.Size()
				}
			}
			t.Logf("run 10: %d bytes, %v; run %d: %d bytes, %v", size[10], took[10], runs, size[runs], took[runs])
			// Pages are not filled to the last byte.
			if grown, most := size[runs]-size[10], int64(runs-10)*c.most+128<<10; grown > most {
				t.Errorf("%d runs added %d bytes to the index, want %d at most", runs-10, grown, most)
			}
			same(t, "the first snapshot", first, w.shows(1))
		})
	}
}
