package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Owner is who owns everything in a mount, whoever owned it on the machine
// that was backed up. The owner may read every file and enter every folder,
// as people expect of what is shown as theirs; other permissions stay as they
// were. Files lose setuid and setgid, or a copy of somebody's program would run
// with the rights of the one who copied it.
type Owner struct{ UID, GID uint32 }

// own shows an inode as the owner's. A nil Owner leaves it as it is.
func (o *Owner) own(a *fuse.Attr) {
	if o == nil {
		return
	}
	a.Owner = fuse.Owner{Uid: o.UID, Gid: o.GID}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK: // has no permissions
	case unix.S_IFDIR:
		a.Mode |= unix.S_IRUSR | unix.S_IXUSR
	default:
		a.Mode = a.Mode&^(unix.S_ISUID|unix.S_ISGID) | unix.S_IRUSR
	}
}
