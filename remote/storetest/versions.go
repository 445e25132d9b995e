package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// LockingStore is a store that keeps versions and can lock them, with what
// only somebody who does not keep to the rules, or time, does to it.
type LockingStore struct {
	Store interface {
		remote.Versioned
		remote.Locking
	}
	// Overwrite puts an object without asking whether there is one.
	Overwrite func(ctx context.Context, key string, body []byte) error
	// Expire ends all locks, as if their time had come.
	Expire func()
	// Settle, unless nil, gives versions the times that they should have: a
	// server may not keep them.
	Settle func()
}

// RunVersioned checks that the stores that open returns keep the contracts of
// remote.Versioned and remote.Locking. Every story gets a store of its own,
// which must be empty.
func RunVersioned(t *testing.T, open func(t *testing.T) LockingStore, traits ...Trait) {
	taken := slices.Contains(traits, MarkersTake)
	for _, story := range []struct {
		name string
		tell func(t *testing.T, s LockingStore)
	}{
		{"delete hides an object and keeps it", deleteHides},
		{"a version is removed for good", func(t *testing.T, s LockingStore) { removeVersion(t, s, taken) }},
		{"what is on top is what shows", func(t *testing.T, s LockingStore) { overwritten(t, s, taken) }},
		{"versions are in order and by prefix", versionOrder},
		{"versions turn their pages", versionPages},
		{"a lock holds until its end", lockHolds},
		{"a lock can only grow", lockGrows},
		{"what is not locked says so", notLocked},
		{"erase leaves what is locked and hides nothing", erase},
		{"the store as it was", asItWas},
	} {
		t.Run(story.name, func(t *testing.T) { story.tell(t, open(t)) })
	}
}

