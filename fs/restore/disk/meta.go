package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// identity is as whom the program runs.
type identity struct {
	root     bool
	uid, gid uint32
	groups   map[uint32]bool
	umask    uint32 // unknown if nobody says
}

// unknown is a mode that nothing has.
const unknown = ^uint32(0)

// masked is the mode that what is made with one gets.
func (me *identity) masked(mode uint32) uint32 {
	if me.umask == unknown {
		return unknown
	}
	return mode &^ me.umask
}

func whoami(root bool) (identity, error) {
	me := identity{root: root, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), groups: make(map[uint32]bool), umask: unknown}
	groups, err := os.Getgroups()
	if err != nil {
		return me, fmt.Errorf("ask for this user's groups: %w", err)
	}
	for _, g := range append(groups, int(me.gid)) {
		me.groups[uint32(g)] = true
	}
	// umask(2) can only tell the mask by changing it.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return me, nil
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := fmt.Sscanf(strings.TrimSpace(mask), "%o", &me.umask); n != 1 || err != nil {
				me.umask = unknown
			}
		}
	}
	return me, nil
}

// owner is who gets an entry, -1 for a part that stays as it is: only root gives
// files away, others may choose among their own groups.
func (me *identity) owner(n *view.Node) (uid, gid int) {
	if me.root {
		return int(n.UID), int(n.GID)
	}
	uid, gid = -1, -1
	if n.UID == me.uid {
		uid = int(n.UID)
	}
	if me.groups[n.GID] {
		gid = int(n.GID)
	}
	return uid, gid
}

// mode is the permission bits that an entry gets.
func (me *identity) mode(n *view.Node) uint32 {
	if me.root {
		return n.Mode
	}
	return n.Mode &^ (unix.S_ISUID | unix.S_ISGID)
}

// maySet reports whether whoever runs this may set an attribute.
func (me *identity) maySet(name string) bool {
	return me.root || !strings.HasPrefix(name, "security.") && !strings.HasPrefix(name, "trusted.")
}

// owned reports whether what is made belongs to whom it should.
func (me *identity) owned(n *view.Node) bool {
	uid, gid := me.owner(n)
	return (uid < 0 || uint32(uid) == me.uid) && (gid < 0 || uint32(gid) == me.gid)
}

// subject is what metadata is applied to: an open file or folder, or a handle
// with O_PATH, which is all there is to have of a link or a device.
type subject struct {
	fd   int
	path bool
	// made: it is new, and has the owner and the mode that it was made with,
	// and no attributes.
	made bool
	mode uint32 // with made
	// again: it will be done once more, so what is not done does not count.
	again bool
}

// apply sets owner, attributes and mode, in this order: a new owner takes the
// setuid bit and capabilities away, and an ACL changes the mode. What fails is
// returned, joined, when the rest is done.
func (t *Target) apply(ctx context.Context, s subject, n *view.Node) error {
	var failed []error
	uid, gid := t.me.owner(n)
	if uid < 0 || gid < 0 {
		s.skip(&t.Skipped.Owners)
	}
	own := s.made && (uid < 0 || uint32(uid) == t.me.uid) && (gid < 0 || uint32(gid) == t.me.gid)
	if !own && (uid >= 0 || gid >= 0) {
		if err := unix.Fchownat(s.fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			failed = append(failed, fmt.Errorf("give it to %d:%d: %w", uid, gid, err))
		}
	}
	if n.HasXattrs || !s.made {
		failed = append(failed, t.attributes(ctx, s, n)...)
	}
	mode := t.me.mode(n)
	if mode != n.Mode {
		s.skip(&t.Skipped.SetIDs)
	}
	if n.Type != metastore.Symlink && !(own && !n.HasXattrs && s.mode == mode) {
		if err := s.chmod(mode); err != nil {
			failed = append(failed, fmt.Errorf("set its mode %04o: %w", mode, err))
		}
	}
	return errors.Join(failed...)
}

// skip counts what is not done.
func (s subject) skip(n *atomic.Int64) {
	if !s.again {
		n.Add(1)
	}
}

func (s subject) chmod(mode uint32) error {
	if s.path {
		return unix.Chmod(procPath(s.fd), mode)
	}
	return unix.Fchmod(s.fd, mode)
}

// attributes sets the snapshot's attributes and removes others that a person
// can set.
func (t *Target) attributes(ctx context.Context, s subject, n *view.Node) (failed []error) {
	var want []metastore.Xattr
	if n.HasXattrs {
		var err error
		if want, err = t.tree.Xattrs(ctx, n.Ino); err != nil {
			return []error{err}
		}
	}
	if !s.made {
		failed = s.strip(want, t.me.root)
	}
	for _, x := range want {
		if !t.me.maySet(x.Name) {
			s.skip(&t.Skipped.Attributes)
			continue
		}
		err := s.setxattr(x)
		switch {
		case errors.Is(err, unix.ENOTSUP):
			s.skip(&t.Skipped.Unsupported)
		case err != nil:
			failed = append(failed, fmt.Errorf("set attribute %q: %w", x.Name, err))
		}
	}
	return failed
}

func (s subject) setxattr(x metastore.Xattr) error {
	if s.path {
		return unix.Setxattr(procPath(s.fd), x.Name, x.Value, 0)
	}
	return unix.Fsetxattr(s.fd, x.Name, x.Value, 0)
}

// strip removes the attributes that are not wanted.
func (s subject) strip(want []metastore.Xattr, root bool) (failed []error) {
	at := procPath(s.fd)
	for _, name := range surplusXattrs(at, want, root) {
		if err := unix.Removexattr(at, name); err != nil && !errors.Is(err, unix.ENODATA) {
			failed = append(failed, fmt.Errorf("remove attribute %q: %w", name, err))
		}
	}
	return failed
}

// surplusXattrs are the attributes of what is at a path that are not wanted.
// Those that the system manages by itself, as SELinux's, are none of our
// business.
func surplusXattrs(at string, want []metastore.Xattr, root bool) (surplus []string) {
	const longest = 64 << 10 // Linux' limit for the list
	buf := make([]byte, 256)
	n, err := unix.Listxattr(at, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, longest)
		n, err = unix.Listxattr(at, buf)
	}
	if err != nil {
		return nil // a file system without, or a type without
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		ours := strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") ||
			root && (name == "security.capability" || strings.HasPrefix(name, "trusted."))
		if ours && !slices.ContainsFunc(want, func(x metastore.Xattr) bool { return x.Name == name }) {
			surplus = append(surplus, name)
		}
	}
	return surplus
}

// touch sets an entry's modification time. When it was read last nobody knows.
func touch(dirfd int, name string, n *view.Node) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.MTime.Sec, Nsec: int64(n.MTime.Nsec)}}
	if err := unix.UtimesNanoAt(dirfd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set its time: %w", err)
	}
	return nil
}
