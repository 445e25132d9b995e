package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inBackground runs "vaultik mount --background" to its end, with files of the
// caller's that are open from descriptor 3 on, and returns its output.
func inBackground(t *testing.T, b *bench, mnt string, files []*os.File, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command("vaultik", append([]string{"mount", "--background", "--identity", b.dir + "/kit.txt", mnt}, args...)...)
	cmd.Env = os.Environ()
	for k, v := range b.vars {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	// Files, because a pipe would be waited for while the mount holds it.
	out, errs := file(t), file(t)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, errs, files
	err = cmd.Run()
	t.Cleanup(func() { syscall.Unmount(mnt, syscall.MNT_FORCE|syscall.MNT_DETACH) })
	return text(t, out.Name()), text(t, errs.Name()), err
}

func file(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// What goes wrong after the terminal is gone can be read in a file, and the
// person is told in which.
func TestAMountInTheBackgroundWritesALog(t *testing.T) {
	b, mnt := mounting(t)
	out, errs, err := inBackground(t, b, mnt, nil)
	log := b.dir + "/state/mount.log"
	if err != nil || !strings.Contains(out, "is mounted on "+mnt+"\n") || !strings.Contains(out, "is written to "+log+"\n") {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	store, err := os.ReadDir(b.dir + "/store")
	if err != nil || len(store) != 1 {
		t.Fatal(store, err)
	}
	if err := os.RemoveAll(b.dir + "/store/" + store[0].Name() + "/blobs"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(mnt + "/latest" + b.dir + "/source/file"); err == nil {
		t.Fatal("a file whose blob is gone can be read")
	}
	got := text(t, log)
	for _, want := range []string{" " + mnt + ": vaultik: warning: read ", b.dir + "/source/file", "lost from the store"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %q:\n%s", want, got)
		}
	}
	if i, err := os.Stat(log); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("the log: %v %v", i.Mode(), err)
	}
}

func TestAMountInTheBackgroundIsOneJSONObject(t *testing.T) {
	b, mnt := mounting(t)
	out, errs, err := inBackground(t, b, mnt, nil, "--json")
	var got struct {
		Type       string `json:"message_type"`
		Snapshot   string
		Store      string
		Mountpoint string
		Log        string
	}
	if jsonErr := json.Unmarshal([]byte(out), &got); err != nil || jsonErr != nil || errs != "" {
		t.Fatalf("%v, %v\n%s%s", err, jsonErr, out, errs)
	}
	if got.Type != "mounted" || got.Snapshot != "" || got.Mountpoint != mnt || got.Store != b.store() || got.Log != b.dir+"/state/mount.log" {
		t.Errorf("got %+v", got)
	}
}

// A lock or a pipe of the caller's does not live as long as the mount.
func TestAMountInTheBackgroundLetsGoOfTheCallersFiles(t *testing.T) {
	b, mnt := mounting(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if out, errs, err := inBackground(t, b, mnt, []*os.File{write, write, write}); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	write.Close()
	if err := read.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("somebody still holds the other end: %v", err)
	}
}
