package localfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// setxattr sets an attribute of any type of file; it reports false if this
// user or file system cannot.
func setxattr(t testing.TB, path, name string, value []byte) bool {
	t.Helper()
	err := unix.Lsetxattr(path, name, value, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	must(t, err)
	return true
}

// mountTmpfs mounts a tmpfs for the test, or skips it.
func mountTmpfs(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func meta(t testing.TB, d source.Dir, name string) source.Meta {
	t.Helper()
	m, err := d.Meta(t.Context(), entry(t, d, name))
	must(t, err)
	return m
}

func TestXattrsOfEveryType(t *testing.T) {
	for _, where := range []string{"disk", "tmpfs"} {
		t.Run(where, func(t *testing.T) {
			dir := tempDir(t)
			if where == "tmpfs" {
				mountTmpfs(t, dir)
			}
			makeEveryType(t, dir)
			if !setxattr(t, dir+"/file", "user.x", nil) {
				t.Skip("no user attributes on this file system")
			}
			d := openDir(t, dir)
			for _, e := range list(t, d) {
				if e.Name == "hard link" {
					continue
				}
				path := dir + "/" + e.Name
				var want []metastore.Xattr
				if setxattr(t, path, "trusted.z", []byte("z\x00\xff")) { // root only, and on every type
					want = append(want, metastore.Xattr{Name: "trusted.z", Value: []byte("z\x00\xff")})
				}
				if e.Type == metastore.Regular || e.Type == metastore.Directory {
					for name, value := range map[string]string{"user.x": "", "user.\xff": "1", "user.long": strings.Repeat("v", 2000)} {
						setxattr(t, path, name, []byte(value))
						want = append(want, metastore.Xattr{Name: name, Value: []byte(value)})
					}
				}
				slices.SortFunc(want, func(a, b metastore.Xattr) int { return strings.Compare(a.Name, b.Name) })
				m, err := d.Meta(t.Context(), e)
				must(t, err)
				if diff := cmp.Diff(want, m.Xattrs); diff != "" {
					t.Errorf("%q: %s", e.Name, diff)
				}
			}
		})
	}
}

func TestXattrsOfTheLinkAndNotOfItsTarget(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Symlink("file", dir+"/link"))
	if !setxattr(t, dir+"/file", "user.x", []byte("of the file")) {
		t.Skip("no user attributes on this file system")
	}
	if got := meta(t, openDir(t, dir), "link").Xattrs; len(got) > 0 {
		t.Errorf("%q", got)
	}
}

func TestBigXattrs(t *testing.T) {
	dir := tempDir(t)
	mountTmpfs(t, dir)
	must(t, os.WriteFile(dir+"/many", nil, 0o600))
	must(t, os.WriteFile(dir+"/big", nil, 0o600))
	var want []metastore.Xattr
	for i := range 3000 {
		x := metastore.Xattr{Name: fmt.Sprintf("trusted.number%06d", i), Value: []byte(strconv.Itoa(i))}
		if !setxattr(t, dir+"/many", x.Name, x.Value) {
			t.Skip("no trusted attributes")
		}
		want = append(want, x)
	}
	big := []byte(strings.Repeat("v", 64<<10))
	setxattr(t, dir+"/big", "trusted.big", big)
	d := openDir(t, dir)
	if diff := cmp.Diff(want, meta(t, d, "many").Xattrs); diff != "" {
		t.Errorf("a list of %d bytes: %s", 3000*len(want[0].Name+"0"), diff)
	}
	if diff := cmp.Diff([]metastore.Xattr{{Name: "trusted.big", Value: big}}, meta(t, d, "big").Xattrs); diff != "" {
		t.Errorf("a value of %d bytes: %s", len(big), diff)
	}
}

func TestCapabilitiesAndACLsAreTakenAsBytes(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o640))
	want := map[string]string{
		// user::rw-, user:1234:r--, group::r--, mask::r--, other::---
		"system.posix_acl_access": "\x02\x00\x00\x00" + acl(1, 6, -1) + acl(2, 4, 1234) + acl(4, 4, -1) + acl(0x10, 4, -1) + acl(0x20, 0, -1),
		// revision 2, effective, permitted: net_bind_service
		"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12),
	}
	for name, value := range want {
		if !setxattr(t, dir+"/file", name, []byte(value)) {
			t.Logf("without %s, which this user or file system cannot set", name)
			delete(want, name)
		}
	}
	if len(want) == 0 {
		t.Skip("nothing could be set")
	}
	got := map[string]string{}
	for _, x := range meta(t, openDir(t, dir), "file").Xattrs {
		got[x.Name] = string(x.Value)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func acl(tag, perm uint16, id int32) string {
	b := binary.LittleEndian.AppendUint16(nil, tag)
	b = binary.LittleEndian.AppendUint16(b, perm)
	return string(binary.LittleEndian.AppendUint32(b, uint32(id)))
}

func TestXattrsThatCannotBeReadLeaveTheRest(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.WriteFile(dir+"/file", nil, 0))
	must(t, os.Chmod(dir+"/file", 0o600))
	if !setxattr(t, dir+"/file", "user.x", []byte("x")) {
		t.Skip("no user attributes on this file system")
	}
	must(t, os.Chmod(dir+"/file", 0))
	d := openDir(t, dir)
	e := entry(t, d, "file")
	asNobody(t, func() {
		m, err := d.Meta(t.Context(), e)
		if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), `"user.x"`) {
			t.Errorf("error %v, want one about permission to read \"user.x\"", err)
		}
		if want, _ := user.LookupId(strconv.Itoa(int(e.UID))); want != nil && m.User != want.Username {
			t.Errorf("user %q, want %q", m.User, want.Username)
		}
	})
}

