package dir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote"
)

// publish gives the file from, in folder, the name to in one atomic step that
// fails with remote.ErrExists if that name is taken. Not every file system knows the
// flag, so link(2), which never replaces either, is the second choice.
func publish(folder *os.File, from, to string) error {
	fd := int(folder.Fd())
	err := unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return publishByLink(folder, from, to)
	}
	if errors.Is(err, unix.EEXIST) {
		return remote.ErrExists
	}
	return os.NewSyscallError("renameat2", err)
}

// publishByLink does the same with link(2) and unlink(2). Killed between the
// two it leaves a second, hidden name of the object, which sweep removes.
func publishByLink(folder *os.File, from, to string) error {
	fd := int(folder.Fd())
	err := unix.Linkat(fd, from, fd, to, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("the file system can neither rename without replacing nor link, so that two writers could overwrite each other; use another one: %w: %w", remote.ErrUnsupported, err)
	}
	// NFS sends a call again if the answer got lost, and then finds the name
	// taken by the first one.
	if errors.Is(err, unix.EEXIST) && !sameFile(folder, from, to) {
		return remote.ErrExists
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return os.NewSyscallError("linkat", err)
	}
	// The object is there: a hidden second name is no reason to fail.
	_ = removeAt(folder, from)
	return nil
}

func sameFile(folder *os.File, a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Fstatat(int(folder.Fd()), a, &sa, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(int(folder.Fd()), b, &sb, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
