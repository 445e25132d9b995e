package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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

func lockHolds(t *testing.T, s LockingStore) {
	for _, mode := range []remote.LockMode{remote.Governance, remote.Compliance} {
		if err := remote.LockPuts(t.Context(), s.Store, remote.Lock{Mode: mode, For: 48 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		key := "ann/" + string(mode)
		put(t, s.Store, key, []byte("precious"))
		v := newest(t, s.Store, key)
		r, err := s.Store.Retention(t.Context(), key, v.ID)
		if left := r.Until.Sub(v.Modified); err != nil || r.Mode != mode || left < 47*time.Hour || left > 49*time.Hour {
			t.Errorf("locked %+v, %v after upload; %v", r, left, err)
		}
		wantError(t, "delete it", s.Store.DeleteVersion(t.Context(), key, v.ID), remote.ErrLocked)
		wantBody(t, s.Store, key, []byte("precious"))
		remove(t, s.Store, key) // hides it
		wantError(t, "delete it, hidden", s.Store.DeleteVersion(t.Context(), key, v.ID), remote.ErrLocked)
		wantVersions(t, s.Store, key, key+" deleted latest", key+" 8")
	}
	s.Expire()
	for _, mode := range []remote.LockMode{remote.Governance, remote.Compliance} {
		for v, err := range s.Store.Versions(t.Context(), "ann/"+string(mode)) {
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Store.DeleteVersion(t.Context(), v.Key, v.ID); err != nil {
				t.Error(err)
			}
		}
	}
	wantVersions(t, s.Store, "")
}

func lockGrows(t *testing.T, s LockingStore) {
	if err := remote.LockPuts(t.Context(), s.Store, remote.Lock{Mode: remote.Compliance, For: 48 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	put(t, s.Store, "ann/a", []byte("precious"))
	v := newest(t, s.Store, "ann/a")
	was, err := s.Store.Retention(t.Context(), v.Key, v.ID)
	if err != nil {
		t.Fatal(err)
	}
	longer := remote.Retention{Mode: remote.Compliance, Until: was.Until.Add(24 * time.Hour)}
	for range 2 {
		if err := s.Store.Retain(t.Context(), v.Key, v.ID, longer); err != nil {
			t.Fatal(err)
		}
	}
	for _, weaker := range []remote.Retention{was, {Mode: remote.Governance, Until: longer.Until.Add(time.Hour)}} {
		wantError(t, fmt.Sprint("lock it less: ", weaker), s.Store.Retain(t.Context(), v.Key, v.ID, weaker), remote.ErrLocked)
	}
	got, err := s.Store.Retention(t.Context(), v.Key, v.ID)
	if err != nil || got.Mode != longer.Mode || !got.Until.Equal(longer.Until) {
		t.Errorf("locked %+v, %v; want %+v", got, err, longer)
	}
}

func notLocked(t *testing.T, s LockingStore) {
	put(t, s.Store, "ann/a", []byte("1"))
	v := newest(t, s.Store, "ann/a")
	if r, err := s.Store.Retention(t.Context(), v.Key, v.ID); err != nil || r != (remote.Retention{}) {
		t.Errorf("locked %+v, %v; want nothing", r, err)
	}
	_, err := s.Store.Retention(t.Context(), "ann/none", v.ID)
	wantError(t, "ask for the lock of nothing", err, fs.ErrNotExist)
	if err := s.Store.Retain(t.Context(), v.Key, v.ID, remote.Lock{Mode: remote.Governance, For: time.Hour}.Retention(time.Now())); err != nil {
		t.Fatal(err)
	}
	wantError(t, "delete it now", s.Store.DeleteVersion(t.Context(), v.Key, v.ID), remote.ErrLocked)
}

func erase(t *testing.T, s LockingStore) {
	put(t, s.Store, "ann/ab", []byte("stays"))
	if err := remote.LockPuts(t.Context(), s.Store, remote.Lock{Mode: remote.Compliance, For: 48 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	put(t, s.Store, "ann/hidden", []byte("hidden"))
	put(t, s.Store, "ann/a", []byte("not yet"))
	s.Store.LockPuts(remote.Lock{})
	remove(t, s.Store, "ann/hidden")
	s.overwrite(t, "ann/a", []byte("free"))
	e, err := remote.NewEraser(t.Context(), s.Store)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for o, err := range e.Objects(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		sizes[o.Key] = o.Size
		if o.Hidden != (o.Key == "ann/hidden") {
			t.Errorf("%s is hidden: %v", o.Key, o.Hidden)
		}
	}
	if diff := cmp.Diff(map[string]int64{"ann/a": 11, "ann/ab": 5, "ann/hidden": 6}, sizes); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	for _, want := range []struct {
		key          string
		freed, stays int64
	}{{"ann/a", 4, 7}, {"ann/a", 0, 7}, {"ann/hidden", 0, 6}, {"ann/gone", 0, 0}} {
		got, err := e.Erase(t.Context(), remote.Info{Key: want.key})
		if err != nil || got.Freed != want.freed || got.Locked != want.stays || got.Until.IsZero() != (want.stays == 0) {
			t.Errorf("erase %s: %+v, %v; want %d freed, %d locked", want.key, got, err, want.freed, want.stays)
		}
	}
	wantVersions(t, s.Store, "", "ann/a 7 latest", "ann/ab 5 latest", "ann/hidden deleted latest", "ann/hidden 6")

	s.Expire()
	for key, want := range map[string]int64{"ann/a": 7, "ann/hidden": 6} {
		got, err := e.Erase(t.Context(), remote.Info{Key: key})
		if err != nil || got != (remote.Erased{Freed: want}) {
			t.Errorf("erase %s after its time: %+v, %v; want %d freed", key, got, err, want)
		}
	}
	wantVersions(t, s.Store, "", "ann/ab 5 latest")
}

func asItWas(t *testing.T, s LockingStore) {
	for _, key := range []string{"ann/a", "ann/b", "ann/x/c", "bob/gone", "later/0"} {
		put(t, s.Store, key, []byte("first "+key))
	}
	then := newest(t, s.Store, "later/0").Modified
	// Whatever comes next must be later by the store's clock, which may have
	// but seconds.
	for round := 0; !newest(t, s.Store, fmt.Sprintf("later/%d", round)).Modified.After(then); round++ {
		put(t, s.Store, fmt.Sprintf("later/%d", round+1), nil)
		runtime.Gosched()
	}
	s.overwrite(t, "ann/a", []byte("garbage"))
	remove(t, s.Store, "ann/b")
	remove(t, s.Store, "bob/gone")
	if s.Settle != nil {
		s.Settle()
	}

	was := remote.AsOf(s.Store, then)
	all, err := Keys(t.Context(), was, "")
	keys := slices.DeleteFunc(all, func(key string) bool { return strings.HasPrefix(key, "later/") })
	if diff := cmp.Diff([]string{"ann/a", "ann/b", "ann/x/c", "bob/gone"}, keys); diff != "" || err != nil {
		t.Errorf("listing (-want +got), %v:\n%s", err, diff)
	}
	names, err := was.(remote.FolderLister).Folders(t.Context(), "")
	if diff := cmp.Diff([]string{"ann", "bob", "later"}, slices.Sorted(slices.Values(names))); diff != "" || err != nil {
		t.Errorf("folders (-want +got), %v:\n%s", err, diff)
	}
	for _, fresh := range []remote.Store{was, remote.AsOf(s.Store, then)} { // with and without a listing before
		for _, key := range keys {
			wantBody(t, fresh, key, []byte("first "+key))
		}
		info, err := fresh.Stat(t.Context(), "ann/b")
		if err != nil || info.Size != 11 {
			t.Errorf("stat: %+v, %v", info, err)
		}
		_, err = fresh.Stat(t.Context(), "ann")
		wantError(t, "stat a folder", err, fs.ErrNotExist)
	}
	before := remote.AsOf(s.Store, then.Add(-time.Hour))
	if keys, err := Keys(t.Context(), before, ""); len(keys) > 0 || err != nil {
		t.Errorf("an hour before it holds %q, %v", keys, err)
	}
	if names, err := before.(remote.FolderLister).Folders(t.Context(), ""); len(names) > 0 || err != nil {
		t.Errorf("an hour before it has the folders %q, %v", names, err)
	}
	_, err = Read(t.Context(), before, "ann/a", 0, -1)
	wantError(t, "read what was not there yet", err, fs.ErrNotExist)
	wantError(t, "put", was.Put(t.Context(), "ann/new", nil), remote.ErrReadOnly)
	wantError(t, "delete", was.Delete(t.Context(), "ann/a"), remote.ErrReadOnly)
	now := remote.AsOf(s.Store, time.Now().Add(time.Hour))
	wantBody(t, now, "ann/a", []byte("garbage"))
	_, err = Read(t.Context(), now, "ann/b", 0, -1)
	wantError(t, "read the deleted", err, fs.ErrNotExist)
}
