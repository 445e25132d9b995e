package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// A program that is interrupted all the time, as the Go runtime does to
// itself, never gets to see it: 64 threads look names up, list, stat and read
// while a store answers slowly, without trying anything again.
func TestAStormOfSignalsReachesNobody(t *testing.T) {
	var tree []fstest.Entry
	for i := range 64 {
		tree = append(tree, fstest.Regular(fmt.Sprintf("/%02d/file", i), fstest.Noise(uint64(i), 200_000)), fstest.Symlink(fmt.Sprintf("/%02d/link", i), "file"))
	}
	w := fstest.New(t)
	w.Snapshot("ann", "home", tree...)
	slow := storetest.NewFaulty(w.Store)
	slow.OnCall = func(_ int, op, _ string) {
		if op == storetest.OpGet {
			time.Sleep(20 * time.Millisecond)
		}
	}
	m := mountStoreOver(t, w, slow, Options{}) // the first look loads the snapshot
	if out, err := program(t, "storm", filepath.Join(m.Dir(), "latest")); err != nil || !strings.Contains(out, "signals, no errors") {
		t.Errorf("%v\n%s", err, out)
	}
}

// storm reads a tree that TestAStormOfSignalsReachesNobody made, in 64 threads
// to which signals are sent without pause.
func storm(t *testing.T, root string) {
	var threads sync.Map
	var readers, sender sync.WaitGroup
	stop := make(chan struct{})
	var sent atomic.Int64
	sender.Go(func() {
		for {
			threads.Range(func(id, _ any) bool {
				if unix.Tgkill(unix.Getpid(), id.(int), unix.SIGURG) == nil {
					sent.Add(1)
				}
				return true
			})
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	for i := range 64 {
		readers.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends
			threads.Store(unix.Gettid(), true)
			defer threads.Delete(unix.Gettid())
			dir := filepath.Join(root, fmt.Sprintf("%02d", i))
			for range 3 {
				if err := look(dir, fstest.Noise(uint64(i), 200_000)); err != nil {
					t.Errorf("%s: %v", dir, err)
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	sender.Wait()
	if !t.Failed() && sent.Load() > 0 {
		fmt.Println(sent.Load(), "signals, no errors")
	}
}

// look makes each call once, so that an EINTR shows.
func look(dir string, want []byte) error {
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer unix.Close(d)
	if n, err := unix.Getdents(d, make([]byte, 4096)); err != nil || n == 0 {
		return fmt.Errorf("list: %d, %w", n, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d, "file", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := unix.Fstatat(d, "absent", &st, 0); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("stat of what is not there: %w", err)
	}
	if n, err := unix.Readlinkat(d, "link", make([]byte, 100)); n != 4 {
		return fmt.Errorf("readlink: %d, %w", n, err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(dir, "file"), "user.a", make([]byte, 10)); !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("getxattr: %w", err)
	}
	fd, err := unix.Openat(d, "link", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	got := make([]byte, len(want))
	for off := 0; off < len(got); {
		// A short read is what a signal may make of a read that has some bytes.
		n, err := unix.Pread(fd, got[off:], int64(off))
		if err != nil || n == 0 {
			return fmt.Errorf("read at %d: %d, %w", off, n, err)
		}
		off += n
	}
	if !bytes.Equal(got, want) {
		return errors.New("other bytes than were backed up")
	}
	return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
}
