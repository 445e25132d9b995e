package fusefs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// A process must not wait for its own mount with a page fault or an exec, so
// what does that, or is to be killed, is another process: this test binary
// once more, in which TestProgram is what runs.
const (
	programVariable = "VAULTIK_TEST_PROGRAM"
	fileVariable    = "VAULTIK_TEST_FILE"
)

// programs read a file in the ways that programs have.
var programs = map[string]func(path string) ([]byte, error){
	"read in odd pieces": func(path string) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var out bytes.Buffer
		_, err = io.CopyBuffer(struct{ io.Writer }{&out}, struct{ io.Reader }{f}, make([]byte, 10_007))
		return out.Bytes(), err
	},
	"pread backwards": func(path string) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		i, err := f.Stat()
		if err != nil {
			return nil, err
		}
		out := make([]byte, i.Size())
		for end := i.Size(); end > 0; {
			begin := max(end-70_001, 0)
			if _, err := f.ReadAt(out[begin:end], begin); err != nil {
				return nil, err
			}
			end = begin
		}
		return out, nil
	},
	"mmap shared": func(path string) ([]byte, error) {
		return mapped(path, unix.PROT_READ, unix.MAP_SHARED)
	},
	"mmap private": func(path string) ([]byte, error) {
		out, err := mapped(path, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		return out, nil
	},
	"sendfile": func(path string) ([]byte, error) {
		return through(path, func(from, to int) (int, error) { return unix.Sendfile(to, from, nil, 1<<20) }, true)
	},
	"splice": func(path string) ([]byte, error) {
		return through(path, func(from, to int) (int, error) {
			n, err := unix.Splice(from, nil, to, nil, 1<<20, unix.SPLICE_F_MOVE)
			return int(n), err
		}, false)
	},
	"O_DIRECT": func(path string) ([]byte, error) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		buf, err := unix.Mmap(-1, 0, 1<<18, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		defer unix.Munmap(buf)
		var out []byte
		for {
			n, err := unix.Read(fd, buf)
			if n <= 0 || err != nil {
				return out, err
			}
			out = append(out, buf[:n]...)
		}
	},
	"readahead and fadvise": func(path string) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		for _, advice := range []int{unix.FADV_WILLNEED, unix.FADV_RANDOM, unix.FADV_DONTNEED, unix.FADV_SEQUENTIAL} {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, advice); err != nil {
				return nil, err
			}
		}
		return io.ReadAll(f)
	},
	"copy_file_range": func(path string) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		to, err := os.CreateTemp("", "copy-")
		if err != nil {
			return nil, err
		}
		defer os.Remove(to.Name())
		defer to.Close()
		if _, err := to.ReadFrom(f); err != nil { // falls back where the kernel cannot
			return nil, err
		}
		return os.ReadFile(to.Name())
	},
}

// mapped returns what a mapping of a file shows, and checks that zeros follow
// it on its last page.
func mapped(path string, protection, flags int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil || i.Size() == 0 {
		return nil, err
	}
	pages := (i.Size() + blockSize - 1) / blockSize * blockSize
	m, err := unix.Mmap(int(f.Fd()), 0, int(pages), protection, flags)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(m)
	out := slices.Clone(m[:i.Size()])
	if rest := m[i.Size():]; !bytes.Equal(rest, make([]byte, len(rest))) {
		return nil, errors.New("behind the end of the file something else than zeros is mapped")
	}
	if protection&unix.PROT_WRITE != 0 {
		for off := range m[:i.Size()] {
			m[off] ^= 0xff // nobody else's business
		}
	}
	return out, nil
}

