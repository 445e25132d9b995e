package storetest

import (
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

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
