package localfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
)

func openOne(t testing.TB, dir, name string) source.File {
	t.Helper()
	d := openDir(t, dir)
	f, err := d.Open(t.Context(), entry(t, d, name))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

type span struct{ Start, End int64 }

func dataOf(t testing.TB, f source.File) []span {
	t.Helper()
	var all []span
	for off := int64(0); ; {
		start, end, err := f.NextData(off)
		if err == io.EOF {
			return all
		}
		must(t, err)
		if start < off || end <= start {
			t.Fatalf("data after %d: [%d, %d)", off, start, end)
		}
		all = append(all, span{start, end})
		off = end
	}
}

func TestHolesAreFound(t *testing.T) {
	dir := tempDir(t)
	const block = 1 << 16
	write := func(name string, size int64, at ...int64) {
		f, err := os.Create(dir + "/" + name)
		must(t, err)
		for _, off := range at {
			_, err := f.WriteAt(bytes.Repeat([]byte("x"), block), off)
			must(t, err)
		}
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	write("empty", 0)
	write("all hole", 100*block)
	write("all data", 2*block, 0, block)
	write("mixed", 1<<40, block, 2*block, 10*block, 1<<30)
	write("hole first", 11*block, 10*block)
	write("odd size", block+1, 0)
	want := map[string][]span{
		"empty": nil, "all hole": nil, "all data": {{0, 2 * block}},
		"mixed":      {{block, 3 * block}, {10 * block, 11 * block}, {1 << 30, 1<<30 + block}},
		"hole first": {{10 * block, 11 * block}},
		"odd size":   {{0, block}},
	}
	got := map[string][]span{}
	for name := range want {
		got[name] = dataOf(t, openOne(t, dir, name))
	}
	if diff := cmp.Diff([]span{{0, 100 * block}}, got["all hole"]); diff == "" {
		t.Skip("this file system knows no holes")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		// The block size decides about the end of "odd size".
		delete(want, "odd size")
		delete(got, "odd size")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// Small files are not asked for holes unless they may have some.
func TestHolesOfSmallFilesAreFound(t *testing.T) {
	const page = 4096
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/dense", bytes.Repeat([]byte("x"), 3*page+5), 0o600))
	hole, err := os.Create(dir + "/hole")
	must(t, err)
	_, err = hole.WriteAt(bytes.Repeat([]byte("x"), page), 2*page)
	must(t, errors.Join(err, hole.Close()))
	must(t, os.WriteFile(dir+"/nothing", nil, 0o600))
	must(t, os.Truncate(dir+"/nothing", 100))
	want := map[string][]span{"dense": {{0, 3*page + 5}}, "hole": {{2 * page, 3 * page}}, "nothing": nil}
	got := map[string][]span{}
	for name := range want {
		got[name] = dataOf(t, openOne(t, dir, name))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}

	// One that loses its content while it is open is asked after all.
	f := openOne(t, dir, "dense")
	must(t, os.Truncate(dir+"/dense", 0))
	must(t, os.Truncate(dir+"/dense", 2*page))
	_, err = f.Stat()
	must(t, err)
	if d := cmp.Diff([]span(nil), dataOf(t, f)); d != "" {
		t.Errorf("data of the emptied file (-want +got):\n%s", d)
	}
}

func TestFileSystemsWithoutHoles(t *testing.T) {
	const size = 100
	refuse := func(err error) func(int64, int) (int64, error) {
		return func(int64, int) (int64, error) { return 0, err }
	}
	type result struct {
		Start, End int64
		Err        error
	}
	for _, c := range []struct {
		name string
		off  int64
		seek func(int64, int) (int64, error)
		want result
	}{
		{"everything is data", 0, refuse(unix.EINVAL), result{0, size, nil}},
		{"the rest is data", 40, refuse(unix.EOPNOTSUPP), result{40, size, nil}},
		{"at the end", size, refuse(unix.EINVAL), result{0, 0, io.EOF}},
		{"only a hole follows", 0, refuse(unix.ENXIO), result{0, 0, io.EOF}},
		{"a failing disk", 0, refuse(unix.EIO), result{0, 0, unix.EIO}},
		{"an answer from before the question", 40, func(int64, int) (int64, error) { return 3, nil }, result{40, size, nil}},
		{"data without length", 40, func(off int64, _ int) (int64, error) { return off, nil }, result{40, size, nil}},
		{"cut short between the questions", 40, func(off int64, whence int) (int64, error) {
			if whence == unix.SEEK_HOLE {
				return 0, unix.ENXIO
			}
			return off, nil
		}, result{0, 0, io.EOF}},
	} {
		start, end, err := nextData(c.off, c.seek, func() (int64, error) { return size, nil })
		if diff := cmp.Diff(c.want, result{start, end, err}, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if _, _, err := nextData(0, refuse(unix.EINVAL), func() (int64, error) { return 0, unix.EIO }); !errors.Is(err, unix.EIO) {
		t.Errorf("no size either: %v", err)
	}
}

func TestReadAtReadsAsReaderAtDoes(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", []byte("0123456789"), 0o600))
	f := openOne(t, dir, "file")
	for _, c := range []struct {
		off  int64
		size int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil},
		{3, 4, "3456", nil},
		{8, 4, "89", io.EOF},
		{10, 4, "", io.EOF},
		{100, 4, "", io.EOF},
		{0, 0, "", nil},
	} {
		buf := make([]byte, c.size)
		n, err := f.ReadAt(buf, c.off)
		if string(buf[:n]) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d bytes at %d: %q, %v, want %q, %v", c.size, c.off, buf[:n], err, c.want, c.err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("before the start: %v", err)
	}
}

func TestStatSeesTheFileChange(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o600))
	f := openOne(t, dir, "file")
	before, err := f.Stat()
	must(t, err)
	if diff := cmp.Diff(entry(t, openDir(t, dir), "file").Stat, before); diff != "" {
		t.Errorf("Entry and Stat differ: %s", diff)
	}
	must(t, os.WriteFile(dir+"/file", []byte("longer"), 0o600))
	must(t, os.Remove(dir+"/file"))
	after, err := f.Stat()
	must(t, err)
	if after.Size != 6 || after.Nlink != 0 || after.Inode != before.Inode {
		t.Errorf("%+v", after)
	}
}

// A file server holds a lease on a file that a client caches. The backup asks
// for it and gets the file as soon as it is given up.
func TestLeasesAreWaitedFor(t *testing.T) {
	dir := tempDir(t)
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o600))
	d := openDir(t, dir)
	e := entry(t, d, "file")
	holder, err := os.OpenFile(dir+"/file", os.O_RDWR, 0)
	must(t, err)
	defer holder.Close()
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGIO)
	defer signal.Stop(broken)
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	var g errgroup.Group
	g.Go(func() error {
		select {
		case <-broken:
		case <-time.After(time.Minute):
			return errors.New("nobody asks for the lease")
		}
		_, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	})
	if got := string(readAll(t, d, e)); got != "x" {
		t.Errorf("read %q", got)
	}
	must(t, g.Wait())
}