// Versions returns what a store keeps under a prefix, in order, a line each:
// the key, the size, and what else there is to say.
func Versions(ctx context.Context, s remote.Versioned, prefix string) ([]string, error) {
	var lines []string
	for v, err := range s.Versions(ctx, prefix) {
		if err != nil {
			return lines, err
		}
		line := fmt.Sprintf("%s %d", v.Key, v.Size)
		if v.Marker {
			line = v.Key + " deleted"
		}
		if v.Latest {
			line += " latest"
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func wantVersions(t *testing.T, s remote.Versioned, prefix string, want ...string) {
	t.Helper()
	got, err := Versions(t.Context(), s, prefix)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("versions of %q (-want +got), %v:\n%s", prefix, err, diff)
	}
}

// newest returns the version on top of a key.
func newest(t *testing.T, s remote.Versioned, key string) remote.Version {
	t.Helper()
	for v, err := range s.Versions(t.Context(), key) {
		if err != nil {
			t.Fatal(err)
		}
		if v.Key == key && v.Latest {
			return v
		}
	}
	t.Fatalf("%q has no version", key)
	return remote.Version{}
}

func remove(t *testing.T, s remote.Store, key string) {
	t.Helper()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func (s LockingStore) overwrite(t *testing.T, key string, body []byte) {
	t.Helper()
	if err := s.Overwrite(t.Context(), key, body); err != nil {
		t.Fatal(err)
	}
}

func deleteHides(t *testing.T, s LockingStore) {
	if keeps, err := s.Store.KeepsVersions(t.Context()); !keeps || err != nil {
		t.Fatalf("it keeps versions: %v, %v", keeps, err)
	}
	body := Bytes(1, 1000)
	put(t, s.Store, "ann/a", body)
	first := newest(t, s.Store, "ann/a")
	remove(t, s.Store, "ann/a")
	_, err := s.Store.Stat(t.Context(), "ann/a")
	wantError(t, "stat the deleted", err, fs.ErrNotExist)
	_, err = Read(t.Context(), s.Store, "ann/a", 0, -1)
	wantError(t, "read the deleted", err, fs.ErrNotExist)
	if keys, err := Keys(t.Context(), s.Store, ""); len(keys) > 0 || err != nil {
		t.Errorf("a listing shows %q, %v", keys, err)
	}
	wantVersions(t, s.Store, "", "ann/a deleted latest", "ann/a 1000")

	for _, r := range []struct{ off, n int64 }{{0, -1}, {0, 1000}, {10, 20}, {990, -1}, {5, 0}, {1000, -1}} {
		want := body[r.off:]
		if r.n >= 0 {
			want = want[:r.n]
		}
		got, err := readVersion(t.Context(), s.Store, first, r.off, r.n)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("range %d+%d of the version: %d bytes, %v", r.off, r.n, len(got), err)
		}
	}
	_, err = readVersion(t.Context(), s.Store, first, 990, 20)
	wantError(t, "read past the end", err, remote.ErrCorrupt)
	info, err := s.Store.StatVersion(t.Context(), "ann/a", first.ID)
	if err != nil || info.Size != 1000 || info.Key != "ann/a" || info.SHA256 != remote.Sum(body) {
		t.Errorf("stat the version: %+v, %v", info, err)
	}

	marker := newest(t, s.Store, "ann/a")
	_, err = readVersion(t.Context(), s.Store, marker, 0, -1)
	wantError(t, "read a delete marker", err, fs.ErrNotExist)
	_, err = s.Store.StatVersion(t.Context(), "ann/a", marker.ID)
	wantError(t, "stat a delete marker", err, fs.ErrNotExist)
}

func readVersion(ctx context.Context, s remote.Versioned, v remote.Version, off, n int64) ([]byte, error) {
	r, err := s.GetVersion(ctx, v.Key, v.ID, off, n)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

func removeVersion(t *testing.T, s LockingStore, taken bool) {
	put(t, s.Store, "ann/a", []byte("first"))
	put(t, s.Store, "ann/ab", []byte("another"))
	first := newest(t, s.Store, "ann/a")
	remove(t, s.Store, "ann/a")
	marker := newest(t, s.Store, "ann/a")
	for range 2 { // absent: nil
		if err := s.Store.DeleteVersion(t.Context(), "ann/a", marker.ID); err != nil {
			t.Fatal(err)
		}
	}
	wantBody(t, s.Store, "ann/a", []byte("first"))
	if err := s.Store.DeleteVersion(t.Context(), "ann/a", first.ID); err != nil {
		t.Fatal(err)
	}
	wantVersions(t, s.Store, "", "ann/ab 7 latest")
	_, err := readVersion(t.Context(), s.Store, first, 0, -1)
	wantError(t, "read the removed", err, fs.ErrNotExist)
	if taken { // even when it is gone
		return
	}
	put(t, s.Store, "ann/a", []byte("3"))
	wantVersions(t, s.Store, "ann/a", "ann/a 1 latest", "ann/ab 7 latest")
}

func overwritten(t *testing.T, s LockingStore, taken bool) {
	put(t, s.Store, "ann/a", []byte("first"))
	s.overwrite(t, "ann/a", []byte("second!"))
	wantBody(t, s.Store, "ann/a", []byte("second!"))
	wantVersions(t, s.Store, "", "ann/a 7 latest", "ann/a 5")
	wantError(t, "put over it", s.Store.Put(t.Context(), "ann/a", []byte("x")), remote.ErrExists)
	if taken {
		return
	}
	remove(t, s.Store, "ann/a")
	put(t, s.Store, "ann/a", []byte("third one"))
	wantBody(t, s.Store, "ann/a", []byte("third one"))
	wantVersions(t, s.Store, "", "ann/a 9 latest", "ann/a deleted", "ann/a 7", "ann/a 5")
}

func versionOrder(t *testing.T, s LockingStore) {
	for _, key := range []string{"a-2/x", "a.b/x", "a/x", "a/x-1", "a/y/1", "b/x"} {
		put(t, s.Store, key, []byte("1"))
		s.overwrite(t, key, []byte("22"))
	}
	remove(t, s.Store, "a.b/x")
	remove(t, s.Store, "a/y/1")
	wantVersions(t, s.Store, "",
		"a-2/x 2 latest", "a-2/x 1",
		"a.b/x deleted latest", "a.b/x 2", "a.b/x 1",
		"a/x 2 latest", "a/x 1", "a/x-1 2 latest", "a/x-1 1",
		"a/y/1 deleted latest", "a/y/1 2", "a/y/1 1",
		"b/x 2 latest", "b/x 1")
	wantVersions(t, s.Store, "a/y", "a/y/1 deleted latest", "a/y/1 2", "a/y/1 1")
	wantVersions(t, s.Store, "a.", "a.b/x deleted latest", "a.b/x 2", "a.b/x 1")
	wantVersions(t, s.Store, "c")
	for v, err := range s.Store.Versions(t.Context(), "a/") { // a caller may stop early
		if err != nil || v.Key != "a/x" {
			t.Errorf("the first below a/: %+v, %v", v, err)
		}
		break
	}
	lister, ok := s.Store.(remote.VersionFolderLister)
	if !ok {
		return
	}
	got, err := lister.VersionFolders(t.Context(), "")
	if diff := cmp.Diff([]string{"a", "a-2", "a.b", "b"}, slices.Sorted(slices.Values(got))); diff != "" || err != nil {
		t.Errorf("folders (-want +got), %v:\n%s", err, diff)
	}
}

// versionPages makes more versions than fit into one page of an S3 listing,
// which is 1,000, so that pages end within an object.
func versionPages(t *testing.T, s LockingStore) {
	var want []string
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i := range 360 {
		key := fmt.Sprintf("ann/blobs/0000000001/%04d", i)
		want = append(want, key+" deleted latest", key+" 2", key+" 1")
		g.Go(func() error {
			if err := s.Store.Put(ctx, key, []byte("1")); err != nil {
				return err
			}
			if err := s.Overwrite(ctx, key, []byte("22")); err != nil {
				return err
			}
			return s.Store.Delete(ctx, key)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	wantVersions(t, s.Store, "", want...)
}
