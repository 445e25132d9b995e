package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/fs/fusefs/mountpoint"
)

// servingVariable makes TestMountUntilKilled serve a mount.
const servingVariable = "VAULTIK_TEST_SERVE"

// TestMountUntilKilled is no test: it is the process that others kill. Its
// store answers until somebody reads the file; then it says so, and with
// "waiting" writes into the page cache what the kernel is reading.
func TestMountUntilKilled(t *testing.T) {
	how := os.Getenv(servingVariable)
	if how == "" {
		t.Skip("run by other tests")
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", fstest.Noise(1, 100_000)))
	var st unix.Stat_t
	if err := unix.Stat(m.path("f"), &st); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, m)
	fmt.Println("mounted on", m.Dir())
	<-g.Reached()
	if how == "waiting" {
		go m.server.InodeNotifyStoreCache(st.Ino, 0, make([]byte, 4096))
	}
	fmt.Println("a reader waits")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Error(err)
	}
}

// serving is a mount in another process.
type serving struct {
	*exec.Cmd
	dir   string
	lines *bufio.Scanner
}

func serve(t *testing.T, how string) *serving {
	t.Helper()
	needFuse(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{Cmd: exec.Command(self, "-test.run=^TestMountUntilKilled$", "-test.v")}
	s.Env = append(os.Environ(), servingVariable+"="+how)
	if _, err := s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewScanner(out)
	s.dir = s.says("mounted on ")
	t.Cleanup(func() {
		// For a test that failed halfway; MNT_FORCE ends what hangs.
		if mounted, _ := mountpoint.Mounted(s.dir); mounted {
			if err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
		if s.ProcessState == nil {
			s.kill(t)
			_ = s.Wait() // it was killed
		}
		if err := os.RemoveAll(filepath.Dir(s.dir)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// says waits for a line and returns what follows its beginning.
func (s *serving) says(begin string) string {
	for s.lines.Scan() {
		if _, rest, ok := strings.Cut(s.lines.Text(), begin); ok {
			return rest
		}
	}
	return ""
}

func (s *serving) kill(t *testing.T) {
	t.Helper()
	if err := s.Process.Kill(); err != nil {
		t.Error(err)
	}
}

// read lets another program read from the mount.
func (s *serving) read(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command("cat", filepath.Join(s.dir, "f"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if s.says("a reader waits") != "" {
		t.Fatal("it says more")
	}
	return c
}

// mountAgain mounts something else there.
func mountAgain(t *testing.T, dir string) {
	t.Helper()
	if err := mountpoint.RemoveDead(dir); err != nil {
		t.Fatal(err)
	}
	m := mountOnto(t, dir, Options{}, fs.ChunkOptions{}, fstest.Regular("/new", []byte("new")))
	if got, err := os.ReadFile(m.path("new")); string(got) != "new" || err != nil {
		t.Errorf("mounted anew: %q %v", got, err)
	}
}

func TestADeadMountIsAnErrorUntilItIsReplaced(t *testing.T) {
	s := serve(t, "quiet")
	s.kill(t)
	_ = s.Wait() // it was killed
	if _, err := os.ReadDir(s.dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("listing a dead mount: %v", err)
	}
	if place, err := mountpoint.Check(s.dir); place != s.dir || !errors.Is(err, mountpoint.ErrDead) {
		t.Errorf("a mount whose process was killed: %q, %v", place, err)
	}
	if _, err := os.ReadDir(s.dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("after that look: %v", err)
	}
	mountAgain(t, s.dir)
}

// A reader whose server is killed gets an error at once.
func TestAReaderOutlivesTheProcessThatIsKilled(t *testing.T) {
	s := serve(t, "quiet")
	c := s.read(t)
	s.kill(t)
	_ = s.Wait() // it was killed
	if err := c.Wait(); err == nil {
		t.Error("the reader ends well")
	}
	mountAgain(t, s.dir)
}

// A process that is killed while it writes into the page cache of a file that
// the kernel is reading waits for the answer that only it can give: it cannot
// end, and whoever looks into the mount hangs.
func TestAWedgedMountIsAbortedAndReplaced(t *testing.T) {
	s := serve(t, "waiting")
	c := s.read(t)
	waitsForItself(t, s.Process.Pid)
	s.kill(t)
	answered := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answered <- unix.Statfs(s.dir, &st)
	}()
	select {
	case <-answered:
		t.Skip("this kernel ends such a process")
	case <-time.After(2 * time.Second):
	}
	if place, err := mountpoint.Check(s.dir); place != s.dir || !errors.Is(err, mountpoint.ErrDead) {
		t.Errorf("a wedged mount: %q, %v", place, err)
	}
	if _, err := os.ReadDir(s.dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("in its place: %v", err)
	}
	_ = s.Wait() // it was killed, and now it ends
	if err := c.Wait(); err == nil {
		t.Error("the reader ends well")
	}
	mountAgain(t, s.dir)
}

// waitsForItself waits until a thread of the process stays in a wait that no
// signal ends.
func waitsForItself(t *testing.T, pid int) {
	t.Helper()
	seen := make(map[string]int) // times in a row, by thread
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			text, err := os.ReadFile(task)
			if err != nil || !strings.Contains(string(text), "\nState:\tD") {
				seen[task] = 0
			} else if seen[task]++; seen[task] == 100 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no thread waits for the mount")
		}
	}
}

// A mount whose process is alive is nobody's to abort, however long it takes.
func TestAStoppedMountHangsAndIsLeftAlone(t *testing.T) {
	s := serve(t, "quiet")
	if err := s.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(s.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil { // until it has stopped
		t.Fatal(err)
	}
	if place, err := mountpoint.Check(s.dir); place != s.dir || !errors.Is(err, mountpoint.ErrHangs) {
		t.Errorf("a stopped mount: %q, %v", place, err)
	}
	if err := mountpoint.RemoveDead(s.dir); err != nil {
		t.Error(err)
	}
	if err := s.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.dir); len(got) != 1 || got[0] != "f" {
		t.Errorf("once it goes on: %q", got)
	}
}
