package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// A Trait says what a store does not promise.
type Trait int

const (
	// RacyCreate: of several creators of one key that run at the same time
	// more than one may be told that it won. Some S3 servers look whether
	// the key is taken before they write and not while. (vaultik's prune does
	// not rest on this promise.)
	RacyCreate Trait = iota + 1
	// MarkersTake: in a store that keeps versions, a key stays taken after
	// Delete. (A writer's objects never need a key twice.)
	MarkersTake
)

// Run checks that the stores open returns keep the contract of remote.Store.
// Every story gets a store of its own, which must be empty.
func Run(t *testing.T, open func(t *testing.T) remote.Store, traits ...Trait) {
	stories := []struct {
		name string
		tell func(t *testing.T, s remote.Store)
	}{
		{"an object comes back as it was put", roundTrip},
		{"an empty object is an object", emptyObject},
		{"a big object goes in one piece", bigObject},
		{"ranges are exact or refused", ranges},
		{"nothing is ever overwritten", neverOverwrite},
		{"absent keys", absentKeys},
		{"delete removes one object", func(t *testing.T, s remote.Store) {
			deleteOne(t, s, slices.Contains(traits, MarkersTake))
		}},
		{"every key the layout can spell works", layoutKeys},
		{"a listing is in byte order and by prefix", listOrder},
		{"a listing turns its pages", listPages},
		{"folders are what the keys say", folders},
		{"a cancelled context ends every call", cancelled},
		{"many workers at once", manyWorkers},
		{"a reader sees the whole object or none", atomicPut},
		{"one of many creators wins", func(t *testing.T, s remote.Store) {
			raceOfCreators(t, s, slices.Contains(traits, RacyCreate))
		}},
	}
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) { story.tell(t, open(t)) })
	}
}

