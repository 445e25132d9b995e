package integration

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// locked is a machine that backs up into a bucket with object lock, and the
// bucket as a thief of its credentials has it.
func locked(t *testing.T) (m *machine, g *storetest.Gateway, thief *s3.Store) {
	t.Helper()
	g = storetest.StartLockingGateway(t)
	url := "s3://" + g.Bucket + "/home?endpoint=" + g.Endpoint + "&region=" + g.Region + "&path_style=on"
	m = newMachine(t, url, "AWS_ACCESS_KEY_ID="+g.AccessKey, "AWS_SECRET_ACCESS_KEY="+g.SecretKey)
	o, err := s3.ParseURL(url)
	must(t, err)
	o.AccessKey, o.SecretKey = g.AccessKey, g.SecretKey
	thief, err = s3.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { _ = thief.Close() })
	return m, g, thief
}

// versions returns all that the bucket keeps but delete markers.
func versions(t *testing.T, s remote.Versioned) (all []remote.Version) {
	t.Helper()
	for v, err := range s.Versions(t.Context(), "tester/") {
		must(t, err)
		if !v.Marker {
			all = append(all, v)
		}
	}
	return all
}

// A thief deletes whatever the credentials let him delete. Nothing is lost:
// the store is there as it was before, and the alarm goes off for those who
// look at it as it is.
func TestWhatAThiefDeletesIsThereAsOfBefore(t *testing.T) {
	m, g, thief := locked(t)
	src := filepath.Join(m.dir, "source")
	everyCase(t, src)
	m.run("init", "--store", m.store, "--kit", m.kit(), "--writer", "tester", "--object-lock", "30d", src)
	m.backup()
	write(t, filepath.Join(src, "new"), "a change\n")
	id := m.backup()
	want := scan(t, src, Look{Root: true})

	// The server's clock has seconds.
	before := time.Now()
	time.Sleep(time.Until(before.Truncate(time.Second).Add(time.Second)))
	all := versions(t, thief)
	if len(all) < 10 {
		t.Fatalf("the bucket keeps only %d objects", len(all))
	}
	for _, v := range all {
		must(t, thief.Delete(t.Context(), v.Key))
		if err := thief.DeleteVersion(t.Context(), v.Key, v.ID); !errors.Is(err, remote.ErrLocked) {
			t.Fatalf("delete %q for good: %v", v.Key, err)
		}
	}
	g.SettleTimes(t)

	alarm := func() {
		t.Helper()
		// 10 where nothing of the writer shows, 13 where a server still shows its folder.
		_, stderr, code := m.try("snapshot", "list")
		if code != 10 && code != 13 || !strings.Contains(stderr, "but showed run 2") && !strings.Contains(stderr, "here before") {
			t.Errorf("the store as it is now: exit %d\n%s", code, stderr)
		}
	}
	alarm()
	asOf := "--as-of=" + before.UTC().Format(time.RFC3339)
	if out := m.run("snapshot", "list", asOf); strings.Count(out, "tester-") != 2 {
		t.Errorf("as of before it lists\n%s", out)
	}
	to := filepath.Join(m.dir, "restored")
	m.run("restore", asOf, "--identity", m.kit(), "--no-cache", id+":"+src, to)
	same(t, "what was restored", want, scan(t, to, Look{Root: true}))
	same(t, "the mount", want, scan(t, filepath.Join(m.mount(id, asOf), src), Look{Root: true}))
	m.fails(1, []string{"snapshot", "list", "--as-of=2999-01-01"}, "is in the future")
	m.fails(10, []string{"snapshot", "list", "--as-of=2001-01-01"}, "no writer in")
	alarm() // it has not forgotten
}

