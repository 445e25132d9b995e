package localfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

func newSource(t testing.TB) *Source {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tempDir is a temporary folder with a path free of symbolic links.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openDir goes from / to a folder, one component at a time.
func openDir(t testing.TB, path string) source.Dir {
	t.Helper()
	_, d, err := newSource(t).Root(t.Context())
	must(t, err)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		e, err := d.Entry(t.Context(), name)
		must(t, err)
		next, err := d.OpenDir(t.Context(), e)
		must(t, err)
		must(t, d.Close())
		d = next
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func entriesOf(ctx context.Context, d source.Dir) ([]source.Entry, error) {
	names, err := d.Names(ctx)
	if err != nil {
		return nil, err
	}
	return d.Entries(ctx, names)
}

func list(t testing.TB, d source.Dir) []source.Entry {
	t.Helper()
	entries, err := entriesOf(t.Context(), d)
	must(t, err)
	return entries
}

func entry(t testing.TB, d source.Dir, name string) source.Entry {
	t.Helper()
	e, err := d.Entry(t.Context(), name)
	must(t, err)
	return e
}

// lstat is what the system's other call says about a file.
func lstat(t testing.TB, path string) source.Entry {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	types := map[uint32]metastore.Type{
		unix.S_IFREG: metastore.Regular, unix.S_IFDIR: metastore.Directory, unix.S_IFLNK: metastore.Symlink,
		unix.S_IFIFO: metastore.FIFO, unix.S_IFSOCK: metastore.Socket, unix.S_IFCHR: metastore.CharDev, unix.S_IFBLK: metastore.BlockDev,
	}
	e := source.Entry{Name: filepath.Base(path), Dev: uint64(st.Dev), Stat: metastore.Stat{
		Type: types[st.Mode&unix.S_IFMT], Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: metastore.Time{Sec: st.Mtim.Sec, Nsec: int32(st.Mtim.Nsec)},
		CTime: metastore.Time{Sec: st.Ctim.Sec, Nsec: int32(st.Ctim.Nsec)},
		Inode: st.Ino, Nlink: uint32(st.Nlink),
		RdevMajor: unix.Major(uint64(st.Rdev)), RdevMinor: unix.Minor(uint64(st.Rdev)),
	}}
	if e.Type == metastore.Regular || e.Type == metastore.Symlink {
		e.Size = st.Size
	}
	return e
}

// makeEveryType fills a folder with one file of each type that the user may
// make.
func makeEveryType(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("dir"), 0o1750))
	must(t, os.Mkdir(at("dir/sub"), 0o700))
	must(t, os.WriteFile(at("file"), []byte("content"), 0o640))
	must(t, os.Chmod(at("file"), 0o4751|fs.ModeSetuid))
	must(t, os.Link(at("file"), at("hard link")))
	must(t, os.Symlink("no/such/target", at("link")))
	must(t, unix.Mkfifo(at("pipe"), 0o600))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	if err := unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err == nil {
		must(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70000))))
	} else if os.Geteuid() == 0 {
		t.Logf("no device nodes: %v", err)
	}
	for _, name := range []string{"file", "dir", "link"} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: -5, Nsec: 123456789}}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func TestEntriesTellWhatLstatTells(t *testing.T) {
	dir := tempDir(t)
	makeEveryType(t, dir)
	d := openDir(t, dir)
	names, err := os.ReadDir(dir)
	must(t, err)
	var want []source.Entry
	for _, n := range names {
		want = append(want, lstat(t, filepath.Join(dir, n.Name())))
	}
	got := list(t, d)
	for i := range got {
		one := entry(t, d, got[i].Name)
		if diff := cmp.Diff(got[i], one); diff != "" {
			t.Errorf("Entry and Entries differ: %s", diff)
		}
		if got[i].BTime.Sec > got[i].CTime.Sec {
			t.Errorf("%q is born at %v, after its last change at %v", got[i].Name, got[i].BTime, got[i].CTime)
		}
		got[i].BTime = metastore.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-lstat +got):\n%s", diff)
	}
	for _, e := range got {
		if e.Name == "file" && (e.Mode&0o4000 == 0 || e.MTime != metastore.Time{Sec: -5, Nsec: 123456789} || e.Nlink != 2) {
			t.Errorf("the test's own file is not as it was made: %+v", e)
		}
	}
}

