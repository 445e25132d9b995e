package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// household has everything that a copy can get wrong.
func household() []fstest.Entry {
	own := func(e *fstest.Entry) { e.UID, e.GID = 1000, 1001 }
	link := func(e *fstest.Entry) { e.Inode, e.Nlink = 77, 3; own(e) }
	var tree []fstest.Entry
	for _, e := range everyType() {
		if e.Type != metastore.Socket { // tar(1) leaves them out
			tree = append(tree, e.With(own))
		}
	}
	return append(tree,
		fstest.Dir("/home/ann").With(func(e *fstest.Entry) {
			e.Mode, e.MTime = 0o2750, metastore.Time{Sec: 1_500_000_000, Nsec: 1}
			own(e)
		}).Xattr("user.folder", "yes"),
		fstest.Regular("/home/ann/big", fstest.Noise(1, 5_000_000)).With(own),
		fstest.Regular("/home/ann/one", []byte("linked")).With(link),
		fstest.Regular("/home/ann/sub/two", []byte("linked")).With(link),
		fstest.Regular("/three", []byte("linked")).With(link),
		fstest.Regular("/home/ann/setuid", []byte("#!/bin/true")).With(func(e *fstest.Entry) { e.Mode = 0o4755; own(e) }),
		fstest.Regular("/home/ann/tagged", []byte("x")).With(own).Xattr("user.a", "1").Xattr("user.b", strings.Repeat("2", 1000)),
		fstest.Regular("/home/ann/empty", nil).With(own),
		fstest.Regular("/home/ann/\xff\x01 name\n", []byte("odd")).With(own),
		fstest.Symlink("/home/ann/dangling", "../\xfe/nowhere").With(own),
		fstest.Entry{Path: "/home/ann/sparse", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o600}},
			Pieces: []fstest.Piece{{Hole: 1 << 20}, {Data: fstest.Noise(2, 4096)}, {Hole: 3 << 20}}},
		fstest.Dir("/home/ann/empty dir").With(own),
	)
}

