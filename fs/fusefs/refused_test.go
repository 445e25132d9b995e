package fusefs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAMountThatFailsSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	device := file("fuse", "")
	silent, speaking := file("fuse.conf", "# user_allow_other\n"), file("user.conf", "mount_max = 5\nuser_allow_other\n")
	helper := func(string) (string, error) { return "/bin/fusermount3", nil }
	none := func(string) (string, error) { return "", os.ErrNotExist }
	code := errors.New("fusermount exited with code 256\n")
	for _, c := range []struct {
		name string
		n    needs
		o    Options
		err  error
		want string
		not  string
	}{
		{"no device", needs{dir + "/none", silent, helper, true}, Options{}, unix.ENOENT, "modprobe fuse", ""},
		{"a container", needs{device, silent, helper, true}, Options{}, unix.EPERM, "SYS_ADMIN", ""},
		{"no helper", needs{device, silent, none, false}, Options{}, os.ErrNotExist, "install the package fuse3", "exist"},
		{"others", needs{device, silent, helper, false}, Options{AllowOther: true}, code, "user_allow_other into " + silent, "exited with code"},
		{"others are allowed", needs{device, speaking, helper, false}, Options{AllowOther: true}, code, "exited with code 256", "user_allow_other"},
		{"something else", needs{device, silent, helper, true}, Options{}, unix.ENOMEM, unix.ENOMEM.Error(), "modprobe"},
	} {
		err := c.n.refused(dir, c.o, c.err)
		if !strings.Contains(err.Error(), c.want) || c.not != "" && strings.Contains(err.Error(), c.not) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.n.root && !errors.Is(err, c.err) {
			t.Errorf("%s: the reason is lost: %v", c.name, err)
		}
	}
	if os.Geteuid() == 0 {
		return // who may open and write everything
	}
	if err := os.Chmod(device, 0); err != nil {
		t.Fatal(err)
	}
	if err := (needs{device, silent, helper, false}).refused(dir, Options{}, code); !strings.Contains(err.Error(), "you may not open") {
		t.Error(err)
	}
}
