package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// layoutKeys uses names that are as long and as odd as names may be.
func layoutKeys(t *testing.T, s remote.Store) {
	hash := strings.Repeat("0f", 32)
	writers := []string{
		"a", "9", "A", "ann", "Ann", "ann-2", "ann.example.org", "ann_b", "a..b", "a--b",
		strings.Repeat("x", 63), "a.-_" + strings.Repeat("Z", 59), ".probe-0123456789abcdef",
	}
	var keys []string
	for _, w := range writers {
		keys = append(keys,
			w+"/blobs/0000000001/"+hash,
			w+"/forgotten/0000000001",
			w+"/metadata/9999999999/"+hash+".db.zst.age",
			w+"/metadata/9999999999/"+hash+".list.zst",
			w+"/metadata/9999999999/manifest.json.zst",
			w+"/metadata/9999999999/manifest.json.zst.minisig",
			w+"/signers/1.pub",
			w+"/signers/1.pub.minisig")
	}
	for _, key := range keys {
		put(t, s, key, []byte(key))
	}
	slices.Sort(keys)
	got, err := Keys(t.Context(), s, "")
	if diff := cmp.Diff(keys, got); diff != "" || err != nil {
		t.Fatalf("listing (-want +got), %v:\n%s", err, diff)
	}
	for _, key := range keys {
		wantBody(t, s, key, []byte(key))
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if got, err := Keys(t.Context(), s, ""); err != nil || len(got) != 0 {
		t.Errorf("after deleting everything: %q, %v", got, err)
	}
}

func listOrder(t *testing.T, s remote.Store) {
	// "-" and "." come before "/", which a walk through folders gets wrong.
	keys := []string{"a-2/x", "a.b/x", "a/x", "a/x-1", "a/x.1", "a/x1", "a/y/1", "a/y/2", "a0/x", "b/x"}
	for i, key := range keys {
		put(t, s, key, bytes.Repeat([]byte("x"), i))
	}
	for _, prefix := range []string{"", "a", "a/", "a/x", "a/y", "a/y/", "a/y/2", "a/y/2/", "b", "c"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		got, err := Keys(t.Context(), s, prefix)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("list %q (-want +got), %v:\n%s", prefix, err, diff)
		}
	}
	i := 0
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != int64(i) || info.Modified.IsZero() {
			t.Errorf("listed %+v, want size %d and a time", info, i)
		}
		i++
	}
	for info, err := range s.List(t.Context(), "a/") { // a caller may stop early
		if err != nil || info.Key != "a/x" {
			t.Errorf("the first below a/: %+v, %v", info, err)
		}
		break
	}
}

// folders compares a listing of folders, where the store offers one, with the
// keys.
func folders(t *testing.T, s remote.Store) {
	lister, ok := s.(remote.FolderLister)
	if !ok {
		t.Skip("this store lists objects only")
	}
	for _, key := range []string{"a/x/1", "a/x/2", "a/y", "b-1/x", "b/x", "top"} {
		put(t, s, key, []byte("x"))
	}
	for prefix, want := range map[string][]string{"": {"a", "b-1", "b"}, "a/": {"x"}, "a/x/": nil, "c/": nil} {
		got, err := lister.Folders(t.Context(), prefix)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("folders in %q (-want +got), %v:\n%s", prefix, err, diff)
		}
	}
}

