package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// soakEnv makes the stories of scale as long as the format allows; without
// it they are as long as CI has time for. "make soak" sets it.
const soakEnv = "VAULTIK_SOAK"

// scale is how much of something a story has.
func scale(short, long int) int {
	if os.Getenv(soakEnv) != "" {
		return long
	}
	return short
}

// mostMemory bounds what a backup may hold, in bytes, however much there is to
// back up.
const mostMemory = 250 << 20

// measured runs a backup, which must succeed within the bound of memory, and
// returns what it says.
func (m *machine) measured() summary {
	m.t.Helper()
	// The kernel counts what this process held before exec as the program's
	// own, so let it be little.
	debug.FreeOSMemory()
	must(m.t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	cmd := m.command("backup", "--json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("backup: %v\n%.4000s%s", err, &out, &errs)
	}
	s := m.summary(out.String())
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	m.t.Logf("%d changed, %d bytes read, %d stored, %d of metadata; %v, at most %d MiB of memory",
		s.Changed, s.Read, s.Stored, s.Metadata, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), peak>>20)
	if peak > mostMemory {
		m.t.Errorf("the backup held %d MiB, want %d at most", peak>>20, mostMemory>>20)
	}
	return s
}

// A path 4,000 folders deep, which no system call can name as a whole, is
// backed up and can be walked to its end.
func TestAPathFourThousandFoldersDeep(t *testing.T) {
	const depth = 4000
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Max < depth+500 {
		t.Fatalf("the hard limit of open files is %d; a backup holds each folder open that it is in, so raise it (ulimit -Hn)", limit.Max)
	}
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	must(t, os.Mkdir(src, 0o755))
	// By steps as well: whoever goes down with a handle for each level needs
	// as many as there are.
	t.Cleanup(func() { tool(t, "rm", "-rf", src) })
	stepDown(t, src, depth, func(dir, level int) {
		must(t, unix.Mkdirat(dir, "d", 0o750))
		if level%500 == 0 {
			putAt(t, dir, fmt.Sprint("level ", level))
		}
	}, func(bottom int) { putAt(t, bottom, "the bottom") })
	m.init(src)
	settle()
	if s := m.measured(); s.Changed < depth {
		t.Errorf("%d entries are new, want more than %d", s.Changed, depth)
	}
	again := m.measured()
	if again.Changed != 0 || again.Read != 0 {
		t.Errorf("unchanged, and still it recorded something: %+v", again)
	}
	stepDown(t, filepath.Join(m.mount(again.Snapshot), src), depth, func(dir, level int) {
		var st unix.Stat_t
		must(t, unix.Fstat(dir, &st))
		if level > 0 && st.Mode != unix.S_IFDIR|0o750 {
			t.Fatalf("level %d has mode %o", level, st.Mode)
		}
		if level%500 == 0 {
			wantAt(t, dir, fmt.Sprint("level ", level))
		}
	}, func(bottom int) { wantAt(t, bottom, "the bottom") })
}

