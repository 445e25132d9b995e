package fusefs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// telldir(3) remembers a place and seekdir(3) goes back to it, also after the
// folder was closed, whatever the kernel keeps of the listing meanwhile. With
// VAULTIK_SOAK=1 the folder has a million entries.
func TestPlacesInAVastFolderStayWhereTheyAre(t *testing.T) {
	entries, tries := 100_000, 200
	if os.Getenv("VAULTIK_SOAK") != "" {
		entries, tries = 1_000_000, 50
	}
	if testing.Short() {
		entries = 10_000
	}
	tree := make([]fstest.Entry, entries)
	for i := range tree {
		tree[i] = fstest.Special(fmt.Sprintf("/vast/%07d", i), metastore.FIFO, 0, 0)
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)
	all := getdents(t, openDir(t, m.path("vast")), 32<<10, 1<<30)
	if len(all) != entries+2 || all[2].name != "0000000" || all[len(all)-1].name != fmt.Sprintf("%07d", entries-1) {
		t.Fatalf("%d entries, from %q to %q", len(all), all[0].name, all[len(all)-1].name)
	}
	seek := func(fd, i int) {
		t.Helper()
		if _, err := unix.Seek(fd, all[i].next, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if next := getdents(t, fd, 280, 1); len(next) == 0 || next[0] != all[i+1] {
			t.Fatalf("behind entry %d, %q: %v", i, all[i].name, next)
		}
	}
	for _, cached := range []bool{true, false} {
		fd := openDir(t, m.path("vast"))
		if !cached && m.server.InodeNotify(inode(t, m.path("vast")), 0, 0) != 0 {
			t.Error("the kernel does not forget the listing")
		}
		for range tries {
			seek(fd, rand.IntN(len(all)-1))
		}
		seek(fd, len(all)-2)
		if more := getdents(t, fd, 280, 1); len(more) != 0 {
			t.Errorf("behind the last: %v", more)
		}
		seek(fd, 0)
	}
	// No entry fits, and nothing is skipped because of that.
	fd := openDir(t, m.path("vast"))
	if n, err := unix.Getdents(fd, make([]byte, 16)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("into 16 bytes: %d, %v", n, err)
	}
	if first := getdents(t, fd, 24, 1); len(first) != 1 || first[0].name != "." {
		t.Errorf("after that: %v", first)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