// Locks end, and are renewed for what is still needed.
func TestLocksAreRenewed(t *testing.T) {
	m, g, thief := locked(t)
	src := filepath.Join(m.dir, "source")
	random(t, filepath.Join(src, "file"), 100_000)
	m.run("init", "--store", m.store, "--kit", m.kit(), "--writer", "tester", "--object-lock", "30d", "--object-lock-mode", "governance", src)
	m.backup()
	renew := func(args ...string) (line struct{ Needed, Renewed, Missing int }) {
		t.Helper()
		out := m.run(append([]string{"store", "renew", "--json"}, args...)...)
		must(t, json.Unmarshal([]byte(out), &line))
		return line
	}
	all := versions(t, thief)
	if fresh := renew(); fresh.Needed != len(all) || fresh.Renewed+fresh.Missing != 0 {
		t.Errorf("right after the backup: %+v, of %d", fresh, len(all))
	}
	g.ExpireLocks(t)
	if plan := renew("--dry-run"); plan.Renewed != len(all) {
		t.Errorf("when all have ended, the plan is %+v, of %d", plan, len(all))
	}
	if done := renew("--object-lock-mode", "compliance"); done.Renewed != len(all) {
		t.Errorf("renewed: %+v, of %d", done, len(all))
	}
	for _, v := range all {
		r, err := thief.Retention(t.Context(), v.Key, v.ID)
		if days := time.Until(r.Until).Hours() / 24; err != nil || r.Mode != remote.Compliance || days < 29 || days > 31 {
			t.Errorf("%q is locked in mode %q for %v days, %v", v.Key, r.Mode, days, err)
		}
		if err := thief.DeleteVersion(t.Context(), v.Key, v.ID); !errors.Is(err, remote.ErrLocked) {
			t.Errorf("delete %q: %v", v.Key, err)
		}
	}
	if again := renew(); again.Renewed != 0 {
		t.Errorf("repeated: %+v", again)
	}
}

// Nobody is left to believe that a bucket locks what it does not.
func TestABucketWithoutObjectLockIsRefused(t *testing.T) {
	url, env := gateway(t)
	m := newMachine(t, url, env...)
	src := filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "file"), "x\n")
	m.fails(1, []string{"init", "--store", m.store, "--kit", m.kit(), "--writer", "tester", "--object-lock", "30d", src},
		"object_lock is set, but", "this store cannot lock objects", "was made without object lock")
	if _, err := os.Lstat(m.kit()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a kit was left: %v", err)
	}
	m.init(src)
	config := filepath.Join(m.dir, "vaultik.toml")
	text, err := os.ReadFile(config)
	must(t, err)
	must(t, os.WriteFile(config, []byte(strings.Replace(string(text), "#object_lock =", "object_lock =", 1)), 0o600))
	m.fails(1, []string{"backup"}, "this store cannot lock objects")
	m.fails(1, []string{"store", "renew"}, "this store cannot lock objects")
	m.fails(1, []string{"snapshot", "list", "--as-of", "1d"}, "keeps no versions")
}

// Deleting for good waits for the locks, and then takes what an earlier
// deletion only hid as well.
func TestPruneFreesWhatIsNoLongerLocked(t *testing.T) {
	m, g, thief := locked(t)
	src := filepath.Join(m.dir, "source")
	random(t, filepath.Join(src, "file"), 100_000)
	m.run("init", "--store", m.store, "--kit", m.kit(), "--writer", "tester", "--object-lock", "30d", src)
	m.backup()
	needed := len(versions(t, thief))
	// What an interrupted run left under a number that was used up since.
	must(t, remote.LockPuts(t.Context(), thief, remote.Lock{Mode: remote.Compliance, For: 48 * time.Hour}))
	for _, body := range []string{"shown", "hidden"} {
		must(t, thief.Put(t.Context(), remote.BlobKey("tester", 1, remote.Sum([]byte(body))), []byte(body)))
	}
	must(t, thief.Delete(t.Context(), remote.BlobKey("tester", 1, remote.Sum([]byte("hidden")))))

	if out := m.run("prune"); !strings.Contains(out, "nothing can be freed yet") || !strings.Contains(out, "stays: 11 B, 2 objects, that the store has locked, the last until 20") {
		t.Errorf("while all is locked prune says\n%s", out)
	}
	if n := len(versions(t, thief)); n != needed+2 {
		t.Errorf("%d versions, want %d", n, needed+2)
	}
	g.ExpireLocks(t)
	if out := m.run("prune"); !strings.Contains(out, "freed 11 B in 2 blobs") {
		t.Errorf("after their time prune says\n%s", out)
	}
	all, err := storetest.Versions(t.Context(), thief, "tester/")
	if err != nil || len(all) != needed {
		t.Errorf("left are %q, %v; want %d", all, err, needed)
	}
	m.run("restore", "--identity", m.kit(), "latest:"+src, filepath.Join(m.dir, "restored"))
}
