package fusefs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// overlay lays a writable file system over a mount, as containers do.
func overlay(t *testing.T, lower string) string {
	t.Helper()
	base, merged := t.TempDir(), t.TempDir()
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, base, base)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skip("no overlay here:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return merged
}

// What a mount is too read-only for, it does as the lower layer of an overlay:
// go-fuse's tests of a file system, in a folder of a snapshot.
func TestAnOverlayOverAMountIsAFileSystem(t *testing.T) {
	needRoot(t, "mount an overlay")
	var tree []fstest.Entry
	tests := slices.DeleteFunc(slices.Sorted(maps.Keys(posixtest.All)), func(name string) bool {
		return name == "FcntlFlockLocksFile" // wants a process to be locked out by its own lock, which no Linux file system does
	})
	for _, name := range tests {
		tree = append(tree, fstest.Dir("/"+name))
	}
	tree = append(tree, fstest.Regular("/file", fstest.Noise(1, 300_000)).Xattr("user.a", "b"))
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...)
	merged := overlay(t, m.Dir())
	for _, name := range tests {
		t.Run(name, func(t *testing.T) { posixtest.All[name](t, filepath.Join(merged, name)) })
	}
	if err := errors.Join(os.Chmod(filepath.Join(merged, "file"), 0o600), os.RemoveAll(filepath.Join(merged, tests[0]))); err != nil {
		t.Error(err)
	}
	// The change of a mode copied all of it up.
	got, err := os.ReadFile(filepath.Join(merged, "file"))
	if err != nil || !slices.Equal(got, fstest.Noise(1, 300_000)) {
		t.Errorf("copied up: %d bytes, %v", len(got), err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(merged, "file"), "user.a", value); err != nil || string(value[:n]) != "b" {
		t.Errorf("its attribute: %q, %v", value[:max(n, 0)], err)
	}
	if list := names(t, m.Dir()); len(list) != len(tests)+1 {
		t.Errorf("below, %d entries", len(list))
	}
}
