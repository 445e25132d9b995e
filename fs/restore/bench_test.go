package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// Many small files, and one large one, into memory if there is a file system in
// it: on ext4, what was just deleted slows down what is made next.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name  string
		files int
		size  int
	}{{"5000 of 8 KiB", 5000, 8 << 10}, {"one of 64 MiB", 1, 64 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			tree := []fstest.Entry{root(fstest.Dir("/"))}
			for i := range 50 {
				tree = append(tree, fstest.Dir(fmt.Sprintf("/%02d", i)))
			}
			for i := range c.files {
				// Half of it compresses, as much of what people have does.
				data := fstest.Noise(uint64(i), c.size)
				clear(data[c.size/2:])
				tree = append(tree, fstest.Regular(fmt.Sprintf("/%02d/%d", i%50, i), data))
			}
			w := newWorld(b, tree...)
			into, err := os.MkdirTemp("/dev/shm", "restore-")
			if err != nil {
				into = b.TempDir()
			}
			defer os.RemoveAll(into)
			b.SetBytes(int64(c.files) * int64(c.size))
			for i := 0; b.Loop(); i++ {
				w.dir = filepath.Join(into, fmt.Sprint(i))
				w.restore()
				b.StopTimer()
				if err := os.RemoveAll(w.dir); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