func TestRootIsTheTopOfTheTree(t *testing.T) {
	e, d, err := newSource(t).Root(t.Context())
	must(t, err)
	defer d.Close()
	want := lstat(t, "/")
	want.Name = ""
	e.BTime = metastore.Time{}
	e.MTime, e.CTime, want.MTime, want.CTime = metastore.Time{}, metastore.Time{}, metastore.Time{}, metastore.Time{}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if _, err := d.Meta(t.Context(), e); err != nil {
		t.Errorf("metadata of / itself: %v", err)
	}
}

func TestNamesAreBytes(t *testing.T) {
	dir := tempDir(t)
	want := []string{strings.Repeat("\xff", 255), "line\nbreak", "ünïcödé", "\xed\xa0\x80", " ", "...", "-rf"}
	for b := 1; b < 256; b++ {
		if b != '/' {
			want = append(want, "x"+string([]byte{byte(b)}))
		}
	}
	for _, name := range want {
		must(t, os.WriteFile(dir+"/"+name, []byte(name), 0o600))
	}
	slices.Sort(want)
	d := openDir(t, dir)
	var got []string
	for _, e := range list(t, d) {
		got = append(got, e.Name)
		if content := string(readAll(t, d, e)); content != e.Name {
			t.Errorf("%q holds %q", e.Name, content)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func readAll(t testing.TB, d source.Dir, e source.Entry) []byte {
	t.Helper()
	f, err := d.Open(t.Context(), e)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	content, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	must(t, err)
	return content
}

func TestOneHundredThousandEntries(t *testing.T) {
	const n = 100_000
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/000000", nil, 0o600))
	links := 0
	for i := 1; i < n; i++ {
		// Hard links are the fastest entries to make; ext4 allows 65,000 of one file.
		name := fmt.Sprintf("%s/%06d", dir, i)
		if links == 0 || os.Link(fmt.Sprintf("%s/%06d", dir, i-links), name) != nil {
			must(t, os.WriteFile(name, nil, 0o600))
			links = 0
		}
		links++
	}
	entries := list(t, openDir(t, dir))
	if len(entries) != n {
		t.Fatalf("%d entries, want %d", len(entries), n)
	}
	for i, e := range entries {
		if e.Name != fmt.Sprintf("%06d", i) || e.Err != nil || e.Type != metastore.Regular {
			t.Fatalf("entry %d is %+v", i, e)
		}
	}
}

func TestThreeThousandLevelsDeep(t *testing.T) {
	const levels = 3000
	dir := tempDir(t)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "a folder with a long name", 0o700))
		next, err := unix.Openat(fd, "a folder with a long name", unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	d := openDir(t, dir)
	depth := 0
	for {
		entries := list(t, d)
		if len(entries) == 0 {
			break
		}
		next, err := d.OpenDir(t.Context(), entries[0])
		must(t, err)
		must(t, d.Close())
		d = next
		depth++
	}
	must(t, d.Close())
	if depth != levels {
		t.Errorf("%d levels, want %d", depth, levels)
	}
}

func TestMissingNamesAreErrNotExist(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Mkdir(dir+"/dir", 0o700))
	d := openDir(t, dir)
	file, sub := entry(t, d, "file"), entry(t, d, "dir")
	subdir, err := d.OpenDir(t.Context(), sub)
	must(t, err)
	defer subdir.Close()
	must(t, os.Remove(dir+"/file"))
	must(t, os.Remove(dir+"/dir"))
	for what, err := range map[string]error{
		"Entry":   second(d.Entry(t.Context(), "file")),
		"Open":    second(d.Open(t.Context(), file)),
		"OpenDir": second(d.OpenDir(t.Context(), sub)),
		"Meta":    second(d.Meta(t.Context(), file)),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if entries, err := entriesOf(t.Context(), subdir); len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("entries of a removed folder: %v, %v", entries, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	d := openDir(t, tempDir(t))
	for _, name := range []string{"", ".", "..", "/", "/etc", "a/b", "../x", "a\x00b"} {
		e := source.Entry{Name: name, Stat: metastore.Stat{Type: metastore.Directory}}
		errs := []error{second(d.Entry(t.Context(), name)), second(d.OpenDir(t.Context(), e))}
		e.Type = metastore.Regular
		errs = append(errs, second(d.Open(t.Context(), e)))
		if name != "" { // which is the directory itself for Meta
			errs = append(errs, second(d.Meta(t.Context(), e)))
		}
		for i, err := range errs {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q, call %d: %v", name, i, err)
			}
		}
	}
}

func TestTypesThatCannotBeOpenedAreRefused(t *testing.T) {
	dir := tempDir(t)
	makeEveryType(t, dir)
	d := openDir(t, dir)
	for _, e := range list(t, d) {
		if _, err := d.Open(t.Context(), e); (err == nil) != (e.Type == metastore.Regular) {
			t.Errorf("open %q: %v", e.Name, err)
		}
		if _, err := d.OpenDir(t.Context(), e); (err == nil) != (e.Type == metastore.Directory) {
			t.Errorf("open the folder %q: %v", e.Name, err)
		}
	}
}

func TestHandlesLiveUntilTheLastClose(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o600))
	d := openDir(t, dir)
	file := entry(t, d, "file")
	d.Retain()
	must(t, d.Close())
	list(t, d)
	must(t, d.Close())
	d.Retain() // too late
	for what, err := range map[string]error{
		"Entries": second(entriesOf(t.Context(), d)),
		"Entry":   second(d.Entry(t.Context(), "file")),
		"Open":    second(d.Open(t.Context(), file)),
		"Meta":    second(d.Meta(t.Context(), source.Entry{})),
		"Close":   d.Close(),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s of a closed handle: %v", what, err)
		}
	}
}

