package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A tree with one of everything comes back the same by vaultik restore, from
// every kind of store; a second run finds nothing to do, and one over a tree
// that is different in everything mends it.
func TestEverythingIsRestored(t *testing.T) {
	stores(t, func(t *testing.T, url string, env ...string) {
		m := newMachine(t, url, env...)
		src := filepath.Join(m.dir, "source")
		everyCase(t, src)
		m.init(src)
		id := m.backup()
		want := scan(t, src, Look{Holes: true, Root: true})

		to := filepath.Join(t.TempDir(), "to")
		m.run("restore", "--identity", m.kit(), "--verify", id+":"+src, to)
		same(t, "what was restored", want, scan(t, to, Look{Holes: true, Root: true}))
		before := scanTimes(t, to)
		if out := m.run("restore", "--identity", m.kit(), id+":"+src, to); !strings.Contains(out, "restored 0 files, 0 B, 0 other entries;") {
			t.Errorf("the second run did something:\n%s", out)
		}
		if after := scanTimes(t, to); !slices.Equal(before, after) {
			t.Error("the second run touched something")
		}

		spoil(t, to)
		m.run("restore", "--identity", m.kit(), "--delete", "--yes", "--overwrite", "always", id+":"+src, to)
		same(t, "what was mended", want, scan(t, to, Look{Holes: true, Root: true}))

		whole := t.TempDir()
		m.run("restore", "--identity", m.kit(), id, whole)
		same(t, "the whole snapshot", want, scan(t, filepath.Join(whole, src), Look{Holes: true, Root: true}))
	})
}

// scanTimes lists when each inode of a tree was changed last.
func scanTimes(t *testing.T, root string) []string {
	t.Helper()
	lines := strings.Split(tool(t, "find", root, "-printf", `%i %C@ %p\0`), "\x00")
	slices.Sort(lines)
	return lines
}

// spoil changes a tree in every way that is not a plain edit.
func spoil(t *testing.T, root string) {
	t.Helper()
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.RemoveAll(at("sizes/0")))
	must(t, os.MkdirAll(at("sizes/0/below"), 0o755)) // a folder for a file
	must(t, os.RemoveAll(at("names")))
	write(t, at("names"), "a file for a folder")
	must(t, os.Remove(at("links/relative")))
	write(t, at("links/relative"), "a file for a link")
	must(t, os.Remove(at("links/second")))
	must(t, os.Symlink("first", at("links/second"))) // a link for another name
	must(t, os.RemoveAll(at("text")))
	must(t, os.Symlink("/", at("text"))) // a link for a folder
	must(t, os.Chmod(at("links/first"), 0o600))
	must(t, os.Chtimes(at("links/first"), time.Time{}, time.Unix(1, 1)))
	must(t, os.Chmod(at("special"), 0o777))
	write(t, at("special/empty folder/not any more/deep"), "extra")
	write(t, at("xattr/dir/extra"), "extra")
	tool(t, "setfattr", "-n", "user.extra", "-v", "1", at("xattr/dir"))
	tool(t, "setfattr", "-n", "user.extra", "-v", "1", at("xattr/file"))
}

// An ordinary user gets all but what only root may give: it is summed up, and
// is no failure.
func TestAUserRestoresWithoutRoot(t *testing.T) {
	asRoot(t)
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	src := filepath.Join(m.dir, "source")
	everyCase(t, src)
	must(t, os.MkdirAll(filepath.Join(src, "locked"), 0o755))
	write(t, filepath.Join(src, "locked/file"), "in a folder that cannot be written to")
	must(t, os.Chmod(filepath.Join(src, "locked"), 0o555))
	m.init(src)
	id := m.backup()
	want := scan(t, src, Look{Holes: true})

	m.becomeNobody()
	m.own(m.dir)
	tool(t, "chown", "-R", "nobody:nogroup", strings.TrimPrefix(m.store, "file://"))
	to := filepath.Join(m.dir, "to")
	_, stderr, code := m.try("restore", "--identity", m.kit(), id+":"+src, to)
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	for _, words := range []string{
		"belong to others than in the snapshot: only root restores that",
		"lack their setuid or setgid bit: only root restores that",
		"2 are devices, and were left out: only root restores that",
		"extended attributes of the system were left out: only root restores that",
	} {
		if !strings.Contains(stderr, words) {
			t.Errorf("the summary lacks %q:\n%s", words, stderr)
		}
	}
	got := scan(t, to, Look{Holes: true})
	same(t, "what a user gets", asUser(want, got["locked"]), got)

	// What a second run has to change lies in folders that are closed.
	must(t, os.Chmod(filepath.Join(to, "locked"), 0o755))
	must(t, os.Remove(filepath.Join(to, "locked/file")))
	must(t, os.Chmod(filepath.Join(to, "locked"), 0o555))
	m.run("restore", "--identity", m.kit(), id+":"+src, to)
	same(t, "what a second run mends", asUser(want, got["locked"]), scan(t, to, Look{Holes: true}))
}

// asUser is what of a tree the owner of an entry gets.
func asUser(t Tree, owner Entry) Tree {
	out := Tree{}
	for p, e := range t {
		if e.Type == "c" || e.Type == "b" {
			continue
		}
		e.UID, e.GID = owner.UID, owner.GID
		e.Mode &^= 0o6000
		attrs := map[string]string{}
		for name, value := range e.Xattrs {
			if !strings.HasPrefix(name, "security.") && !strings.HasPrefix(name, "trusted.") {
				attrs[name] = value
			}
		}
		if e.Xattrs = attrs; len(attrs) == 0 {
			e.Xattrs = nil
		}
		out[p] = e
	}
	return out
}

// Over a long line each blob is one request, also after edits have spread the
// tree over the blobs of many runs.
func TestARestoreOverALongLineFetchesEachBlobOnce(t *testing.T) {
	c, store, env := overNetwork(t, &link{delay: 20 * time.Millisecond})
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	const files, size, runs = 2000, 12_000, 4
	for i := range files {
		random(t, filepath.Join(src, fmt.Sprintf("%04d", i)), size)
	}
	m.init(src)
	m.backup()
	for run := range runs {
		for i := run; i < files; i += 7 * runs {
			random(t, filepath.Join(src, fmt.Sprintf("%04d", i)), size)
		}
		m.backup()
	}
	c.forget()
	to := filepath.Join(t.TempDir(), "to")
	out := m.run("restore", "--identity", m.kit(), "latest:"+src, to)
	gets, bytes := c.fetched()
	line := m.run("restore", "--identity", m.kit(), "--dry-run", "--overwrite", "always", "--json", "latest:"+src, to)
	var summary struct {
		Blobs int64 `json:"blobs"`
	}
	must(t, json.Unmarshal([]byte(line[strings.LastIndex(strings.TrimSpace(line), "\n")+1:]), &summary))
	if summary.Blobs < runs+2 || int64(gets) != summary.Blobs {
		t.Errorf("%d requests for %d blobs\n%s", gets, summary.Blobs, out)
	}
	if bytes > files*size*5/4 {
		t.Errorf("%d bytes were fetched for %d", bytes, files*size)
	}
	same(t, "what was restored", scan(t, src, Look{Root: true}), scan(t, to, Look{Root: true}))
}