func TestCopiesHaveEverything(t *testing.T) {
	needRoot(t, "make devices and give files away")
	needPrograms(t, "cp", "tar", "rsync", "sh")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, household()...)
	want := describe(t, m.Dir())
	if len(want) < len(household()) {
		t.Fatal("the mount shows less than was backed up")
	}
	for name, script := range map[string]string{
		"cp":    `cp -a "$1/." "$2"`,
		"tar":   `tar -C "$1" --xattrs --xattrs-include='*' --numeric-owner -cf - . | tar -C "$2" --xattrs --xattrs-include='*' --numeric-owner --same-owner -pxf -`,
		"rsync": `rsync -aHAX --numeric-ids "$1/" "$2/"`,
	} {
		to := t.TempDir()
		if out, err := exec.Command("sh", "-euc", script, "sh", m.Dir(), to).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
			continue
		}
		if diff := cmp.Diff(want, describe(t, to)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := m.warned(); err != nil {
		t.Error(err)
	}
	sparse := filepath.Join(t.TempDir(), "sparse")
	if out, err := exec.Command("cp", "-a", m.path("home/ann/sparse"), sparse).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(sparse, &st); err != nil || st.Size != 4<<20+4096 || st.Blocks*512 > 64<<10 {
		t.Errorf("a copied sparse file has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
	}
}

func TestHolesAreShownAndFilesWithoutHaveNone(t *testing.T) {
	count := newCounter()
	m := mountSnapshot(t, Options{wrap: count.wrap}, fs.ChunkOptions{},
		fstest.Entry{Path: "/sparse", File: metastore.File{Stat: metastore.Stat{Type: metastore.Regular, Mode: 0o600}},
			Pieces: []fstest.Piece{{Hole: 1 << 20}, {Data: fstest.Noise(2, 5000)}, {Hole: 1 << 30}}},
		fstest.Regular("/full", fstest.Noise(1, 2_000_001)))
	f, err := os.Open(m.path("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const data, hole, end = 1 << 20, 1<<20 + 5000, 1<<20 + 5000 + 1<<30
	for _, c := range []struct {
		whence    int
		off, want int64
		err       error
	}{
		{unix.SEEK_DATA, 0, data, nil}, {unix.SEEK_HOLE, 0, 0, nil}, {unix.SEEK_HOLE, data, hole, nil}, {unix.SEEK_DATA, hole - 1, hole - 1, nil},
		{unix.SEEK_DATA, hole, 0, unix.ENXIO}, {unix.SEEK_HOLE, hole + 7, hole + 7, nil}, {unix.SEEK_HOLE, end, 0, unix.ENXIO}, {unix.SEEK_DATA, end, 0, unix.ENXIO},
		{io.SeekEnd, 0, end, nil},
	} {
		if got, err := f.Seek(c.off, c.whence); err == nil && got != c.want || !errors.Is(err, c.err) {
			t.Errorf("seek %d from %d: got %d, %v; want %d, %v", c.whence, c.off, got, err, c.want, c.err)
		}
	}
	for name, want := range map[string]int64{"sparse": (5000 + 511) / 512, "full": (2_000_001 + 511) / 512} {
		var st unix.Stat_t
		if err := unix.Stat(m.path(name), &st); err != nil || st.Blocks < want || st.Blocks > want+8 {
			t.Errorf("%s: %d blocks, want %d; %v", name, st.Blocks, want, err)
		}
	}
	count.reset()
	if out, err := exec.Command("cp", m.path("full"), t.TempDir()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if n := count.of("LSEEK"); n != 0 {
		t.Errorf("copying a file without holes looked for them %d times", n)
	}
}

func TestProgramsRunFromTheMount(t *testing.T) {
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	code, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/true", code).With(func(e *fstest.Entry) { e.Mode = 0o755 }))
	// Not exec'd by this process: it waits for the exec with a processor that
	// the garbage collector wants to stop, and for the mount that it serves.
	if out, err := exec.Command("sh", "-c", `"$0"; exit $?`, m.path("true")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestManyReadersAtOnceAllGetTheirBytes(t *testing.T) {
	want := fstest.Noise(1, 8<<20)
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{Memory: 4 << 20}, fstest.Regular("/f", want))
	var readers sync.WaitGroup
	for i := range 64 {
		readers.Go(func() {
			f, err := os.Open(m.path("f"))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			off := int64(i) * 100_003
			got, err := io.ReadAll(io.NewSectionReader(f, off, 1<<20))
			if err != nil || !bytes.Equal(got, want[off:off+1<<20]) {
				t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	readers.Wait()
}

func TestAnOutageFailsReadsOnlyAndHeals(t *testing.T) {
	// Names come from a database, which may take a busy machine longer than a store has.
	m := mountSnapshot(t, Options{Timeout: 10 * time.Second}, fs.ChunkOptions{Timeout: 50 * time.Millisecond}, fstest.Regular("/dir/f", fstest.Noise(1, 100_000)), fstest.Symlink("/dir/l", "f"))
	m.faulty.Script(storetest.Fault{Op: storetest.OpGet, Every: true, Kind: storetest.Stall})
	if got, err := os.ReadFile(m.path("dir", "f")); !errors.Is(err, unix.EIO) || len(got) != 0 {
		t.Errorf("read: %d bytes, %v", len(got), err)
	}
	if err := m.warned(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the reason given: %v", err)
	}
	if diff := cmp.Diff([]string{"f", "l"}, names(t, m.path("dir"))); diff != "" {
		t.Error(diff)
	}
	if i, err := os.Stat(m.path("dir", "l")); err != nil || i.Size() != 100_000 {
		t.Error("stat:", err)
	}
	m.faulty.Script()
	// The failure is repeated for a second at most.
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := os.ReadFile(m.path("dir", "f"))
		if err == nil && bytes.Equal(got, fstest.Noise(1, 100_000)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never heals: %d bytes, %v", len(got), err)
		}
		runtime.Gosched()
	}
}

// newGate holds back reads of the store until it is opened.
func newGate(t *testing.T, m *mounted) *storetest.Gate {
	g := storetest.NewGate(t)
	m.gate.Store(g)
	return g
}

func TestAReaderUnderAStormOfSignalsGetsItsBytes(t *testing.T) {
	want := fstest.Noise(1, 100_000)
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", want))
	g := newGate(t, m)
	var thread atomic.Int32
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	got := make([]byte, len(want))
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		fd, err := unix.Open(m.path("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- result{0, err}
			return
		}
		defer unix.Close(fd)
		thread.Store(int32(unix.Gettid()))
		n, err := unix.Pread(fd, got, 0) // not retried: any EINTR shows
		done <- result{n, err}
	}()
	g.Await(t)
	for range 1000 { // as the Go runtime does to preempt goroutines
		if err := unix.Tgkill(unix.Getpid(), int(thread.Load()), unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	g.Open()
	if r := storetest.Within(t, done); r.err != nil || r.n == 0 || !bytes.Equal(got[:r.n], want[:r.n]) {
		t.Errorf("%d bytes, %v", r.n, r.err)
	}
}

func TestAKilledReaderDoesNotWaitForTheStore(t *testing.T) {
	want := fstest.Noise(1, 100_000)
	m := mountSnapshot(t, Options{Timeout: time.Hour}, fs.ChunkOptions{Timeout: time.Hour}, fstest.Regular("/f", want))
	g := newGate(t, m)
	c := exec.Command("cat", m.path("f"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	g.Await(t)
	if err := c.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil { // the store is still held back
		t.Error("it was killed, and ended well")
	}
	g.Open()
	if got, err := os.ReadFile(m.path("f")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the next reader: %d bytes, %v", len(got), err)
	}
}

func TestAnInterruptedReadRunsOnForAWhile(t *testing.T) {
	want := fstest.Noise(1, 100_000)
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, fstest.Regular("/f", want))
	var st unix.Stat_t
	if err := unix.Stat(m.path("f"), &st); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, m)
	interrupted := make(chan struct{})
	close(interrupted)
	read := func() (int, fuse.Status) {
		buf := make([]byte, len(want))
		r, status := m.fs.Read(interrupted, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: st.Ino}}, buf)
		if status != fuse.OK {
			return 0, status
		}
		got, status := r.Bytes(nil)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes are not those of the file", len(got))
		}
		return len(got), status
	}
	if n, status := read(); n != 0 || status != fuse.EINTR { // the store is held back
		t.Errorf("without an answer of the store: %d bytes, %v", n, status)
	}
	g.Open()
	n, status := read()
	for end := time.Now().Add(time.Minute); status == fuse.EINTR && time.Now().Before(end); {
		n, status = read() // a busy machine takes longer than that while
	}
	if n != len(want) || status != fuse.OK {
		t.Errorf("with an answer: %d bytes, %v", n, status)
	}
}
