package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Blobs of an old snapshot are lost. A mount goes on with all else; once a backup
// has stored their content again, the old snapshot is whole again through the
// same mount and for restore, but for what was gone from the source.
func TestAnOldSnapshotIsHealedByTheNextBackup(t *testing.T) {
	asRoot(t)
	store := filepath.Join(t.TempDir(), "store")
	m := newMachine(t, "file://"+store)
	src := filepath.Join(m.dir, "source")
	for _, name := range []string{"one", "two", "deep/three"} {
		random(t, filepath.Join(src, name), 3<<20)
	}
	for _, name := range []string{"a", "b", "c", "deep/d"} {
		write(t, filepath.Join(src, name), strings.Repeat("the content of "+name+"\n", 50))
	}
	random(t, filepath.Join(src, "vanished"), 1<<20)
	m.init(src)
	settle()
	first := m.backup()
	want := scan(t, src, Look{Root: true})
	dir := filepath.Join(m.dir, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	p := m.startMount(dir, "--refresh", "1s")
	old := filepath.Join(dir, "snapshots", first, src)
	tool(t, "ls", "-lR", old)

	blobs, err := filepath.Glob(filepath.Join(store, "tester/blobs/0000000001/*"))
	must(t, err)
	if len(blobs) == 0 {
		t.Fatal("there are no blobs")
	}
	for _, b := range blobs {
		must(t, os.Remove(b))
	}
	random(t, filepath.Join(src, "new"), 1<<20)
	m.backup()
	for _, name := range []string{"one", "a"} {
		eventually(t, name, func() bool {
			got, err := os.ReadFile(filepath.Join(old, name))
			return err == nil && bytes.Equal(got, read(t, filepath.Join(src, name)))
		})
	}

	// Once more, with a file that nobody can store again.
	must(t, os.Remove(filepath.Join(src, "vanished")))
	blobs, err = filepath.Glob(filepath.Join(store, "tester/blobs/*/*"))
	must(t, err)
	for _, b := range blobs {
		must(t, os.Remove(b))
	}
	p.stop() // what was read is in memory
	m.startMount(dir, "--refresh", "1s")
	for _, name := range []string{"two", "deep/three", "vanished"} {
		if got, err := os.ReadFile(filepath.Join(old, name)); !errors.Is(err, syscall.EIO) || len(got) > 0 {
			t.Errorf("%s, which is lost: %d bytes, %v", name, len(got), err)
		}
	}
	tool(t, "find", old, "-newer", "/", "-ls") // what is no content is served
	m.backup()
	eventually(t, "what is stored again", func() bool {
		_, err := os.ReadFile(filepath.Join(old, "two"))
		return err == nil
	})
	for _, name := range []string{"one", "two", "deep/three", "a", "b", "c", "deep/d"} {
		got, err := os.ReadFile(filepath.Join(old, name))
		if err != nil || !bytes.Equal(got, read(t, filepath.Join(src, name))) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(old, "vanished")); !errors.Is(err, syscall.EIO) || len(got) > 0 {
		t.Errorf("vanished: %d bytes, %v", len(got), err)
	}

	to := filepath.Join(m.dir, "restored")
	stdout, stderr, code := m.try("restore", "--store", m.store, "--identity", m.kit(), first+":"+src, to)
	if code == 0 || !strings.Contains(stdout+stderr, "vanished") {
		t.Errorf("restore: exit %d\n%s%s", code, stdout, stderr)
	}
	write(t, filepath.Join(to, "vanished"), "")
	got := scan(t, to, Look{Root: true})
	for _, tree := range []Tree{want, got} {
		for path := range tree {
			if strings.HasSuffix(path, "vanished") || path == "." || path == "/" || path == "" {
				delete(tree, path)
			}
		}
	}
	same(t, "what is restored", want, got)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}
