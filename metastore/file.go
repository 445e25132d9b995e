package metastore

import (
	"time"

	"golang.org/x/sys/unix"
)

// Type says what kind of thing a directory entry is. The values are the
// letters that dumps use.
type Type byte

// The file types of Linux.
const (
	Regular   Type = 'f'
	Directory Type = 'd'
	Symlink   Type = 'l'
	FIFO      Type = 'p'
	Socket    Type = 's'
	CharDev   Type = 'c'
	BlockDev  Type = 'b'
)

// Format is the type as st_mode has it, 0 for one that Linux does not have.
func (t Type) Format() uint32 {
	switch t {
	case Regular:
		return unix.S_IFREG
	case Directory:
		return unix.S_IFDIR
	case Symlink:
		return unix.S_IFLNK
	case FIFO:
		return unix.S_IFIFO
	case Socket:
		return unix.S_IFSOCK
	case CharDev:
		return unix.S_IFCHR
	case BlockDev:
		return unix.S_IFBLK
	}
	return 0
}

// Role says how an entry came into a snapshot.
type Role string

// Roles of an entry.
const (
	RoleRoot   Role = "root"            // a path that the set names
	RoleInside Role = "inside"          // found below a root
	RoleParent Role = "implicit-parent" // above a root: metadata only, its other entries are not part of the snapshot
)

// State says how much of an entry was captured.
type State string

// States of an entry.
const (
	StateComplete   State = "complete"
	StateChanged    State = "changed-while-read" // content may mix two versions
	StateUnreadable State = "unreadable"         // Errno says why; a reader gets EIO for its content or listing
	StateOtherFS    State = "other-fs"           // a mount point left out by one-file-system
	StateCacheDir   State = "cachedir"           // content left out because of CACHEDIR.TAG
	StateExcluded   State = "excluded"           // kept as an empty place, content left out by a rule
)

// Time is a point in time as file systems keep it: seconds since 1970 and
// nanoseconds within the second (0–999,999,999). The zero Time stands for
// "not known" where a file system has no birth time.
type Time struct {
	Sec  int64
	Nsec int32
}

// TimeOf converts from time.Time.
func TimeOf(t time.Time) Time { return Time{t.Unix(), int32(t.Nanosecond())} }

// Time converts to time.Time in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Stat is what lstat and statx tell about an entry without opening it.
type Stat struct {
	Type                Type
	Mode                uint32 // permission bits with setuid, setgid and sticky: at most 07777
	UID, GID            uint32
	Size                int64 // bytes for Regular, target length for Symlink, else 0
	MTime, CTime, BTime Time
	Inode               uint64
	Nlink               uint32
	RdevMajor           uint32 // device numbers of CharDev and BlockDev, else 0
	RdevMinor           uint32
}

// Xattr is one extended attribute, POSIX ACLs and capabilities included.
type Xattr struct {
	Name  string // any bytes but NUL, with its namespace: "user.x", "system.posix_acl_access"
	Value []byte
}

// File is one version of one entry: all that a snapshot says about it.
type File struct {
	Stat
	Role    Role
	State   State
	Errno   int // why State is StateUnreadable, else 0
	User    string
	Group   string  // names of UID and GID on the backed-up machine, "" if it had none
	Volume  int64   // the volume that Inode counts in
	Target  string  // of a Symlink, any bytes
	Flags   uint32  // inode flags of FS_IOC_GETFLAGS, 0 if the file system has none
	Content int64   // a row of contents; 0 if there is none (every type but Regular, an unreadable file)
	Xattrs  []Xattr // sorted by name
}
