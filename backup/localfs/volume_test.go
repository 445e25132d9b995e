package localfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
)

func volume(t testing.TB, path string) source.Volume {
	t.Helper()
	v, err := newSource(t).Volume(t.Context(), lstat(t, path).Dev, path)
	must(t, err)
	return v
}

func TestVolumeOfProc(t *testing.T) {
	for _, path := range []string{"/proc", "/proc/sys", "/proc/version"} {
		got := volume(t, path)
		if got.FSType != "proc" || got.Root != "/proc" {
			t.Errorf("%q: %+v", path, got)
		}
	}
}

func TestTwoDisksWithEqualInodeNumbersAreTwoVolumes(t *testing.T) {
	dir := tempDir(t)
	var inodes []uint64
	var devs []uint64
	var volumes []source.Volume
	for i, name := range []string{"one disk", "tab\tand \\040"} {
		image, point := fmt.Sprintf("%s/image%d", dir, i), dir+"/"+name
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 2<<20))
		must(t, os.Mkdir(point, 0o700))
		if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
			t.Skipf("cannot make an ext4 file system: %v: %s", err, out)
		}
		if out, err := exec.Command("mount", "-o", "loop", image, point).CombinedOutput(); err != nil {
			t.Skipf("cannot mount an image: %v: %s", err, out)
		}
		t.Cleanup(func() { must(t, unix.Unmount(point, 0)) })
		must(t, os.WriteFile(point+"/file", nil, 0o600))
		inodes = append(inodes, lstat(t, point+"/file").Inode)
		v := volume(t, point+"/file")
		if v.FSType != "ext4" || v.Root != point || v.FSID == 0 {
			t.Errorf("%+v", v)
		}
		if diff := cmp.Diff(v, volume(t, point)); diff != "" {
			t.Errorf("the mount point itself: %s", diff)
		}
		volumes = append(volumes, v)
		d := openDir(t, point)
		f := entry(t, d, "file")
		devs = append(devs, f.Dev)
		must(t, d.Close())

		// The entry in the folder above is what is mounted, and can be entered.
		parent := openDir(t, dir)
		mounted := entry(t, parent, name)
		if mounted.Dev != f.Dev {
			t.Errorf("the mount point has device %#x, the file in it %#x", mounted.Dev, f.Dev)
		}
		sub, err := parent.OpenDir(t.Context(), mounted)
		must(t, err)
		must(t, sub.Close())
	}
	if inodes[0] != inodes[1] || devs[0] == devs[1] || volumes[0].FSID == volumes[1].FSID {
		t.Errorf("inodes %v, devices %#x, volumes %+v: want the first alike, the others different", inodes, devs, volumes)
	}
}

func TestSomethingMountedAfterListingIsSwapped(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/x", 0o700))
	mountTmpfs(t, dir+"/x")
	d := openDir(t, dir)
	e := entry(t, d, "x")
	mountTmpfs(t, dir+"/x") // its root has the same inode number
	if now := entry(t, d, "x"); now.Inode != e.Inode || now.Dev == e.Dev {
		t.Fatalf("%+v became %+v", e, now)
	}
	if _, err := d.OpenDir(t.Context(), e); !errors.Is(err, source.ErrSwapped) {
		t.Errorf("open: %v", err)
	}
	if _, err := newSource(t).Volume(t.Context(), e.Dev, dir+"/x"); !errors.Is(err, source.ErrSwapped) {
		t.Errorf("volume: %v", err)
	}
	if v := volume(t, dir+"/x"); v.FSType != "tmpfs" || v.Root != dir+"/x" {
		t.Errorf("%+v", v)
	}
}

func TestVolumeFollowsNoLink(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Symlink("/proc", dir+"/link"))
	proc := lstat(t, "/proc").Dev
	for path, want := range map[string]error{dir + "/link": source.ErrSwapped, dir + "/link/sys": unix.ENOTDIR, dir + "/missing": unix.ENOENT} {
		if _, err := newSource(t).Volume(t.Context(), proc, path); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
}

const mountinfo = `21 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
29 28 0:26 / /a\040b\011c\012d\134e rw shared:2 master:1 - fuse.vaultik x\040y rw
30 28 0:27 / /odd` + "\u00a0" + `name rw - tmpfs - rw
31 broken
`

func TestMountinfoIsParsed(t *testing.T) {
	want := map[int]mount{
		21: {"/sys", "sysfs"},
		28: {"/", "ext4"},
		29: {"/a b\tc\nd\\e", "fuse.vaultik"},
		30: {"/odd\u00a0name", "tmpfs"},
	}
	got := map[int]mount{}
	for id := range 40 {
		m, ok, err := findMount(strings.NewReader(mountinfo), id)
		must(t, err)
		if ok {
			got[id] = m
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(mountinfo, 28)
	f.Add(`29 - \04 \999 \0`, 29)
	f.Fuzz(func(t *testing.T, text string, id int) {
		m, ok, err := findMount(strings.NewReader(text), id)
		if err != nil || !ok && m != (mount{}) {
			t.Fatalf("%+v, %t, %v", m, ok, err)
		}
	})
}

func FuzzDirents(f *testing.F) {
	record := func(name string, length byte) string {
		return "12345678" + "12345678" + string([]byte{length, 0}) + "\x08" + name + "\x00"
	}
	f.Add([]byte(record(".", 21) + record("..", 22) + record("ab", 22)))
	f.Add([]byte(record("short", 3)))
	f.Add([]byte(record("long", 255)))
	f.Fuzz(func(t *testing.T, buf []byte) {
		names, err := appendNames(nil, buf)
		if err != nil && !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
		for _, name := range names {
			if name == "." || name == ".." || strings.Contains(name, "\x00") {
				t.Fatalf("name %q", name)
			}
		}
	})
}