func TestCloseWaitsForCallsAtWork(t *testing.T) {
	d := openDir(t, tempDir(t)).(*dir)
	fd, err := d.use()
	must(t, err)
	must(t, d.Close())
	if _, err := examine(fd, ""); err != nil {
		t.Errorf("a call lost its descriptor: %v", err)
	}
	d.done()
	if d.fd >= 0 {
		t.Error("the descriptor stays open after the last call")
	}
}

func TestFilesAreUselessAfterClose(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o600))
	d := openDir(t, dir)
	f, err := d.Open(t.Context(), entry(t, d, "file"))
	must(t, err)
	must(t, f.Close())
	_, _, nextErr := f.NextData(0)
	for i, err := range []error{second(f.Stat()), second(f.ReadAt(make([]byte, 1), 0)), nextErr, f.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("call %d of a closed file: %v", i, err)
		}
	}
}

func TestNothingStaysOpen(t *testing.T) {
	dir := tempDir(t)
	makeEveryType(t, dir)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	before := count()
	s := newSource(t)
	for range 3 {
		_, root, err := s.Root(t.Context())
		must(t, err)
		d := openDir(t, dir)
		for _, e := range list(t, d) {
			second(d.Meta(t.Context(), e))
			swapped := e
			swapped.Inode++
			second(d.Meta(t.Context(), swapped))
			if f, err := d.Open(t.Context(), e); err == nil {
				must(t, f.Close())
			}
			if sub, err := d.OpenDir(t.Context(), e); err == nil {
				must(t, sub.Close())
			}
			second(d.OpenDir(t.Context(), swapped))
			second(d.Open(t.Context(), swapped))
		}
		second(s.Volume(t.Context(), 0, dir+"/dir/sub"))
		second(s.Volume(t.Context(), entry(t, d, "file").Dev, dir))
		second(s.Volume(t.Context(), 0, dir+"/file/below"))
		must(t, d.Close())
		must(t, root.Close())
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestReadingLeavesNoTrace(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Mkdir(dir+"/sub", 0o700))
	must(t, os.WriteFile(dir+"/sub/file", []byte("x"), 0o600))
	old := []unix.Timespec{{Sec: 1000}, {Sec: 2000}} // relatime would renew this access time
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/sub/file", old, 0))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/sub", old, 0))
	d := openDir(t, dir+"/sub")
	for _, e := range list(t, d) {
		second(d.Meta(t.Context(), e))
		readAll(t, d, e)
	}
	for _, path := range []string{dir + "/sub", dir + "/sub/file"} {
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if st.Atim.Sec != 1000 {
			t.Errorf("%q was accessed at %d", path, st.Atim.Sec)
		}
	}
}

// asNobody runs f on a thread without any privilege, if the test has one to
// give up.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const nobody = 65534
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, errno := unix.RawSyscall(call, nobody, nobody, nobody); errno != 0 {
				done <- errno
				return
			}
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Skipf("cannot become an ordinary user: %v", err)
	}
}

