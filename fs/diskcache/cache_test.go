package diskcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs/diskcache"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestTheContractOfStores(t *testing.T) {
	storetest.Run(t, func(t *testing.T) remote.Store {
		return open(t, mem.New(nil), diskcache.Options{Folder: t.TempDir()})
	})
}

// open makes a Cache that the test closes, and that may not warn.
func open(t *testing.T, s remote.Store, o diskcache.Options) *diskcache.Cache {
	t.Helper()
	if o.Warn == nil {
		o.Warn = func(err error) { t.Errorf("warned: %v", err) }
	}
	c := diskcache.New(s, o)
	t.Cleanup(func() { closed(t, c) })
	return c
}

func closed(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// blob puts one of n bytes into a store.
func blob(t testing.TB, s remote.Store, seed byte, n int) (key string, body []byte) {
	t.Helper()
	body = storetest.Bytes(seed, n)
	key = remote.BlobKey("ann", 1, remote.Sum(body))
	if err := s.Put(t.Context(), key, body); err != nil {
		t.Fatal(err)
	}
	return key, body
}

// once reads ranges of a blob through a Cache that is made for it, and returns
// what that asked the store for. Every range must be what it is.
func once(t *testing.T, s remote.Store, folder, key string, body []byte, ranges ...[2]int64) storetest.Count {
	t.Helper()
	counting := storetest.NewCounting(s)
	c := diskcache.New(counting, diskcache.Options{Folder: folder, Warn: func(err error) { t.Errorf("warned: %v", err) }})
	defer closed(t, c)
	for _, r := range ranges {
		got, err := storetest.Read(t.Context(), c, key, r[0], r[1])
		if err != nil || !bytes.Equal(got, body[r[0]:r[0]+r[1]]) {
			t.Fatalf("range %d+%d: %d bytes, or others, %v", r[0], r[1], len(got), err)
		}
	}
	return counting.Count(storetest.OpGet)
}

func TestWhatWasFetchedIsNotFetchedAgain(t *testing.T) {
	s, folder := mem.New(nil), filepath.Join(t.TempDir(), "new", "folder")
	key, body := blob(t, s, 1, 5<<20)
	size := int64(len(body))
	first := once(t, s, folder, key, body, [2]int64{0, size})
	if first.Calls != 1 || first.Bytes != size {
		t.Errorf("the first time: %+v", first)
	}
	again := once(t, s, folder, key, body, [2]int64{0, size}, [2]int64{1, 1}, [2]int64{size - 1, 1}, [2]int64{262_000, 300_000})
	if again.Calls != 0 {
		t.Errorf("the second time: %+v", again)
	}
	if gone, err := storetest.Read(t.Context(), open(t, mem.New(nil), diskcache.Options{Folder: folder}), key, 0, size); err != nil || !bytes.Equal(gone, body) {
		t.Errorf("from an empty store: %d bytes, %v", len(gone), err)
	}
	for path, want := range map[string]os.FileMode{folder: 0o700, fileOf(folder, key): 0o600, filepath.Join(folder, "lock"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", path, info, err, want)
		}
	}
}

// fileOf is the file of a blob.
func fileOf(folder, key string) string {
	k, err := remote.ParseKey(key)
	if err != nil {
		panic(err)
	}
	return filepath.Join(folder, fmt.Sprintf("%s,blobs,%s,%s", k.Writer, k.Seq, k.Hash))
}

func TestOnlyWhatIsMissingIsFetched(t *testing.T) {
	for _, c := range []struct {
		name  string
		known [][2]int64
		want  storetest.Count
	}{
		{"nothing known", nil, storetest.Count{Calls: 1, Bytes: 4 << 20, MaxInFlight: 1}},
		{"the beginning", [][2]int64{{0, 1000}}, storetest.Count{Calls: 1, Bytes: 4<<20 - 1000, MaxInFlight: 1}},
		{"the end", [][2]int64{{4<<20 - 1000, 1000}}, storetest.Count{Calls: 1, Bytes: 4<<20 - 1000, MaxInFlight: 1}},
		{"a little in the middle is fetched along", [][2]int64{{1 << 20, 128 << 10}}, storetest.Count{Calls: 1, Bytes: 4 << 20, MaxInFlight: 1}},
		{"more in the middle is not", [][2]int64{{1 << 20, 128<<10 + 1}}, storetest.Count{Calls: 2, Bytes: 4<<20 - 128<<10 - 1, MaxInFlight: 2}},
		{"overlapping", [][2]int64{{100, 1 << 20}, {1 << 20, 1 << 20}, {0, 3 << 20}}, storetest.Count{Calls: 1, Bytes: 1 << 20, MaxInFlight: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, folder := mem.New(nil), t.TempDir()
			key, body := blob(t, s, 1, 4<<20)
			for _, r := range c.known {
				once(t, s, folder, key, body, r)
			}
			if diff := cmp.Diff(c.want, once(t, s, folder, key, body, [2]int64{0, 4 << 20})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestManyGapsBecomeFewRequests(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 8<<20)
	for i := range int64(20) {
		once(t, s, folder, key, body, [2]int64{i * 400_000, 200_000})
	}
	if got := once(t, s, folder, key, body, [2]int64{0, 8 << 20}); got.Calls != 8 {
		t.Errorf("%+v", got)
	}
}

func TestOtherObjectsAndOpenRangesGoToTheStore(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 1000)
	dump := remote.DumpKey("ann", 1, remote.Sum(nil))
	if err := s.Put(t.Context(), dump, body); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{dump, key} {
		c := open(t, s, diskcache.Options{Folder: folder})
		got, err := storetest.Read(t.Context(), c, key, 10, -1)
		if err != nil || !bytes.Equal(got, body[10:]) {
			t.Errorf("%q: %d bytes, %v", key, len(got), err)
		}
	}
	if _, err := storetest.Read(t.Context(), open(t, s, diskcache.Options{Folder: folder}), dump, 0, 1000); err != nil {
		t.Error(err)
	}
	if got := files(t, folder); len(got) != 0 {
		t.Errorf("recorded: %q", got)
	}
}

// files are the names of what a folder has.
func files(t testing.TB, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestErrorsOfTheStoreComeThroughAndNothingShortIsRecorded(t *testing.T) {
	for _, f := range []storetest.Fault{
		{Op: storetest.OpGet, Kind: storetest.Fail},
		{Op: storetest.OpGet, Kind: storetest.Break, At: 300_000},
		{Op: storetest.OpGet, Kind: storetest.Break, At: 999_999},
		{Op: storetest.OpGet, Kind: storetest.Truncate, At: 300_000},
		{Op: storetest.OpGet, Kind: storetest.Truncate, At: 999_999},
	} {
		s, folder := mem.New(nil), t.TempDir()
		key, body := blob(t, s, 1, 1_000_000)
		faulty := storetest.NewFaulty(s, f)
		c := diskcache.New(faulty, diskcache.Options{Folder: folder})
		got, err := storetest.Read(t.Context(), c, key, 0, 1_000_000)
		want := storetest.ErrInjected
		if f.Kind == storetest.Truncate {
			want = io.ErrUnexpectedEOF
		}
		if !errors.Is(err, want) || int64(len(got)) != f.At || !bytes.Equal(got, body[:f.At]) {
			t.Errorf("%+v: %d bytes, %v", f, len(got), err)
		}
		closed(t, c)
		// What came as a whole record counts.
		known := f.At / (256 << 10) * (256 << 10)
		if got := once(t, s, folder, key, body, [2]int64{0, 1_000_000}); got.Bytes != 1_000_000-known {
			t.Errorf("%+v: %d bytes of 1,000,000 fetched afterwards, want %d", f, got.Bytes, 1_000_000-known)
		}
	}
	s := mem.New(nil)
	key, _ := blob(t, s, 1, 1000)
	c := open(t, s, diskcache.Options{Folder: t.TempDir()})
	for range 2 {
		if _, err := storetest.Read(t.Context(), c, key, 0, 1001); !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("past the end: %v", err)
		}
		if _, err := storetest.Read(t.Context(), c, key, 0, 1000); err != nil {
			t.Error(err)
		}
	}
}

func TestABodyThatIsClosedEarlyIsRecordedAsFarAsItWasRead(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 1_000_000)
	c := diskcache.New(s, diskcache.Options{Folder: folder})
	r, err := c.Get(t.Context(), key, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 300_000)
	if _, err := io.ReadFull(iotest.OneByteReader(r), got); err != nil || !bytes.Equal(got, body[:300_000]) {
		t.Error(err)
	}
	closed(t, r)
	closed(t, c)
	if got := once(t, s, folder, key, body, [2]int64{0, 1_000_000}); got.Bytes != 1_000_000-256<<10 {
		t.Errorf("%d bytes fetched afterwards", got.Bytes)
	}
}

func TestEveryByteIsVerified(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 300)
	once(t, s, folder, key, body, [2]int64{0, 100}, [2]int64{200, 100})
	whole, err := os.ReadFile(fileOf(folder, key))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1 << (i % 8)
		if err := os.WriteFile(fileOf(folder, key), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		once(t, s, folder, key, body, [2]int64{0, 100}, [2]int64{200, 100})
	}
	for n := range whole {
		if err := os.WriteFile(fileOf(folder, key), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		once(t, s, folder, key, body, [2]int64{0, 100}, [2]int64{200, 100})
		if got := once(t, s, folder, key, body, [2]int64{0, 100}, [2]int64{200, 100}); got.Calls != 0 {
			t.Fatalf("cut after %d bytes, it did not recover", n)
		}
	}
}

func TestTheFileOfAnotherBlobIsNoneOfThis(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 3000)
	other, otherBody := blob(t, s, 2, 3000)
	once(t, s, folder, key, body, [2]int64{0, 3000})
	if err := os.Rename(fileOf(folder, key), fileOf(folder, other)); err != nil {
		t.Fatal(err)
	}
	once(t, s, folder, other, otherBody, [2]int64{0, 3000})
}

func TestForgottenIsFetchedAgain(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 1_000_000)
	lying := storetest.NewFaulty(s, storetest.Fault{Op: storetest.OpGet, Kind: storetest.Flip, At: 500_000})
	c := open(t, lying, diskcache.Options{Folder: folder})
	r, err := c.Get(t.Context(), key, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	wrong := make([]byte, 600_000)
	if _, err := io.ReadFull(r, wrong); err != nil || bytes.Equal(wrong, body[:600_000]) {
		t.Fatalf("the fault did not strike: %v", err)
	}
	c.Forget(key) // while it is being recorded
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	closed(t, r)
	got, err := storetest.Read(t.Context(), c, key, 0, 1_000_000)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("after Forget: %d bytes, or others, %v", len(got), err)
	}
	closed(t, c)
	if got := once(t, s, folder, key, body, [2]int64{0, 1_000_000}); got.Calls != 0 {
		t.Errorf("the good bytes were not recorded: %+v", got)
	}
}

// size is what the files of a folder have.
func size(t testing.TB, folder string) (total int64) {
	t.Helper()
	for _, name := range files(t, folder) {
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil {
			total += info.Size()
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return total
}

func TestTheSizeIsBoundedOverAllThatUseTheFolder(t *testing.T) {
	const limit = 3 << 20
	s, folder := mem.New(nil), t.TempDir()
	var g errgroup.Group
	var caches []*diskcache.Cache
	for i := range byte(3) {
		var keys []string
		for j := range byte(12) {
			key, _ := blob(t, s, 100*i+j, 300_000+int(j))
			keys = append(keys, key)
		}
		c := open(t, s, diskcache.Options{Folder: folder, Size: limit})
		caches = append(caches, c)
		g.Go(func() error {
			for range 3 {
				for _, key := range keys {
					if _, err := storetest.Read(t.Context(), c, key, 0, 300_000); err != nil {
						return err
					}
					lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
					if err != nil {
						return err
					}
					// Or what is appended meanwhile counts, and what goes for it as well.
					err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
					got := size(t, folder)
					if err := errors.Join(err, lock.Close()); err != nil {
						return err
					}
					if got > limit+8 {
						return fmt.Errorf("%d bytes, more than %d", got, limit)
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for _, c := range caches {
		closed(t, c)
	}
	if got := size(t, folder); got < limit/2 || got > limit {
		t.Errorf("only %d of %d bytes are used", got, limit)
	}
}

func TestWhatWasUsedLongestAgoGoesFirst(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	now := time.Now()
	var keys []string
	for i := range byte(5) {
		key, body := blob(t, s, i, 200_000)
		keys = append(keys, key)
		if i == 4 {
			break
		}
		once(t, s, folder, key, body, [2]int64{0, 200_000})
		then := now.Add(time.Duration(i)*time.Hour - 100*time.Hour) // the disk's clock could not tell them apart
		if err := os.Chtimes(fileOf(folder, key), then, then); err != nil {
			t.Fatal(err)
		}
	}
	read := func(o diskcache.Options, key string) {
		t.Helper()
		c := open(t, s, o)
		if _, err := storetest.Read(t.Context(), c, key, 0, 200_000); err != nil {
			t.Fatal(err)
		}
		closed(t, c)
	}
	read(diskcache.Options{Folder: folder, Size: 1 << 20, Now: func() time.Time { return now }}, keys[0])
	read(diskcache.Options{Folder: folder, Size: 900_000}, keys[4])
	for i, want := range []bool{true, false, false, true, true} {
		if _, err := os.Stat(fileOf(folder, keys[i])); (err == nil) != want {
			t.Errorf("blob %d: %v", i, err)
		}
	}
}

func TestAFolderThatCannotBeUsedIsNoCache(t *testing.T) {
	s, file := mem.New(nil), filepath.Join(t.TempDir(), "file")
	key, body := blob(t, s, 1, 1_000_000)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var warnings []error
	counting := storetest.NewCounting(s)
	c := diskcache.New(counting, diskcache.Options{Folder: filepath.Join(file, "below"), Warn: func(err error) { warnings = append(warnings, err) }})
	for range 3 {
		if got, err := storetest.Read(t.Context(), c, key, 0, 1_000_000); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	closed(t, c)
	if len(warnings) != 1 || !errors.Is(warnings[0], unix.ENOTDIR) || counting.Count(storetest.OpGet).Calls != 3 {
		t.Errorf("warnings: %v; %+v", warnings, counting.Count(storetest.OpGet))
	}
}

func TestNobodyWaitsForALockThatIsHeld(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 40<<20)
	once(t, s, folder, key, body, [2]int64{0, 1000})
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var warnings []error
	c := diskcache.New(s, diskcache.Options{Folder: folder, Warn: func(err error) { warnings = append(warnings, err) }})
	for range 2 {
		if got, err := storetest.Read(t.Context(), c, key, 0, 40<<20); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	closed(t, c)
	if len(warnings) != 1 {
		t.Errorf("warnings: %v", warnings)
	}
}

func TestAFolderThatVanishesIsMadeAgain(t *testing.T) {
	s, folder := mem.New(nil), filepath.Join(t.TempDir(), "cache")
	key, body := blob(t, s, 1, 1_000_000)
	c := open(t, s, diskcache.Options{Folder: folder})
	read := func() {
		t.Helper()
		if got, err := storetest.Read(t.Context(), c, key, 0, 1_000_000); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	for range 30 {
		read()
		for end := time.Now().Add(time.Minute); len(files(t, folder)) < 2; time.Sleep(100 * time.Microsecond) { // with the lock
			if t.Failed() || time.Now().After(end) {
				t.Fatal("nothing is recorded")
			}
		}
		r, err := c.Get(t.Context(), key, 0, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		for os.RemoveAll(folder) != nil { // while three more records are appended
			time.Sleep(time.Millisecond)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body[:100_000]) {
			t.Errorf("a reader of a removed file: %d bytes, %v", len(got), err)
		}
		closed(t, r)
	}
	read()
	closed(t, c)
	if got := once(t, s, folder, key, body, [2]int64{0, 1_000_000}); got.Calls != 0 {
		t.Errorf("not recorded again: %+v", got)
	}
}

func TestACancelledReaderIsToldSo(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	key, body := blob(t, s, 1, 1_000_000)
	once(t, s, folder, key, body, [2]int64{0, 1_000_000})
	c := open(t, s, diskcache.Options{Folder: folder})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := c.Get(ctx, key, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	closed(t, r)
	if _, err := c.Get(ctx, key, 0, 1000); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