// stepDown goes down a path of folders that are all called d. At each but the
// last it calls at before it takes the next step.
func stepDown(t *testing.T, root string, depth int, at func(dir, level int), bottom func(dir int)) {
	t.Helper()
	dir, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for level := range depth {
		at(dir, level)
		next, err := unix.Openat(dir, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(dir)
		if err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		dir = next
	}
	bottom(dir)
	unix.Close(dir)
}

// putAt makes a file with that content in a folder.
func putAt(t *testing.T, dir int, content string) {
	t.Helper()
	fd, err := unix.Openat(dir, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(t, err)
	_, err = unix.Write(fd, []byte(content))
	must(t, err)
	must(t, unix.Close(fd))
}

// wantAt reads it.
func wantAt(t *testing.T, dir int, content string) {
	t.Helper()
	fd, err := unix.Openat(dir, "file", unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(fd)
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	if err != nil || string(b[:n]) != content {
		t.Errorf("a file has %q, %v, want %q", b[:max(n, 0)], err, content)
	}
}

// A folder with half a million entries is backed up and listed, and an edit in
// it costs no more than the edit.
func TestAFolderWithHalfAMillionEntries(t *testing.T) {
	n := scale(20_000, 500_000)
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	must(t, os.MkdirAll(src, 0o755))
	name := func(i int) string { return filepath.Join(src, fmt.Sprintf("entry %07d of many", i)) }
	for i := range n {
		// Mostly empty: names are what this is about.
		content := ""
		if i%50 == 0 {
			content = fmt.Sprint("content ", i)
		}
		must(t, os.WriteFile(name(i), []byte(content), 0o644))
	}
	m.init(src)
	settle()
	if first := m.measured(); first.Changed < int64(n) {
		t.Errorf("%d entries are new, want %d and more", first.Changed, n)
	}
	if again := m.measured(); again.Changed != 0 || again.Read != 0 || again.Metadata > 16<<10 {
		t.Errorf("unchanged, and still it recorded something: %+v", again)
	}
	must(t, os.WriteFile(name(n/2), []byte("edited"), 0o644))
	must(t, os.Remove(name(n/3)))
	must(t, os.Rename(name(0), name(n)))
	edited := m.measured()
	// The folder, the edited entry and the one with another name.
	if edited.Changed != 3 || edited.Metadata > 64<<10 {
		t.Errorf("after three edits: %+v", edited)
	}
	mnt := filepath.Join(m.mount(edited.Snapshot), src)
	sameListing(t, src, mnt)
	for i := 50; i < n; i += max(50, n/400/50*50) {
		sameFile(t, name(i), filepath.Join(mnt, filepath.Base(name(i))))
	}
}

// A million tiny files take as much memory to back up as a few.
func TestAMillionTinyFiles(t *testing.T) {
	folders, each := scale(200, 10_000), 100
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	folder := func(i int) string { return filepath.Join(src, fmt.Sprintf("%02d/%03d", i/200, i)) }
	for i := range folders {
		must(t, os.MkdirAll(folder(i), 0o755))
		for k := range each {
			must(t, os.WriteFile(filepath.Join(folder(i), fmt.Sprint("file ", k)), fmt.Appendf(nil, "file %d of folder %d\n", k, i), 0o644))
		}
	}
	m.init(src)
	settle()
	if first := m.measured(); first.Changed < int64(folders*each) {
		t.Errorf("%d entries are new, want %d and more", first.Changed, folders*each)
	}
	if again := m.measured(); again.Changed != 0 || again.Read != 0 || again.Metadata > 16<<10 {
		t.Errorf("unchanged, and still it recorded something: %+v", again)
	}
	must(t, os.Rename(folder(0), folder(0)+" moved"))
	moved := m.measured()
	if moved.Read != 0 || moved.Blobs != 0 {
		t.Errorf("a moved folder was read again: %+v", moved)
	}
	mnt := filepath.Join(m.mount(moved.Snapshot), src)
	sameListing(t, src, mnt)
	for i := 1; i < folders; i += max(1, folders/200) {
		at := filepath.Join(folder(i), fmt.Sprint("file ", i%each))
		sameFile(t, at, filepath.Join(mnt, strings.TrimPrefix(at, src)))
	}
}

// sameListing compares the metadata of two trees that are too large to hold in
// memory side by side. Of folders, size and number of links are the file
// system's own affair.
func sameListing(t *testing.T, want, got string) {
	t.Helper()
	dir := t.TempDir()
	for name, root := range map[string]string{"want": want, "got": got} {
		tool(t, "sh", "-c", `cd "$1" && find . -type d -printf '%P %y %m %U %G %T@\n' -o -printf '%P %y %m %U %G %T@ %s %n %l\n' |
			LC_ALL=C sort -S 64M >"$2"`, "sh", root, filepath.Join(dir, name))
	}
	if out, err := exec.Command("diff", filepath.Join(dir, "want"), filepath.Join(dir, "got")).CombinedOutput(); err != nil {
		t.Errorf("the mount is not like the disk (%v):\n%.2000s", err, out)
	}
}

// sameFile compares the contents of two small files.
func sameFile(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.ReadFile(want)
	must(t, err)
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s: %q, %v, want %q", got, b, err, a)
	}
}