func TestPermissionsAreErrorsOfTheirEntries(t *testing.T) {
	dir := tempDir(t)
	for p := dir; p != filepath.Dir(os.TempDir()) && p != "/"; p = filepath.Dir(p) {
		if strings.HasPrefix(p, os.TempDir()+"/") {
			must(t, os.Chmod(p, 0o755)) // let the ordinary user in
		}
	}
	make := func(name string, mode fs.FileMode) string {
		p := filepath.Join(dir, name)
		must(t, os.Mkdir(p, 0o755))
		must(t, os.WriteFile(p+"/file", []byte("x"), 0o644))
		t.Cleanup(func() { os.Chmod(p, 0o755) })
		return p
	}
	searchOnly, listOnly, nothing, open := make("search only", 0), make("list only", 0), make("nothing", 0), make("open", 0)
	must(t, os.WriteFile(open+"/secret", []byte("x"), 0o644))
	must(t, os.Chmod(open+"/secret", 0))
	must(t, os.Chmod(searchOnly, 0o111))
	must(t, os.Chmod(listOnly, 0o444))
	must(t, os.Chmod(nothing, 0))
	dirs := map[string]source.Dir{}
	top := openDir(t, dir)
	asNobody(t, func() {
		ctx := t.Context()
		for _, e := range list(t, top) {
			d, err := top.OpenDir(ctx, e)
			if err != nil {
				t.Errorf("open %q: %v", e.Name, err)
				continue
			}
			defer d.Close()
			if m, err := d.Meta(ctx, source.Entry{Stat: e.Stat, Dev: e.Dev}); err != nil || m.User == "" && e.UID == 0 {
				t.Errorf("metadata of the folder %q: %+v, %v", e.Name, m, err)
			}
			dirs[e.Name] = d
		}
		if _, err := entriesOf(ctx, dirs["search only"]); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("list a folder without read permission: %v", err)
		}
		e, err := dirs["search only"].Entry(ctx, "file")
		if err != nil {
			t.Errorf("look up in a folder with search permission: %v", err)
		} else if f, err := dirs["search only"].Open(ctx, e); err != nil {
			t.Errorf("open in a folder with search permission: %v", err)
		} else {
			f.Close()
		}
		entries, err := entriesOf(ctx, dirs["list only"])
		if err != nil || len(entries) != 1 || entries[0].Name != "file" || !errors.Is(entries[0].Err, fs.ErrPermission) {
			t.Errorf("list a folder without search permission: %+v, %v", entries, err)
		} else if diff := cmp.Diff(metastore.Stat{}, entries[0].Stat); diff != "" {
			t.Errorf("an entry that could not be examined has a stat: %s", diff)
		}
		if _, err := entriesOf(ctx, dirs["nothing"]); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("list a closed folder: %v", err)
		}
		if _, err := dirs["nothing"].Entry(ctx, "file"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("look up in a closed folder: %v", err)
		}
		secret := entry(t, dirs["open"], "secret")
		if _, err := dirs["open"].Open(ctx, secret); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("open an unreadable file: %v", err)
		}
		if _, err := dirs["open"].Meta(ctx, secret); err != nil {
			t.Errorf("metadata of an unreadable file: %v", err)
		}
		// A file of somebody else takes no O_NOATIME, and opens without.
		if f, err := dirs["open"].Open(ctx, entry(t, dirs["open"], "file")); err != nil {
			t.Errorf("open somebody else's file: %v", err)
		} else {
			f.Close()
		}
	})
}

func BenchmarkEntries(b *testing.B) {
	const n = 1000
	dir := tempDir(b)
	for i := range n {
		must(b, os.WriteFile(fmt.Sprintf("%s/a file name of usual length %d", dir, i), nil, 0o600))
	}
	d := openDir(b, dir)
	b.ReportAllocs()
	for b.Loop() {
		list(b, d)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*b.N), "ns/entry")
}

func BenchmarkOpenReadMeta(b *testing.B) {
	dir := tempDir(b)
	must(b, os.WriteFile(dir+"/file", make([]byte, 4096), 0o600))
	d := openDir(b, dir)
	e := entry(b, d, "file")
	for b.Loop() {
		second(d.Meta(b.Context(), e))
		readAll(b, d, e)
	}
}
