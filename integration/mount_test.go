package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// mounting is a mount whose process a test kills.
type mounting struct {
	*exec.Cmd
	dir string
	log bytes.Buffer
}

// startMount mounts the store on a new folder.
func (m *machine) startMount(dir string, args ...string) *mounting {
	m.t.Helper()
	args = append([]string{"mount", "--store", m.store, "--identity", m.kit()}, args...)
	p := &mounting{Cmd: m.command(append(args, dir)...), dir: dir}
	ready, err := p.StdoutPipe()
	must(m.t, err)
	p.Stderr = &p.log
	must(m.t, p.Start())
	m.t.Cleanup(p.stop)
	if _, err := ready.Read(make([]byte, 1)); err != nil { // it says where it is mounted
		_ = p.Wait() // the log says why
		m.t.Fatalf("vaultik %q: %v\n%s", args, err, p.log.String())
	}
	return p
}

// kill ends the process as a crash does.
func (p *mounting) kill(t *testing.T) {
	t.Helper()
	must(t, p.Process.Kill())
	_ = p.Wait() // it was killed
}

func (p *mounting) stop() {
	if p.ProcessState == nil {
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Wait() // the test is over
	}
	for mounted(p.dir) && unix.Unmount(p.dir, unix.MNT_FORCE|unix.MNT_DETACH) == nil {
	}
}