// Read returns n bytes of an object from off on (all of them if n < 0) and
// closes the reader: what most tests want of Store.Get.
func Read(ctx context.Context, s remote.Store, key string, off, n int64) ([]byte, error) {
	r, err := s.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

// Keys returns the keys of a listing in the order in which they came.
func Keys(ctx context.Context, s remote.Store, prefix string) ([]string, error) {
	var keys []string
	for info, err := range s.List(ctx, prefix) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

// Bytes returns n bytes that do not compress and are the same for the same
// seed.
func Bytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func put(t *testing.T, s remote.Store, key string, body []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, body); err != nil {
		t.Fatal(err)
	}
}

// wantBody fails unless key holds exactly body.
func wantBody(t *testing.T, s remote.Store, key string, body []byte) {
	t.Helper()
	got, err := Read(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, body) {
		t.Fatalf("%q holds %d bytes with sum %v, want %d with sum %v", key, len(got), remote.Sum(got), len(body), remote.Sum(body))
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func roundTrip(t *testing.T, s remote.Store) {
	body := Bytes(1, 1000)
	sent := bytes.Clone(body)
	put(t, s, "ann/a", sent)
	if !bytes.Equal(sent, body) {
		t.Error("Put changed its argument")
	}
	clear(sent) // the store must not have kept it
	wantBody(t, s, "ann/a", body)

	info, err := s.Stat(t.Context(), "ann/a")
	if err != nil {
		t.Fatal(err)
	}
	if info.Key != "ann/a" || info.Size != 1000 || info.Modified.IsZero() {
		t.Errorf("Stat says %+v", info)
	}
	if !info.SHA256.IsZero() && info.SHA256 != remote.Sum(body) {
		t.Errorf("Stat reports the sum %v, want %v or none", info.SHA256, remote.Sum(body))
	}
}

func emptyObject(t *testing.T, s remote.Store) {
	put(t, s, "ann/empty", nil)
	wantBody(t, s, "ann/empty", nil)
	info, err := s.Stat(t.Context(), "ann/empty")
	if err != nil || info.Size != 0 {
		t.Errorf("Stat: %+v, %v; want size 0", info, err)
	}
	wantError(t, "put again", s.Put(t.Context(), "ann/empty", []byte("full")), remote.ErrExists)
	_, err = Read(t.Context(), s, "ann/empty", 0, 1)
	wantError(t, "one byte of an empty object", err, remote.ErrCorrupt)
}

func bigObject(t *testing.T, s remote.Store) {
	body := Bytes(2, 40<<20)
	put(t, s, "ann/big", body)
	wantBody(t, s, "ann/big", body)
	got, err := Read(t.Context(), s, "ann/big", 39<<20, -1)
	if err != nil || !bytes.Equal(got, body[39<<20:]) {
		t.Errorf("the last MiB: %d bytes, %v", len(got), err)
	}
}

func ranges(t *testing.T, s remote.Store) {
	body := Bytes(3, 100_000)
	size := int64(len(body))
	put(t, s, "ann/a", body)
	for _, r := range []struct{ off, n int64 }{
		{0, -1}, {0, size}, {0, 1}, {0, 0}, {1, -1}, {40_000, 20_000}, {40_000, 0},
		{size - 1, 1}, {size - 1, -1}, {size, 0}, {size, -1},
	} {
		want := body[r.off:]
		if r.n >= 0 {
			want = want[:r.n]
		}
		got, err := Read(t.Context(), s, "ann/a", r.off, r.n)
		if err != nil {
			t.Errorf("range %d+%d: %v", r.off, r.n, err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("range %d+%d: got %d bytes, want %d, or others", r.off, r.n, len(got), len(want))
		}
	}
	for _, r := range []struct{ off, n int64 }{
		{0, size + 1}, {size - 1, 2}, {size, 1}, {size + 1, 0}, {size + 1, -1}, {size + 1, 1}, {-1, 1},
	} {
		got, err := Read(t.Context(), s, "ann/a", r.off, r.n)
		if !errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("range %d+%d of %d bytes: %d bytes and error %v, want %v", r.off, r.n, size, len(got), err, remote.ErrCorrupt)
		}
	}
}

func neverOverwrite(t *testing.T, s remote.Store) {
	body := []byte("the first")
	put(t, s, "ann/a", body)
	for _, other := range [][]byte{[]byte("another"), body, nil, Bytes(4, 1<<20)} {
		wantError(t, fmt.Sprintf("put %d bytes over it", len(other)), s.Put(t.Context(), "ann/a", other), remote.ErrExists)
		wantBody(t, s, "ann/a", body)
	}
}

func absentKeys(t *testing.T, s remote.Store) {
	put(t, s, "ann/a/b", []byte("x"))
	for _, key := range []string{"ann/a/c", "ann/x", "bob/a/b", "ann/a"} {
		for _, n := range []int64{-1, 0, 1} {
			_, err := Read(t.Context(), s, key, 0, n)
			wantError(t, fmt.Sprintf("get %d of %q", n, key), err, fs.ErrNotExist)
		}
		_, err := s.Stat(t.Context(), key)
		wantError(t, "stat "+key, err, fs.ErrNotExist)
	}
	for _, key := range []string{"ann/a/c", "ann/x", "bob/a/b"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete an absent key: %v", err)
		}
	}
	keys, err := Keys(t.Context(), s, "nobody/")
	if err != nil || len(keys) != 0 {
		t.Errorf("list an absent prefix: %q, %v; want nothing", keys, err)
	}
	wantBody(t, s, "ann/a/b", []byte("x"))
}

func deleteOne(t *testing.T, s remote.Store, taken bool) {
	put(t, s, "ann/a", []byte("1"))
	put(t, s, "ann/ab", []byte("2"))
	for range 2 {
		if err := s.Delete(t.Context(), "ann/a"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Stat(t.Context(), "ann/a")
	wantError(t, "stat the deleted", err, fs.ErrNotExist)
	wantBody(t, s, "ann/ab", []byte("2"))
	if taken {
		return
	}
	put(t, s, "ann/a", []byte("3")) // the key is free again
	wantBody(t, s, "ann/a", []byte("3"))
}

func manyWorkers(t *testing.T, s remote.Store) {
	shared := Bytes(5, 300_000)
	put(t, s, "ann/shared", shared)
	g, ctx := errgroup.WithContext(t.Context())
	for w := range 16 {
		g.Go(func() error {
			for i := range 8 {
				key := fmt.Sprintf("ann/%d/%d", w, i)
				body := Bytes(byte(16*w+i), 1000*w+i)
				if err := s.Put(ctx, key, body); err != nil {
					return err
				}
				if got, err := Read(ctx, s, key, 0, -1); err != nil || !bytes.Equal(got, body) {
					return fmt.Errorf("%q: %d bytes, %w", key, len(got), err)
				}
				off := int64(1000 * (w + i))
				if got, err := Read(ctx, s, "ann/shared", off, 5000); err != nil || !bytes.Equal(got, shared[off:off+5000]) {
					return fmt.Errorf("shared object at %d: %d bytes, %w", off, len(got), err)
				}
				if keys, err := Keys(ctx, s, fmt.Sprintf("ann/%d/", w)); err != nil || len(keys) != 1 {
					return fmt.Errorf("worker %d lists %q, %w", w, keys, err)
				}
				if err := s.Delete(ctx, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	keys, err := Keys(t.Context(), s, "")
	if diff := cmp.Diff([]string{"ann/shared"}, keys); diff != "" || err != nil {
		t.Errorf("what is left (-want +got), %v:\n%s", err, diff)
	}
}
