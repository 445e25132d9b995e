package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// foreground starts "vaultik mount" and returns when it says that the mount
// is ready.
func foreground(t *testing.T, b *bench, mnt string) (cmd *exec.Cmd, messages *bufio.Reader) {
	t.Helper()
	cmd = exec.Command("vaultik", "mount", "--identity", b.dir+"/kit.txt", mnt)
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
	return cmd, messages
}

// mounting is a bench with a snapshot and a folder to mount on.
func mounting(t *testing.T) (b *bench, mnt string) {
	t.Helper()
	if !canMount() {
		t.Skip("needs the right to open /dev/fuse, and fusermount3 unless root")
	}
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
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
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
	if code := b.vaultik("mount", "--identity", b.dir+"/kit.txt", mnt); code != 1 || !strings.Contains(b.err.String(), "hangs; remove it: fusermount3 -uz "+mnt+" (as root: umount -l "+mnt+")") {
		t.Errorf("exit code %d\n%s", code, b.err.String())
	}
}
