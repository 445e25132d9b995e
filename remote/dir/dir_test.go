package dir_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func create(t *testing.T, folder string) *dir.Store {
	t.Helper()
	s, err := dir.Create(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *dir.Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

// tree returns the paths below folder, folders with a "/" at the end.
func tree(t *testing.T, folder string) []string {
	t.Helper()
	var paths []string
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			path += "/"
		}
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths[1:]
}

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) remote.Store { return create(t, t.TempDir()) })
}

func TestStoreKeepsTheContractWithoutRenameNoReplace(t *testing.T) {
	storetest.Run(t, func(t *testing.T) remote.Store {
		s := create(t, t.TempDir())
		s.PublishByLink()
		return s
	})
}

// Whoever may write below one writer's folder must not have another's objects
// deleted by whoever prunes both.
func TestNothingIsDeletedThroughALink(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/blobs/1/x", "ann's")
	put(t, s, "bob/blobs/1/x", "bob's")
	if err := os.Rename(filepath.Join(folder, "ann/blobs"), filepath.Join(folder, "ann/aside")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../bob/blobs", filepath.Join(folder, "ann/blobs")); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "ann/blobs/1/x"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("deleting through a link: %v", err)
	}
	if _, err := s.Stat(t.Context(), "bob/blobs/1/x"); err != nil {
		t.Errorf("the other writer's object: %v", err)
	}
	if err := s.Delete(t.Context(), "ann/aside/1/x"); err != nil {
		t.Error(err)
	}
}

