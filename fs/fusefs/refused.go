package fusefs

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// needs are what a mount takes from the machine.
type needs struct {
	device, conf string                       // /dev/fuse, /etc/fuse.conf
	look         func(string) (string, error) // exec.LookPath
	root         bool
}

func thisMachine() needs {
	return needs{device: "/dev/fuse", conf: "/etc/fuse.conf", look: exec.LookPath, root: os.Geteuid() == 0}
}

// refused says why a mount failed and what to do about it. Without root's
// rights err is only that a program which mounts could not be run or did not
// like something, so the likely reasons are looked at one by one.
func (n needs) refused(dir string, o Options, err error) error {
	f, opened := os.OpenFile(n.device, os.O_RDWR, 0)
	if opened == nil {
		f.Close()
	}
	remedy := ""
	switch {
	case errors.Is(opened, iofs.ErrNotExist):
		remedy = "there is no " + n.device + "; load the kernel's module with: modprobe fuse (a container has to be given the device)"
	case errors.Is(opened, iofs.ErrPermission):
		remedy = "you may not open " + n.device + "; its owner or mode has to let you, or its group if you are in it"
	case n.root && errors.Is(err, unix.EPERM):
		remedy = "this root may not mount; a container has to be given the capability SYS_ADMIN"
	case !n.root && !n.hasHelper():
		remedy = "there is no program fusermount3, which users need for it; install the package fuse3"
	case !n.root && o.AllowOther && !n.allowsOther():
		remedy = "root has to write a line user_allow_other into " + n.conf + " before users may let others in"
	case !n.root && unix.Access(dir, unix.W_OK) != nil:
		remedy = "you may not write to this folder, which fusermount3 demands; choose a folder of yours"
	}
	switch {
	case remedy == "":
		return fmt.Errorf("mount on %q: %w", dir, err)
	case n.root:
		return fmt.Errorf("mount on %q: %s: %w", dir, remedy, err)
	}
	return fmt.Errorf("mount on %q: %s", dir, remedy)
}

func (n needs) hasHelper() bool {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if _, err := n.look(name); err == nil {
			return true
		}
	}
	return false
}

func (n needs) allowsOther() bool {
	text, _ := os.ReadFile(n.conf)
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}
