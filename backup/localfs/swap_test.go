package localfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

// kinds are the things that a name can be swapped for. A FIFO blocks whoever
// opens it without thinking; the links lead out of the tree.
var kinds = map[string]func(path, outside string) error{
	"file": func(path, _ string) error { return os.WriteFile(path, []byte("inside"), 0o600) },
	"dir": func(path, _ string) error {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		return os.WriteFile(path+"/inside", []byte("inside"), 0o600)
	},
	"fifo":         func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
	"link to file": func(path, outside string) error { return os.Symlink(outside+"/outside", path) },
	"link to dir":  func(path, outside string) error { return os.Symlink(outside, path) },
}

func makeOutside(t *testing.T) string {
	outside := tempDir(t)
	must(t, os.WriteFile(outside+"/outside", []byte("outside"), 0o600))
	return outside
}

func TestEntriesSwappedAfterListingAreNotFollowed(t *testing.T) {
	outside := makeOutside(t)
	for before, makeBefore := range kinds {
		for after, makeAfter := range kinds {
			t.Run(before+" to "+after, func(t *testing.T) {
				dir := tempDir(t)
				must(t, makeBefore(dir+"/x", outside))
				must(t, makeAfter(dir+"/y", outside)) // exists already, so it cannot get x's inode number
				d := openDir(t, dir)
				e := entry(t, d, "x")
				must(t, unix.Renameat2(unix.AT_FDCWD, dir+"/x", unix.AT_FDCWD, dir+"/y", unix.RENAME_EXCHANGE))
				_, err := d.Meta(t.Context(), e)
				errs := map[string]error{"Meta": err}
				if e.Type == metastore.Regular {
					errs["Open"] = second(d.Open(t.Context(), e))
				}
				if e.Type == metastore.Directory {
					errs["OpenDir"] = second(d.OpenDir(t.Context(), e))
				}
				for what, err := range errs {
					if !errors.Is(err, source.ErrSwapped) {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		}
	}
}

func TestHandleStaysWithItsDirectory(t *testing.T) {
	dir, outside := tempDir(t), makeOutside(t)
	must(t, kinds["dir"](dir+"/x", outside))
	d := openDir(t, dir+"/x")
	must(t, os.Rename(dir+"/x", dir+"/moved"))
	must(t, os.Symlink(outside, dir+"/x"))
	if entries := list(t, d); len(entries) != 1 || entries[0].Name != "inside" {
		t.Errorf("%+v", entries)
	}
}

// Somebody exchanges a file, a folder, a FIFO and links that lead out all the
// time. Whatever a walk gets to see, it is inside, and it gets to an end.
func TestNoRaceLeadsOutside(t *testing.T) {
	const rounds = 4000
	dir, outside := tempDir(t), makeOutside(t)
	names := []string{"a", "b", "c", "d", "e"}
	i := 0
	for _, kind := range kinds {
		must(t, kind(dir+"/"+names[i], outside))
		i++
	}
	d := openDir(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for n := 0; ctx.Err() == nil; n++ {
			x, y := dir+"/"+names[n%5], dir+"/"+names[(n/5+n*3+1)%5]
			if x == y {
				continue
			}
			if err := unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE); err != nil {
				return err
			}
		}
		return nil
	})
	var opened, swapped, metas int
	expected := func(err error) bool {
		if errors.Is(err, source.ErrSwapped) {
			swapped++
			return true
		}
		return errors.Is(err, fs.ErrNotExist)
	}
	for range rounds {
		for _, e := range list(t, d) {
			if e.Err != nil {
				t.Fatalf("examine %q: %v", e.Name, e.Err)
			}
			switch e.Type {
			case metastore.Directory:
				sub, err := d.OpenDir(t.Context(), e)
				if err != nil {
					if !expected(err) {
						t.Fatal(err)
					}
					break
				}
				opened++
				if inside := list(t, sub); len(inside) != 1 || inside[0].Name != "inside" {
					t.Fatalf("listed %+v", inside)
				}
				must(t, sub.Close())
			case metastore.Regular:
				f, err := d.Open(t.Context(), e)
				if err != nil {
					if !expected(err) {
						t.Fatal(err)
					}
					break
				}
				opened++
				buf := make([]byte, 16)
				n, _ := f.ReadAt(buf, 0)
				if string(buf[:n]) != "inside" {
					t.Fatalf("read %q", buf[:n])
				}
				must(t, f.Close())
			}
			m, err := d.Meta(t.Context(), e)
			if err != nil && !expected(err) {
				t.Fatal(err)
			}
			if err == nil {
				metas++
				if (e.Type == metastore.Symlink) != strings.HasPrefix(m.Target, outside) {
					t.Fatalf("%c has the target %q", e.Type, m.Target)
				}
			}
		}
	}
	stop()
	must(t, g.Wait())
	t.Logf("%d opened, %d metadata read, %d found swapped", opened, metas, swapped)
	if opened == 0 || metas == 0 {
		t.Error("the walk never got to see anything")
	}
}

// Handles are shared by the goroutines of a backup.
func TestHandlesCanBeSharedAndClosedAtAnyTime(t *testing.T) {
	dir := tempDir(t)
	makeEveryType(t, dir)
	for range 50 {
		d := openDir(t, dir)
		e := entry(t, d, "file")
		var g errgroup.Group
		for range 8 {
			d.Retain()
			g.Go(func() error {
				defer d.Close()
				f, err := d.Open(t.Context(), e)
				if err != nil {
					return err
				}
				if err := f.Close(); err != nil {
					return err
				}
				if _, err := d.Meta(t.Context(), e); err != nil {
					return err
				}
				_, err = entriesOf(t.Context(), d)
				return err
			})
			// This one holds no reference and may come too late.
			g.Go(func() error {
				if _, err := entriesOf(t.Context(), d); err != nil && !errors.Is(err, fs.ErrClosed) {
					return err
				}
				return nil
			})
		}
		must(t, d.Close())
		must(t, g.Wait())
	}
}
