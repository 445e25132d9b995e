package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Two disks whose inodes carry the same numbers, because one is a copy of the
// other, have nothing to do with each other: no hard link runs between them
// and no file of one is taken for a moved file of the other.
func TestEqualInodesOnTwoVolumesAreNotOneFile(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "a.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	tool(t, "mkfs.ext4", "-q", "-F", image)

	src := filepath.Join(dir, "source")
	a, b := filepath.Join(src, "a"), filepath.Join(src, "b")
	must(t, os.MkdirAll(a, 0o755))
	must(t, os.MkdirAll(b, 0o755))
	loopMount(t, image, a)
	write(t, filepath.Join(a, "one"), "written to both")
	must(t, os.Link(filepath.Join(a, "one"), filepath.Join(a, "two")))
	must(t, unix.Unmount(a, 0))
	twin := filepath.Join(dir, "b.img")
	tool(t, "cp", "--sparse=always", image, twin)
	loopMount(t, image, a)
	loopMount(t, twin, b)
	// Same inode, same size, same time stamps as far as they can be set.
	info, err := os.Stat(filepath.Join(b, "one"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b, "one"), []byte("WRITTEN TO BOTH"), 0o644))
	must(t, os.Chtimes(filepath.Join(b, "one"), info.ModTime(), info.ModTime()))
	var sa, sb unix.Stat_t
	must(t, unix.Stat(filepath.Join(a, "one"), &sa))
	must(t, unix.Stat(filepath.Join(b, "one"), &sb))
	if sa.Ino != sb.Ino || sa.Dev == sb.Dev {
		t.Fatalf("the story needs equal inodes on two devices, got %d:%d and %d:%d", sa.Dev, sa.Ino, sb.Dev, sb.Ino)
	}

	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	m.init(src)
	want := scan(t, src, Look{Root: true})
	first := m.backup()
	same(t, "the first snapshot", want, scan(t, filepath.Join(m.mount(first), src), Look{Root: true}))

	// A file that goes from one volume while its twin stays on the other.
	must(t, os.Rename(filepath.Join(a, "one"), filepath.Join(a, "three")))
	must(t, os.Remove(filepath.Join(b, "two")))
	want = scan(t, src, Look{Root: true})
	second := m.backup()
	same(t, "the second snapshot", want, scan(t, filepath.Join(m.mount(second), src), Look{Root: true}))
}

func loopMount(t *testing.T, image, dir string) {
	t.Helper()
	tool(t, "mount", "-o", "loop", image, dir)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}
