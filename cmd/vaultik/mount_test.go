package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreground starts "vaultik mount" in a session without a terminal and
// returns when it says that the mount is ready.
func foreground(t *testing.T, b *bench, mnt string, args ...string) (cmd *exec.Cmd, messages *bufio.Reader) {
	t.Helper()
	cmd = exec.Command("vaultik", append([]string{"mount", "--identity", b.dir + "/kit.txt", mnt}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, ready(t, b, cmd, mnt)
}

// ready starts a mount and waits until it says that it is ready.
func ready(t *testing.T, b *bench, cmd *exec.Cmd, mnt string) (messages *bufio.Reader) {
	t.Helper()
	cmd.Env = os.Environ()
	for k, v := range b.vars {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			syscall.Unmount(mnt, syscall.MNT_FORCE|syscall.MNT_DETACH)
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	messages = bufio.NewReader(errs)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "is mounted on") {
		text, _ := messages.ReadString('\n')
		t.Fatalf("it says %q, %v\n%s", line, err, text)
	}
	return messages
}

// mounting is a bench with a snapshot and a folder to mount on.
func mounting(t *testing.T) (b *bench, mnt string) {
	t.Helper()
	if !canMount() {
		t.Skip("needs the right to open /dev/fuse, and fusermount3 unless root")
	}
	// Under nohup the mounts would ignore it, too; what is caught here is not
	// ignored there.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangup) })
	b = newBench(t)
	mnt = b.dir + "/mnt"
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.dir+"/source/file", []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "--store", b.store(), "--kit", b.dir + "/kit.txt", b.dir + "/source"}, {"backup"}} {
		if code := b.vaultik(args...); code != 0 {
			t.Fatalf("vaultik %q: exit code %d\n%s", args, code, b.err.String())
		}
	}
	return b, mnt
}

func TestASignalEndsAMountCleanly(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			b, mnt := mounting(t)
			cmd, _ := foreground(t, b, mnt)
			cmd.Process.Signal(s)
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ends with %v", err)
			}
			if left, err := os.ReadDir(mnt); err != nil || len(left) > 0 {
				t.Errorf("left at the mountpoint: %v, %v", left, err)
			}
		})
	}
}

// A terminal that closes does not leave a dead mount behind.
func TestAMountEndsWithItsTerminal(t *testing.T) {
	b, mnt := mounting(t)
	terminal, name := newTerminal(t)
	tty, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("vaultik", "mount", "--identity", b.dir+"/kit.txt", mnt)
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // of descriptor 0
	ready(t, b, cmd, mnt)
	tty.Close()
	terminal.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if left, err := os.ReadDir(mnt); err != nil || len(left) > 0 {
		t.Errorf("left at the mountpoint: %v, %v", left, err)
	}
}

// newTerminal makes a terminal, and returns the end that a person sits at and
// the name of the other.
func newTerminal(t *testing.T) (*os.File, string) {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprintf("/dev/pts/%d", n)
}

// Where there is no terminal, SIGHUP asks for a look at the store.
func TestHangupLooksForNewSnapshots(t *testing.T) {
	b, mnt := mounting(t)
	cmd, _ := foreground(t, b, mnt, "--refresh", "0")
	if code := b.vaultik("backup"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, b.err.String())
	}
	shown := func() int {
		t.Helper()
		list, err := os.ReadDir(mnt + "/snapshots")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := shown(); n != 1 {
		t.Errorf("%d snapshots before it is asked to look", n)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	for deadline := time.Now().Add(time.Minute); shown() != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new snapshot does not appear")
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// A service of systemd is told to be ready when the mount is.
func TestAMountTellsSystemdThatItIsReady(t *testing.T) {
	b, mnt := mounting(t)
	address := &net.UnixAddr{Name: filepath.Join(b.dir, "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	b.vars["NOTIFY_SOCKET"] = address.Name
	foreground(t, b, mnt)
	if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 100)
	if n, err := socket.Read(word); err != nil || string(word[:n]) != "READY=1" {
		t.Errorf("it says %q, %v", word[:max(n, 0)], err)
	}
}

// What a crash left behind is replaced, and said.
func TestAMountThatACrashLeftIsReplaced(t *testing.T) {
	b, mnt := mounting(t)
	cmd, _ := foreground(t, b, mnt)
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.ReadDir(mnt); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("after the crash: %v", err)
	}
	if code := b.vaultik("mount", "nosuch", mnt, "--identity", b.dir+"/kit.txt"); code != 1 {
		t.Errorf("exit code %d\n%s", code, b.err.String())
	}
	if _, err := os.ReadDir(mnt); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("after an attempt that failed: %v", err)
	}
	cmd, messages := foreground(t, b, mnt)
	if line, err := messages.ReadString('\n'); err != nil || !strings.Contains(line, "whose process is gone; it is replaced") {
		t.Errorf("it says %q, %v", line, err)
	}
	if list, err := os.ReadDir(mnt + "/snapshots"); err != nil || len(list) != 1 {
		t.Errorf("in its place: %v, %v", list, err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// Told to stop while a file is open, it says so and waits for the file.
func TestAMountInUseWaitsUntilItIsNot(t *testing.T) {
	b, mnt := mounting(t)
	cmd, messages := foreground(t, b, mnt)
	f, err := os.Open(mnt + "/latest")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	line, err := messages.ReadString('\n')
	if err != nil || !strings.Contains(line, "in use") || !strings.Contains(line, "waiting") {
		t.Errorf("it says %q, %v", line, err)
	}
	f.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// Interrupted twice, it gives up at once, and says that it failed.
func TestASecondSignalGivesUp(t *testing.T) {
	b, mnt := mounting(t)
	cmd, messages := foreground(t, b, mnt)
	f, err := os.Open(mnt + "/latest")
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(mnt, syscall.MNT_DETACH)
	defer f.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	if _, err := messages.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("it ends with %v", err)
	}
}

// A mount whose process does not answer is refused, and not looked at, which
// nothing could interrupt.
func TestAMountThatHangsIsRefused(t *testing.T) {
	b, mnt := mounting(t)
	cmd, _ := foreground(t, b, mnt)
	cmd.Process.Signal(syscall.SIGSTOP)
	defer cmd.Process.Signal(syscall.SIGCONT)
	if _, err := syscall.Wait4(cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil { // until it has stopped
		t.Fatal(err)
	}
	if code := b.vaultik("mount", "--identity", b.dir+"/kit.txt", mnt); code != 1 || !strings.Contains(b.err.String(), "hangs; remove it: fusermount3 -uz "+mnt+" (as root: umount -fl "+mnt+")") {
		t.Errorf("exit code %d\n%s", code, b.err.String())
	}
}