func TestAnObjectIsAPlainFile(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/forgotten/0000000001", "x")
	put(t, s, "top", "y")
	if diff := cmp.Diff([]string{"ann/", "ann/forgotten/", "ann/forgotten/0000000001", "top"}, tree(t, folder)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	ordinary := filepath.Join(t.TempDir(), "f") // knows the umask
	if err := os.WriteFile(ordinary, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	want, _ := os.Stat(ordinary)
	if got, _ := os.Stat(filepath.Join(folder, "top")); got.Mode() != want.Mode() {
		t.Errorf("mode %v, want %v", got.Mode(), want.Mode())
	}
	for _, key := range []string{"top", "ann/forgotten/0000000001"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if left := tree(t, folder); len(left) != 0 {
		t.Errorf("after deleting everything %q are left", left)
	}
}

func TestKeysThatEscapeAreRefused(t *testing.T) {
	outer := t.TempDir()
	if err := os.WriteFile(filepath.Join(outer, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := create(t, filepath.Join(outer, "store"))
	if err := os.Symlink(outer, filepath.Join(outer, "store", "link")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, outer)
	for _, key := range []string{
		"../secret", "/etc/passwd", "a/../../secret", "link/secret", "", ".", "..", "a//b", "a/", "a/./b",
		"a\x00b", ".tmp-x", "a/.tmp-x", ".tmp-x/a",
	} {
		if _, err := s.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("Get took %q", key)
		}
		if _, err := s.Stat(t.Context(), key); err == nil {
			t.Errorf("Stat took %q", key)
		}
		if err := s.Put(t.Context(), key, []byte("x")); err == nil {
			t.Errorf("Put took %q", key)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("Delete took %q", key)
		}
	}
	for _, prefix := range []string{"../", "/", "link/", "a//"} {
		if keys, err := storetest.Keys(t.Context(), s, prefix); len(keys) > 0 {
			t.Errorf("List %q shows %q, %v", prefix, keys, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, outer)); diff != "" {
		t.Errorf("the refused calls changed something (-before +after):\n%s", diff)
	}
}

func TestOpenWantsAFolderAndCreateMakesIt(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	if _, err := dir.Open(folder); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("open a missing folder: %v, want %v", err, remote.ErrNoStore)
	}
	put(t, create(t, folder), "ann/a", "x")
	s, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if keys, err := storetest.Keys(t.Context(), s, ""); len(keys) != 1 || err != nil {
		t.Errorf("the store opened again shows %q, %v", keys, err)
	}
	if _, err := dir.Open(filepath.Join(folder, "ann", "a")); !errors.Is(err, remote.ErrNoStore) {
		t.Errorf("open a file: %v, want %v", err, remote.ErrNoStore)
	}
	if _, err := dir.Create(filepath.Join(folder, "ann", "a", "below")); err == nil {
		t.Error("a store was created below a file")
	}
}

func TestWhatTheUserMayNotDoIsDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything")
	}
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/a", "x")
	if err := os.Chmod(filepath.Join(folder, "ann"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "ann/b", nil); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("put: %v, want %v", err, remote.ErrDenied)
	}
	if err := s.Delete(t.Context(), "ann/a"); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("delete: %v, want %v", err, remote.ErrDenied)
	}
	if err := os.Chmod(filepath.Join(folder, "ann"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(filepath.Join(folder, "ann"), 0o700) }() // for the clean-up
	if _, err := s.Get(t.Context(), "ann/a", 0, -1); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("get: %v, want %v", err, remote.ErrDenied)
	}
	_, err := storetest.Keys(t.Context(), s, "ann/")
	want := `list "ann/" in the folder ` + folder + ": not allowed by the store: permission denied; this user needs the right to read and write below the folder"
	if !errors.Is(err, remote.ErrDenied) || err.Error() != want {
		t.Errorf("list: %v, want %s", err, want)
	}
}

func TestAnObjectIsNoFolder(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "ann/a", "x")
	if err := s.Put(t.Context(), "ann/a/b", nil); err == nil || errors.Is(err, remote.ErrExists) {
		t.Errorf("put below an object: %v", err)
	}
	if err := s.Put(t.Context(), "ann", nil); !errors.Is(err, remote.ErrExists) {
		t.Errorf("put over a folder: %v, want %v", err, remote.ErrExists)
	}
	if _, err := s.Stat(t.Context(), "ann/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat below an object: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestOtherThingsInTheFolderAreNoObjects(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/a", "x")
	if err := unix.Mkfifo(filepath.Join(folder, "ann", "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	if keys, err := storetest.Keys(t.Context(), s, ""); !slices.Equal(keys, []string{"ann/a"}) || err != nil {
		t.Errorf("listed %q, %v", keys, err)
	}
	if _, err := s.Get(t.Context(), "ann/fifo", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get a FIFO: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestAFileThatShrinksWhileItIsReadIsCorrupt(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	put(t, s, "ann/a", strings.Repeat("x", 1000))
	r, err := s.Get(t.Context(), "ann/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := os.Truncate(filepath.Join(folder, "ann", "a"), 400); err != nil {
		t.Fatal(err)
	}
	n, err := new(bytes.Buffer).ReadFrom(r)
	if n != 400 || !errors.Is(err, remote.ErrCorrupt) {
		t.Errorf("read %d bytes, %v; want 400 and %v", n, err, remote.ErrCorrupt)
	}
}

func TestAFailedPutLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	broken := errors.New("broken")
	s.PublishWith(func(*os.File, string, string) error { return broken })
	if err := s.Put(t.Context(), "ann/a", []byte("x")); !errors.Is(err, broken) {
		t.Errorf("put: %v, want %v", err, broken)
	}
	if diff := cmp.Diff([]string{"ann/"}, tree(t, folder)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestPutStartsOverWhenItsFileVanishes(t *testing.T) {
	folder := t.TempDir()
	s := create(t, folder)
	tries := 0
	s.PublishWith(func(d *os.File, from, to string) error {
		if tries++; tries < 3 { // somebody takes the folder away
			if err := os.RemoveAll(filepath.Join(folder, "ann")); err != nil {
				t.Error(err)
			}
		}
		return unix.Renameat2(int(d.Fd()), from, int(d.Fd()), to, unix.RENAME_NOREPLACE)
	})
	put(t, s, "ann/a", "x")
	if got, err := storetest.Read(t.Context(), s, "ann/a", 0, -1); string(got) != "x" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if tries != 3 {
		t.Errorf("%d tries, want 3", tries)
	}
}

// TestLeftoversAreHiddenAndSwept leaves temporary files as a crash does and
// looks which of them a Put into their folder removes.
func TestLeftoversAreHiddenAndSwept(t *testing.T) {
	folder := t.TempDir()
	put(t, create(t, folder), "ann/a", "x")
	for name, age := range map[string]time.Duration{".tmp-old": 25 * time.Hour, ".tmp-young": 23 * time.Hour, ".tmp-locked": 25 * time.Hour} {
		path := filepath.Join(folder, "ann", name)
		if err := os.WriteFile(path, []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	maker, err := os.Open(filepath.Join(folder, "ann", ".tmp-locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = maker.Close() }()
	if err := unix.Flock(int(maker.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}

	s := create(t, folder)
	if keys, err := storetest.Keys(t.Context(), s, ""); !slices.Equal(keys, []string{"ann/a"}) || err != nil {
		t.Errorf("listed %q, %v", keys, err)
	}
	put(t, s, "ann/b", "y")
	if diff := cmp.Diff([]string{"ann/", "ann/.tmp-locked", "ann/.tmp-young", "ann/a", "ann/b"}, tree(t, folder)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestKilledWhilePutting runs a process that puts objects, kills it, and
// expects every object that it reported, and no object that is not whole.
func TestKilledWhilePutting(t *testing.T) {
	const size = 1 << 20
	if folder := os.Getenv("VAULTIK_TEST_PUT"); folder != "" {
		s := create(t, folder)
		for i := 0; ; i++ {
			if err := s.Put(t.Context(), fmt.Sprintf("ann/%06d", i), storetest.Bytes(byte(i), size)); err != nil {
				t.Fatal(err)
			}
			fmt.Println("put", i)
		}
	}
	for round := range 8 {
		folder := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhilePutting$")
		cmd.Env = append(os.Environ(), "VAULTIK_TEST_PUT="+folder)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		reported := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if !strings.HasPrefix(lines.Text(), "put ") {
				continue
			}
			if reported++; reported == round+1 {
				// Between this line and the signal the next Put gets
				// differently far each time.
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // says that it was killed
		if reported <= round {
			t.Fatalf("the process died by itself after %d objects", reported)
		}
		s := create(t, folder)
		keys, err := storetest.Keys(t.Context(), s, "")
		if err != nil || len(keys) < reported {
			t.Fatalf("%d objects were put, the store shows %q, %v", reported, keys, err)
		}
		for i, key := range keys {
			got, err := storetest.Read(t.Context(), s, key, 0, -1)
			if err != nil || !bytes.Equal(got, storetest.Bytes(byte(i), size)) {
				t.Errorf("%q after the crash: %d bytes, %v", key, len(got), err)
			}
		}
	}
}

// TestTheLimitHolds puts 1 MiB at 64 KiB/s, of which a burst of 256 KiB is
// free, and then a little more. Its clock is a fake.
func TestTheLimitHolds(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := create(t, folder)
		s.Limit(rate.NewLimiter(64<<10, 256<<10))
		began := time.Now()
		put(t, s, "ann/a", strings.Repeat("x", 1<<20))
		if took := time.Since(began).Round(time.Millisecond); took != 12*time.Second {
			t.Errorf("it took %v, want 12s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, "ann/b", make([]byte, 1<<20)); err == nil || time.Since(began) > 14*time.Second {
			t.Errorf("a Put with a second to go, when all was over after %v: %v", time.Since(began), err)
		}
		if keys, err := storetest.Keys(t.Context(), s, ""); !slices.Equal(keys, []string{"ann/a"}) || err != nil {
			t.Errorf("objects %q, %v; want only the first", keys, err)
		}
	})
}