// through moves a file into a socket or a pipe with move, and returns what
// comes out.
func through(path string, move func(from, to int) (int, error), socket bool) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var ends [2]int // out, in
	if socket {
		ends, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	} else {
		err = unix.Pipe2(ends[:], unix.O_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	moved := make(chan error, 1)
	go func() {
		defer unix.Close(ends[1])
		for {
			n, err := move(fd, ends[1])
			if err == unix.EINTR {
				continue
			}
			if n <= 0 || err != nil {
				moved <- err
				return
			}
		}
	}()
	f := os.NewFile(uintptr(ends[0]), "out")
	defer f.Close()
	out, err := io.ReadAll(f)
	return out, errors.Join(err, <-moved)
}

// TestProgram is no test: it is the other process.
func TestProgram(t *testing.T) {
	name := os.Getenv(programVariable)
	path := os.Getenv(fileVariable)
	switch read := programs[name]; {
	case name == "":
		t.Skip("run by other tests")
	case name == "storm":
		storm(t, path)
	default:
		got, err := read(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("sum %x\n", sha256.Sum256(got))
	}
}

// program runs one of the programs on a file.
func program(t *testing.T, name, path string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "-test.run=^TestProgram$", "-test.v")
	c.Env = append(os.Environ(), programVariable+"="+name, fileVariable+"="+path)
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestEveryWayToReadAFileGivesItsBytes(t *testing.T) {
	big := 5 << 20
	if testing.Short() {
		big = 2 << 20 // read ahead of, and pushed, all the same
	}
	files := map[string][]byte{"empty": nil, "one": []byte("1"), "page": fstest.Noise(1, blockSize), "odd": fstest.Noise(2, 300_001), "big": fstest.Noise(3, big+17)}
	for name := range programs {
		t.Run(name, func(t *testing.T) {
			var tree []fstest.Entry
			for file, content := range files {
				tree = append(tree, fstest.Regular("/"+file, content))
			}
			m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, tree...) // with cold caches
			for file, content := range files {
				if out, err := program(t, name, m.path(file)); err != nil || !strings.Contains(out, fmt.Sprintf("sum %x\n", sha256.Sum256(content))) {
					t.Errorf("%s: %v\n%s", file, err, out)
				}
				if got, err := os.ReadFile(m.path(file)); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s, read afterwards: %d bytes, %v", file, len(got), err)
				}
			}
			if err := m.warned(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is mapped and cannot be had is SIGBUS, as on a broken disk.
func TestLostContentThatIsMappedKillsTheProgram(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/lost", nil).With(func(e *fstest.Entry) {
		e.Pieces = []fstest.Piece{{Data: fstest.Noise(1, 100_000), Lost: true}}
	}))
	if out, err := program(t, "mmap shared", m.path("lost")); err == nil || !strings.Contains(out, "SIGBUS") || strings.Contains(out, "sum ") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestProgramsAndScriptsRunFromTheMount(t *testing.T) {
	needPrograms(t, "sh", "env")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	executable := func(e *fstest.Entry) { e.Mode = 0o755 }
	for _, o := range []Options{{}, {NoExec: true}} {
		m := mountSnapshot(t, o, fs.ChunkOptions{}, fstest.Regular("/sh", code).With(executable),
			fstest.Regular("/script", []byte("#!/bin/sh\necho \"a script says $1\"\n")).With(executable))
		for _, c := range []struct{ command, want string }{
			{m.path("sh") + " -c 'echo \"a program says $0\"' hello", "a program says hello\n"},
			{m.path("script") + " hello", "a script says hello\n"},
		} {
			// By way of a shell, because a process must not exec what it serves.
			out, err := exec.Command("sh", "-c", c.command).CombinedOutput()
			if ran := err == nil && string(out) == c.want; ran == o.NoExec {
				t.Errorf("noexec %v: %s: %v\n%s", o.NoExec, c.command, err, out)
			}
		}
	}
}

// Locks, watches and the like need no writing.
func TestProgramsMayLockAndWatchWhatTheyRead(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", []byte("x")))
	f, err := os.Open(m.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	for name, call := range map[string]func() error{
		"flock shared":    func() error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) },
		"flock exclusive": func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) },
		"lock to read":    func() error { return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}) },
		"OFD lock":        func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}) },
		"inotify":         func() error { _, err := unix.InotifyAddWatch(watch, m.path("f"), unix.IN_MODIFY); return err },
		"fsync":           func() error { return f.Sync() },
		"syncfs":          func() error { return unix.Syncfs(fd) },
		"access":          func() error { return unix.Access(m.path("f"), unix.R_OK) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := unix.Access(m.path("f"), unix.W_OK); !errors.Is(err, unix.EROFS) {
		t.Errorf("access for writing: %v", err)
	}
}

// df(1) shows a full disk of the size of what was backed up.
func TestDfShowsAFullDiskOfTheRightSize(t *testing.T) {
	needPrograms(t, "df")
	df := func(dir string) []string {
		t.Helper()
		out, err := exec.Command("df", "-B1", "--output=size,used,avail,pcent,itotal,iused,iavail", dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return strings.Fields(lines[len(lines)-1])
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Dir("/d"), fstest.Regular("/d/a", fstest.Noise(1, 1_000_000)), fstest.Symlink("/l", "d"))
	if got, want := df(m.path("d")), []string{"1003520", "1003520", "0", "100%", "4", "4", "0"}; !slices.Equal(got, want) { // whole blocks of 4,096 bytes
		t.Errorf("a snapshot: %q, want %q", got, want)
	}
	w := fstest.New(t)
	w.Snapshot("ann", "home", fstest.Regular("/a", fstest.Noise(1, 100_000)))
	w.Snapshot("ann", "home", fstest.Regular("/a", fstest.Noise(2, 200_000)))
	store, _ := mountStore(t, w, Options{})
	if got, want := df(filepath.Join(store.Dir(), "latest")), []string{"303104", "303104", "0", "100%", "4", "4", "0"}; !slices.Equal(got, want) {
		t.Errorf("a store: %q, want %q", got, want)
	}
}