// listPages puts more objects than fit into one page of an S3 listing, which
// is 1,000.
func listPages(t *testing.T, s remote.Store) {
	var keys []string
	for i := range 1050 {
		keys = append(keys, fmt.Sprintf("ann/blobs/0000000001/%04d", i))
	}
	keys = append(keys, "ann/blobs/0000000002/0000", "bob/blobs/0000000001/0000")
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	for _, key := range keys {
		g.Go(func() error { return s.Put(ctx, key, []byte(key)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct {
		prefix string
		want   []string
	}{{"", keys}, {"ann/blobs/0000000001/", keys[:1050]}, {"bob/", keys[1051:]}} {
		got, err := Keys(t.Context(), s, l.prefix)
		if diff := cmp.Diff(l.want, got); diff != "" || err != nil {
			t.Errorf("list %q (-want +got), %v:\n%s", l.prefix, err, diff)
		}
	}
}

func cancelled(t *testing.T, s remote.Store) {
	body := Bytes(6, 8<<20)
	put(t, s, "ann/a", body)

	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Get(ctx, "ann/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, r)
	wantError(t, "read on", err, context.Canceled)
	_ = r.Close()

	_, err = s.Get(ctx, "ann/a", 0, -1)
	wantError(t, "get", err, context.Canceled)
	_, err = s.Stat(ctx, "ann/a")
	wantError(t, "stat", err, context.Canceled)
	_, err = Keys(ctx, s, "")
	wantError(t, "list", err, context.Canceled)
	wantError(t, "delete", s.Delete(ctx, "ann/a"), context.Canceled)
	wantError(t, "put", s.Put(ctx, "ann/b", body), context.Canceled)

	keys, err := Keys(t.Context(), s, "")
	if diff := cmp.Diff([]string{"ann/a"}, keys); diff != "" || err != nil {
		t.Errorf("what is there afterwards (-want +got), %v:\n%s", err, diff)
	}
}

// atomicPut watches a key from two sides while a big object is put there.
func atomicPut(t *testing.T, s remote.Store) {
	body := Bytes(7, 6<<20)
	for round := range 4 {
		key := fmt.Sprintf("ann/%d", round)
		var done atomic.Bool
		g, ctx := errgroup.WithContext(t.Context())
		g.Go(func() error {
			defer done.Store(true)
			return s.Put(ctx, key, body)
		})
		g.Go(func() error {
			for last := false; !last; {
				last = done.Load() // look once more after Put returned
				got, err := Read(ctx, s, key, 0, -1)
				switch {
				case errors.Is(err, fs.ErrNotExist) && !last:
				case err != nil:
					return err
				case !bytes.Equal(got, body):
					return fmt.Errorf("read %d other bytes than the %d that were put", len(got), len(body))
				}
			}
			return nil
		})
		g.Go(func() error {
			for last := false; !last; {
				last = done.Load()
				n := 0
				for info, err := range s.List(ctx, key) {
					if err != nil {
						return err
					}
					if info.Key != key || info.Size != int64(len(body)) {
						return fmt.Errorf("the listing shows %+v while %q of %d bytes is being put", info, key, len(body))
					}
					n++
				}
				if last && n != 1 {
					return fmt.Errorf("after Put the listing shows %d objects", n)
				}
			}
			return nil
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func raceOfCreators(t *testing.T, s remote.Store, racy bool) {
	const creators, rounds = 8, 20
	doubles := 0
	for round := range rounds {
		key := fmt.Sprintf("ann/%d", round)
		bodies := make([][]byte, creators)
		won := make([]bool, creators)
		start := make(chan struct{})
		var g errgroup.Group
		for i := range creators {
			bodies[i] = Bytes(byte(i), 5000)
			g.Go(func() error {
				<-start
				err := s.Put(t.Context(), key, bodies[i])
				won[i] = err == nil
				if errors.Is(err, remote.ErrExists) {
					return nil
				}
				return err
			})
		}
		close(start)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		got, err := Read(t.Context(), s, key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		holder := slices.IndexFunc(bodies, func(b []byte) bool { return bytes.Equal(b, got) })
		winners := 0
		for _, w := range won {
			if w {
				winners++
			}
		}
		switch {
		case holder < 0:
			t.Fatalf("%q holds what nobody put there", key)
		case !won[holder]:
			t.Fatalf("%q holds the bytes of creator %d, who was told that it failed", key, holder)
		case winners > 1:
			doubles++
		}
	}
	if doubles > 0 {
		if !racy {
			t.Errorf("in %d of %d races more than one creator won", doubles, rounds)
		}
		t.Logf("in %d of %d races more than one creator won", doubles, rounds)
	}
}
