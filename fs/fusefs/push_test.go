package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// settle waits until there is nothing to push, or no credit for it.
func (p *pusher) settle() {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		p.mu.Lock()
		idle := len(p.wake) == 0 && !p.busy && (p.files <= 0 || p.bytes <= 0 || len(p.order) == 0 || len(p.order) == 1 && p.order[0].next >= p.order[0].upTo)
		p.mu.Unlock()
		if idle {
			return
		}
		if time.Now().After(end) {
			panic("it has not pushed all that it could for a minute")
		}
	}
}

func smallFiles(folders, files int) []fstest.Entry {
	var tree []fstest.Entry
	for d := range folders {
		for f := range files {
			tree = append(tree, fstest.Regular(fmt.Sprintf("/%03d/%04d", d, f), fmt.Appendf(nil, "file %d of folder %d", f, d)))
		}
	}
	return tree
}

// readAll reads all files in listing order, after something that comes before
// each, and returns how many there were.
func (m *mounted) readAll(t *testing.T, before func()) (n int) {
	t.Helper()
	for _, folder := range names(t, m.path()) {
		for _, file := range names(t, m.path(folder)) {
			before()
			got, err := os.ReadFile(m.path(folder, file))
			want := fmt.Sprintf("file %d of folder %d", number(t, file), number(t, folder))
			if err != nil || string(got) != want {
				t.Fatalf("%s/%s is %q, %v", folder, file, got, err)
			}
			n++
		}
	}
	return n
}

func number(t *testing.T, name string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(name, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestACopyAsksForFewOfTheSmallFiles(t *testing.T) {
	undisturbed(t, func() []string {
		count := newCounter()
		m := mountSnapshot(t, Options{wrap: count.wrap}, fs.ChunkOptions{}, smallFiles(20, 200)...)
		files := m.readAll(t, m.fs.pusher.settle)
		requests := 0
		got := count.reset()
		for _, n := range got {
			requests += n
		}
		if got["READ"] < files/canaryEach {
			t.Errorf("only %d READs: a program that has stopped reading would not be noticed", got["READ"])
		}
		if limit := files * 15 / 100; requests > limit {
			return []string{fmt.Sprintf("%d requests for %d files, expected at most %d: %v", requests, files, limit, got)}
		}
		return nil
	})
}

// One extended attribute anywhere means that cp asks for those of every file.
func TestAttributesCostThreeRequestsAFile(t *testing.T) {
	needPrograms(t, "cp")
	tree := smallFiles(5, 200)
	tree[0] = tree[0].Xattr("user.note", "x")
	count := newCounter()
	m := mountSnapshot(t, Options{wrap: count.wrap}, fs.ChunkOptions{}, tree...)
	if out, err := exec.Command("cp", "-a", m.path("."), t.TempDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := count.reset()
	if n := got["LISTXATTR"] + got["GETXATTR"]; n > 3*1010 {
		t.Errorf("%d requests for the attributes of 1,000 files: %v", n, got)
	}
}

func TestACopyAtFullSpeedGetsWhatIsThere(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, smallFiles(20, 200)...)
	if n := m.readAll(t, func() {}); n != 4000 {
		t.Errorf("%d files", n)
	}
}

func TestFindAndLsPushNothing(t *testing.T) {
	needPrograms(t, "find", "ls")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, smallFiles(20, 200)...)
	m.counting.Reset()
	for _, c := range [][]string{{"find", m.path(), "-size", "+1k"}, {"ls", "-lR", m.path()}, {"find", m.path(), "-newer", m.path("001")}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	m.fs.pusher.settle()
	if n := m.fs.pusher.pushed + int64(m.counting.Count(storetest.OpGet).Calls); n != 0 {
		t.Errorf("%d files were pushed or fetched", n)
	}
}

func TestPushingStopsOnceNobodyReadsAnyMore(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{}, smallFiles(1, 5000)...)
	dir := names(t, m.path("000"))
	for _, name := range dir[:10] {
		if _, err := os.ReadFile(m.path("000", name)); err != nil {
			t.Fatal(err)
		}
	}
	m.fs.pusher.settle()
	p := m.fs.pusher
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pushed == 0 || p.pushed > maxCreditFiles+10 {
		t.Errorf("%d files were pushed ahead of 10 that were read", p.pushed)
	}
}

// Many readers in many orders, with the mount going away under them: whatever
// is read is right, and the end is clean.
func TestReadersAndPushesEndCleanlyWithTheMount(t *testing.T) {
	needRoot(t, "unmount what is in use")
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{Memory: 1 << 20}, smallFiles(30, 100)...)
	const readers, folders = 16, 30
	var rounds atomic.Int64 // folders that were read
	var g errgroup.Group
	for reader := range readers {
		g.Go(func() error {
			for round := 0; ; round++ {
				folder := fmt.Sprintf("%03d", (7*reader+round)%folders)
				list, err := os.ReadDir(m.path(folder))
				if err != nil {
					return nil // the mount is gone
				}
				for _, e := range list {
					got, err := os.ReadFile(filepath.Join(m.path(folder), e.Name()))
					if err != nil {
						return nil
					}
					if want := []byte(fmt.Sprintf("file %d of folder %d", number(t, e.Name()), number(t, folder))); !bytes.Equal(got, want) {
						return fmt.Errorf("%s/%s is %q", folder, e.Name(), got)
					}
				}
				if len(list) == 0 {
					return nil // the empty folder below the mount
				}
				rounds.Add(1)
			}
		})
	}
	// Once the kernel has everything, nothing more is pushed.
	for m.pushedLessThan(100) && rounds.Load() < 2*readers*folders {
		time.Sleep(time.Millisecond)
	}
	out, err := exec.Command("umount", "-l", m.Dir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
}

// pushedLessThan reports whether n files have not been pushed yet.
func (m *mounted) pushedLessThan(n int64) bool {
	m.fs.pusher.mu.Lock()
	defer m.fs.pusher.mu.Unlock()
	return m.fs.pusher.pushed < n
}
