package diskcache_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/fs/diskcache"
	"git.eeqj.de/sneak/vaultik/remote/mem"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// Whatever happens to the folder, a read returns what the store has.
func TestReadsAreTheStores(t *testing.T) {
	s := mem.New(nil)
	keys, bodies := make([]string, 4), make([][]byte, 4)
	for i := range keys {
		keys[i], bodies[i] = blob(t, s, byte(i), 1+i*700_000)
	}
	rapid.Check(t, func(t *rapid.T) {
		folder, err := os.MkdirTemp("", "diskcache-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(folder)
		o := diskcache.Options{Folder: folder, Size: rapid.Int64Range(1, 4<<20).Draw(t, "size")}
		caches := []*diskcache.Cache{diskcache.New(s, o), diskcache.New(s, o)}
		defer func() {
			for _, c := range caches {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
		file := func() string {
			found, err := filepath.Glob(filepath.Join(folder, "*"))
			if err != nil || len(found) == 0 {
				t.Skip("nothing there yet")
			}
			return rapid.SampledFrom(found).Draw(t, "file")
		}
		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				i, c := rapid.IntRange(0, 3).Draw(t, "blob"), rapid.SampledFrom(caches).Draw(t, "cache")
				size := int64(len(bodies[i]))
				off := rapid.Int64Range(0, size).Draw(t, "offset")
				n := rapid.Int64Range(0, size-off).Draw(t, "length")
				got, err := storetest.Read(t.Context(), c, keys[i], off, n)
				if err != nil || !bytes.Equal(got, bodies[i][off:off+n]) {
					t.Fatalf("%d bytes, or others, %v", len(got), err)
				}
			},
			"damage": func(t *rapid.T) {
				f, err := os.OpenFile(file(), os.O_RDWR, 0)
				if err != nil {
					t.Skip(err)
				}
				defer f.Close()
				info, err := f.Stat()
				if err != nil || info.Size() == 0 {
					t.Skip(err)
				}
				at := rapid.Int64Range(0, info.Size()-1).Draw(t, "at")
				var b [1]byte
				if _, err := f.ReadAt(b[:], at); err != nil {
					t.Skip(err) // removed or cut meanwhile
				}
				b[0] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
				if _, err := f.WriteAt(b[:], at); err != nil {
					t.Fatal(err)
				}
			},
			"truncate": func(t *rapid.T) {
				name := file()
				info, err := os.Stat(name)
				if err == nil {
					err = os.Truncate(name, rapid.Int64Range(0, info.Size()).Draw(t, "to"))
				}
				if err != nil {
					t.Skip(err)
				}
			},
			"remove": func(t *rapid.T) { _ = os.Remove(file()) },
			"forget": func(t *rapid.T) { caches[0].Forget(keys[rapid.IntRange(0, 3).Draw(t, "blob")]) },
			"remounts": func(t *rapid.T) {
				if err := caches[0].Close(); err != nil {
					t.Fatal(err)
				}
				caches[0] = diskcache.New(s, o)
			},
		})
	})
}

func TestManyReadersOfOneFolder(t *testing.T) {
	s, folder := mem.New(nil), t.TempDir()
	keys, bodies := make([]string, 6), make([][]byte, 6)
	for i := range keys {
		keys[i], bodies[i] = blob(t, s, byte(i), 1_000_000)
	}
	var g errgroup.Group
	for range 2 {
		c := open(t, s, diskcache.Options{Folder: folder, Size: 4 << 20})
		for reader := range 8 {
			g.Go(func() error {
				for i := range 40 {
					k := (reader + i) % len(keys)
					off := int64(i * 20_000)
					if got, err := storetest.Read(t.Context(), c, keys[k], off, 200_000); err != nil || !bytes.Equal(got, bodies[k][off:off+200_000]) {
						t.Errorf("%d bytes, or others, %v", len(got), err)
					}
					if i%10 == reader {
						c.Forget(keys[k])
					}
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