// After a crash the folder gives errors until somebody mounts there again. It
// is never empty: a program that mirrors it would delete everything.
func TestAKilledMountIsNeverAnEmptyFolder(t *testing.T) {
	asRoot(t)
	l := &link{}
	_, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "notes"), "read before the crash")
	random(t, filepath.Join(src, "big"), 3<<20)
	m.init(src)
	m.backup()
	copied := filepath.Join(m.dir, "copy")
	dir := filepath.Join(m.dir, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	mirror := func() ([]byte, error) {
		return exec.Command("rsync", "-a", "--delete", dir+"/", copied+"/").CombinedOutput()
	}
	p := m.startMount(dir, "latest")
	if out, err := mirror(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := scan(t, copied, Look{Root: true})
	p.stop()

	// The cache is cold again, and the store takes its time.
	must(t, os.RemoveAll(filepath.Join(m.dir, "cache")))
	p = m.startMount(dir, "latest")
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	l.watch(func(int) { once() })
	l.hold()
	cat := exec.Command("cat", filepath.Join(dir, src, "big"))
	var said bytes.Buffer
	cat.Stderr = &said
	must(t, cat.Start())
	storetest.Within(t, asked)
	p.kill(t)
	if err := cat.Wait(); err == nil {
		t.Error("the reader takes the crash for the end of the file")
	}
	for _, look := range []func() error{
		func() error { _, err := os.ReadDir(dir); return err },
		func() error { _, err := os.Lstat(filepath.Join(dir, src, "never seen")); return err },
		func() error { _, err := os.ReadFile(filepath.Join(dir, src, "notes")); return err },
	} {
		if err := look(); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("after the crash: %v", err)
		}
	}
	if out, err := mirror(); err == nil {
		t.Errorf("a mirror of the dead mount ends well: %s", out)
	}
	same(t, "the mirror", want, scan(t, copied, Look{Root: true}))

	l.release()
	p = m.startMount(dir, "latest")
	if out, err := mirror(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	same(t, "the mirror", want, scan(t, copied, Look{Root: true}))
	p.stop() // and all that it said has arrived
	if !strings.Contains(p.log.String(), "is replaced") {
		t.Errorf("it says %s", p.log.String())
	}
}

// While the store is away, what needs it is an input/output error after a
// while, and what does not need it goes on. When it comes back, all is well
// again without anybody doing anything.
func TestAMountOutlivesAnOutageOfItsStore(t *testing.T) {
	l := &link{}
	_, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	for _, name := range []string{"refused", "silent", "well"} {
		random(t, filepath.Join(src, name), 3<<20)
	}
	m.init(src)
	m.backup()
	dir := filepath.Join(m.dir, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	p := m.startMount(dir, "--timeout", "2s", "--refresh", "1s")
	shown := filepath.Join(dir, "latest", src)
	tool(t, "ls", "-lR", shown) // loads the snapshot

	for _, away := range []struct {
		name       string
		begin, end func()
	}{
		{"silent", l.hold, l.release}, // the last one first: what comes behind is fetched ahead
		{"refused", l.down, l.up},
	} {
		name := away.name
		away.begin()
		if got, err := os.ReadFile(filepath.Join(shown, name)); !errors.Is(err, syscall.EIO) || len(got) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if out := tool(t, "find", shown, "-type", "f", "-size", "3M"); strings.Count(out, "\n") != 3 {
			t.Errorf("%s: find shows\n%s", name, out)
		}
		away.end()
		began := time.Now()
		want, err := os.ReadFile(filepath.Join(src, name))
		must(t, err)
		eventually(t, "a file after the outage", func() bool {
			got, err := os.ReadFile(filepath.Join(shown, name))
			return err == nil && bytes.Equal(got, want)
		})
		t.Logf("%s: well again %v after the store is back", name, time.Since(began))
	}
	write(t, filepath.Join(src, "later"), "after the outage")
	id := m.backup()
	eventually(t, "the new snapshot", func() bool {
		got, err := os.ReadFile(filepath.Join(dir, "snapshots", id, src, "later"))
		return err == nil && string(got) == "after the outage"
	})
	p.stop()
	if log := p.log.String(); !strings.Contains(log, "did not deliver") && !strings.Contains(log, "no answer") {
		t.Errorf("of the outage it says\n%s", log)
	}
}

// mount(8) and /etc/fstab mount, and return once the mount is ready. All of it
// happens in a mount table of its own, where vaultik is installed.
func TestMountAndFstabMountASnapshot(t *testing.T) {
	asRoot(t)
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "file"), "from a snapshot")
	must(t, os.Chmod(filepath.Join(src, "file"), 0o600))
	m.init(src)
	id := m.backup()
	write(t, filepath.Join(m.dir, "fstab"), strings.Join([]string{
		"vaultik " + m.dir + "/one fuse.vaultik ro,snapshot=latest,allow_other,uid=4000,gid=4001,identity=" + m.kit() + ",_netdev,nofail,x-systemd.automount 0 0",
		m.store + " " + m.dir + "/all fuse.vaultik noexec,refresh=5m,identity=" + m.kit() + " 0 0", "",
	}, "\n"))
	for _, name := range []string{"one", "all", "bin"} {
		must(t, os.Mkdir(filepath.Join(m.dir, name), 0o755))
	}
	for p := m.dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	tool(t, "ln", "-s", vaultik, filepath.Join(m.dir, "bin/vaultik"))
	tool(t, "ln", "-s", vaultik, filepath.Join(m.dir, "bin/mount.fuse.vaultik"))
	write(t, filepath.Join(m.dir, "story.sh"), `set -eu
cd "$1"
mount --bind bin /usr/local/bin
mount -a -T fstab
grep -q " $1/one fuse.vaultik ro,nosuid,nodev,.*allow_other" /proc/mounts
grep -q "^$2 $1/all fuse.vaultik ro,nosuid,nodev,noexec," /proc/mounts
setpriv --reuid=4000 --regid=4001 --clear-groups cat one/source/file
stat -c ' %u:%g %a' one/source/file
test -d "all/snapshots/$3"
mount -a -T fstab # mounts nothing twice
test "$(grep -c " $1/.* fuse.vaultik" /proc/mounts)" = 2
umount one
umount all
if mount -t fuse.vaultik vaultik one -o identity=/nowhere; then exit 1; else test $? = 32; fi
if mount -t fuse.vaultik vaultik one -o alow_other; then exit 1; else test $? = 1; fi
bin/mount.fuse.vaultik vaultik "$1/one" -n -o "rw,identity=$1/kit.txt,snapshot=$3"
cat one/source/file
umount one
`)
	// The paths in the snapshot begin at "/".
	tool(t, "sed", "-i", "s| one/source| one"+src+"|", filepath.Join(m.dir, "story.sh"))
	story := exec.Command("timeout", "120", "unshare", "--mount", "--propagation=private", "sh", filepath.Join(m.dir, "story.sh"), m.dir, m.store, id)
	story.Env = append(m.env, "VAULTIK_IDENTITY_FILE=")
	var errs bytes.Buffer
	story.Stderr = &errs
	out, err := story.Output()
	if want := "from a snapshot 4000:4001 600\nfrom a snapshot"; err != nil || string(out) != want {
		t.Errorf("%v: %q\n%s", err, out, errs.String())
	}
}
