package localfs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
)

// Volume describes the mounted volume on which path was met. It asks at path
// itself and not at the mount point, because every subvolume of btrfs counts
// its own inodes and has its own file system id. ErrSwapped if path is on
// another device by now.
func (s *Source) Volume(ctx context.Context, dev uint64, path string) (source.Volume, error) {
	fd, err := descend(ctx, path)
	if err != nil {
		return source.Volume{}, err
	}
	defer unix.Close(fd)
	e, err := examine(fd, "")
	if err != nil {
		return source.Volume{}, err
	}
	if e.Dev != dev {
		return source.Volume{}, fmt.Errorf("open: %w", source.ErrSwapped)
	}
	var st unix.Statfs_t
	if _, err := retry(func() (struct{}, error) { return struct{}{}, unix.Fstatfs(fd, &st) }); err != nil {
		return source.Volume{}, fmt.Errorf("examine the file system: %w", err)
	}
	v := source.Volume{FSType: fmt.Sprintf("%#x", uint64(st.Type)), FSID: fsid(st.Fsid), Root: path}
	id, err := mountID(fd)
	if err != nil {
		return source.Volume{}, err
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return source.Volume{}, fmt.Errorf("list mounts: %w", err)
	}
	defer mounts.Close()
	m, ok, err := findMount(mounts, id)
	if err != nil {
		return source.Volume{}, fmt.Errorf("list mounts: %w", err)
	}
	if ok { // else it is mounted where this process cannot see it
		v.FSType, v.Root = m.fstype, m.point
	}
	return v, nil
}

// descend opens an O_PATH handle of an absolute path without following a
// symbolic link on the way.
func descend(ctx context.Context, path string) (int, error) {
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err := ctx.Err(); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if name == "" {
			continue
		}
		next, err := openat(fd, name, unix.O_PATH)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("open: %w", err)
		}
		fd = next
	}
	return fd, nil
}

// fsid puts the two words of statfs together as stat -f does.
func fsid(id unix.Fsid) uint64 {
	return uint64(uint32(id.Val[0]))<<32 | uint64(uint32(id.Val[1]))
}

// mountID asks which mount an open handle is on, by the number that mountinfo
// uses for it.
func mountID(fd int) (int, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("find the mount: %w", err)
	}
	for line := range bytes.Lines(info) {
		if value, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	return 0, fmt.Errorf("find the mount: the kernel does not tell: %w", unix.ENOTSUP)
}

// mount is a line of mountinfo.
type mount struct {
	point, fstype string
}

// findMount looks for a mount in the text of /proc/self/mountinfo:
//
//	36 35 98:0 /root /mount\040point rw,noatime shared:1 - ext4 /dev/sda1 rw
func findMount(mountinfo io.Reader, id int) (mount, bool, error) {
	lines := bufio.NewReader(mountinfo)
	for {
		line, err := lines.ReadString('\n')
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(fields) > 5 && fields[0] == strconv.Itoa(id) {
			for i := 6; i+1 < len(fields); i++ {
				if fields[i] == "-" {
					return mount{unescape(fields[4]), unescape(fields[i+1])}, true, nil
				}
			}
		}
		if err == io.EOF {
			return mount{}, false, nil
		}
		if err != nil {
			return mount{}, false, err
		}
	}
}

// unescape undoes \ooo, three octal digits for a byte.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