func TestTargetsAreBytesOfAnyLength(t *testing.T) {
	dir := tempDir(t)
	var targets []string
	for _, n := range []int{1, 255, 256, 257, 1023, 1024, 4095} {
		targets = append(targets, strings.Repeat("\xfe", n))
	}
	targets = append(targets, "line\nbreak", "/", "..//x/")
	for i, target := range targets {
		if err := os.Symlink(target, fmt.Sprintf("%s/%02d", dir, i)); errors.Is(err, unix.ENAMETOOLONG) {
			targets = targets[:i]
			break
		} else {
			must(t, err)
		}
	}
	d := openDir(t, dir)
	var got []string
	for _, e := range list(t, d) {
		m, err := d.Meta(t.Context(), e)
		must(t, err)
		got = append(got, m.Target)
		if e.Size != int64(len(m.Target)) {
			t.Errorf("size %d of a target of %d bytes", e.Size, len(m.Target))
		}
	}
	if diff := cmp.Diff(targets, got); diff != "" {
		t.Error(diff)
	}
}

func TestInodeFlags(t *testing.T) {
	const nodump = 0x40 // FS_NODUMP_FL of linux/fs.h
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Mkdir(dir+"/dir", 0o700))
	d := openDir(t, dir)
	for _, name := range []string{"file", "dir"} {
		f, err := os.Open(dir + "/" + name)
		must(t, err)
		defer f.Close()
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|nodump))
		}
		if err != nil {
			t.Skipf("no inode flags on this file system: %v", err)
		}
		if got := meta(t, d, name).Flags; got != flags|nodump {
			t.Errorf("%q: flags %#x, want %#x", name, got, flags|nodump)
		}
	}
}

func TestMetaOfTheDirectoryItself(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/dir", 0o700))
	setxattr(t, dir+"/dir", "user.x", []byte("x"))
	parent := openDir(t, dir)
	e := entry(t, parent, "dir")
	d, err := parent.OpenDir(t.Context(), e)
	must(t, err)
	defer d.Close()
	want := meta(t, parent, "dir")
	e.Name = ""
	got, err := d.Meta(t.Context(), e)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	e.Inode++
	if _, err := d.Meta(t.Context(), e); !errors.Is(err, source.ErrSwapped) {
		t.Errorf("metadata of another directory: %v", err)
	}
}

func TestNamesAreLookedUpOnceAndNotForever(t *testing.T) {
	calls := 0
	n := names{lookup: func(id string) (string, error) {
		calls++
		if id == "7" {
			return "ignored", errors.New("no such user")
		}
		return "name of " + id, nil
	}}
	for range 3 {
		if got := n.of(5); got != "name of 5" {
			t.Errorf("5 is %q", got)
		}
		if got := n.of(7); got != "" {
			t.Errorf("7 is %q", got)
		}
	}
	if calls != 2 {
		t.Errorf("%d look-ups, want 2", calls)
	}
	for id := range uint32(3 * namesKept) {
		n.of(id)
	}
	if len(n.known) > namesKept {
		t.Errorf("%d names are kept", len(n.known))
	}
}

func TestOwnersHaveTheNamesThatTheSystemKnows(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	me, err := user.Current()
	must(t, err)
	if m := meta(t, openDir(t, dir), "file"); m.User != me.Username || m.Group == "" {
		t.Errorf("%q, %q, want user %q and some group", m.User, m.Group, me.Username)
	}
}

func TestOwnersThatTheSystemDoesNotKnowHaveNoNames(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	if err := os.Chown(dir+"/file", 4242424, 4242425); err != nil {
		t.Skipf("cannot give a file away: %v", err)
	}
	if m := meta(t, openDir(t, dir), "file"); m.User != "" || m.Group != "" {
		t.Errorf("%q, %q, want no names", m.User, m.Group)
	}
}
