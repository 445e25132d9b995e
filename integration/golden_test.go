package integration

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var newGolden = flag.String("new-golden", "", "make golden stores of this format version, as in -new-golden v1; never for one that is there")

// goldenKinds are the kinds of recipients that golden stores are sealed to.
var goldenKinds = map[string][]string{"x25519": {"--x25519"}, "hybrid": nil}

// What an earlier vaultik stored is read by this one. The stores are kept as
// they were written and never made again to please a test.
func TestWhatWasStoredStaysReadable(t *testing.T) {
	versions, err := filepath.Glob("testdata/v*")
	must(t, err)
	if len(versions) == 0 {
		t.Fatal("there are no golden stores")
	}
	for _, version := range versions {
		for kind := range goldenKinds {
			t.Run(filepath.Base(version)+" "+kind, func(t *testing.T) {
				golden, err := filepath.Abs(filepath.Join(version, kind))
				must(t, err)
				m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
				tool(t, "cp", "-r", filepath.Join(golden, "store"), m.storeFolder())
				tool(t, "cp", filepath.Join(golden, "kit.txt"), m.kit())
				mnt := m.mount("")
				var ids []string
				for _, snapshot := range []string{"first", "second", "third", "fourth"} {
					want, err := os.ReadFile(filepath.Join(golden, snapshot+".txt"))
					must(t, err)
					id, text, _ := strings.Cut(string(want), "\n")
					ids = append(ids, id)
					got := describe(scan(t, filepath.Join(mnt, "snapshots", id, "golden"), Look{Holes: true, Root: true}))
					if got != text {
						t.Errorf("%s snapshot:\n%s\nwant:\n%s", snapshot, got, text)
					}
				}
				shown, err := os.ReadDir(filepath.Join(mnt, "snapshots"))
				must(t, err)
				var names []string
				for _, e := range shown {
					names = append(names, e.Name())
				}
				slices.Sort(names)
				slices.Sort(ids)
				if diff := cmp.Diff(ids, names); diff != "" {
					t.Errorf("snapshots, - wanted, + shown:\n%s", diff)
				}
				for _, command := range []string{"audit --read", "prune --dry-run"} {
					m.run(append(strings.Fields(command), "--store", m.store, "--identity", m.kit())...)
				}
				if kind == "x25519" { // which the system's age reads
					dest := filepath.Join(t.TempDir(), "restored")
					tool(t, "sh", "../docs/recover.sh", m.kit(), m.storeFolder(), "tester", "latest", dest)
				}
			})
		}
	}
}

// describe is a tree as text, one entry a line.
func describe(tree Tree) string {
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		e := tree[p]
		fmt.Fprintf(&b, "%q %s %04o %d:%d size=%d mtime=%s", p, e.Type, e.Mode, e.UID, e.GID, e.Size, e.MTime)
		for _, v := range []string{e.Rdev, e.Target, e.Hash, e.Data, e.Links} {
			fmt.Fprintf(&b, " %q", v)
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			fmt.Fprintf(&b, " %q=%q", name, e.Xattrs[name])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestMakeGoldenStores makes them, as root and only when asked to: the tree
// lies at /golden, since a snapshot's paths begin at "/".
func TestMakeGoldenStores(t *testing.T) {
	if *newGolden == "" {
		t.Skip("only with -new-golden VERSION")
	}
	for kind, options := range goldenKinds {
		golden, err := filepath.Abs(filepath.Join("testdata", *newGolden, kind))
		must(t, err)
		if _, err := os.Stat(golden); err == nil {
			t.Fatalf("%s is there; golden stores are never made again", golden)
		}
		must(t, os.MkdirAll(golden, 0o755))
		must(t, os.Mkdir("/golden", 0o755))
		defer os.RemoveAll("/golden")
		m := newMachine(t, "file://"+filepath.Join(golden, "store"))
		goldenTree(t)
		m.init(append(options, "/golden")...)
		m.keepGolden(golden, "first")
		write(t, "/golden/text", "rewritten\n")
		must(t, os.Remove("/golden/folder/hard"))
		must(t, os.Rename("/golden/folder", "/golden/renamed"))
		must(t, os.Chtimes("/golden/text", time.Time{}, time.Unix(1_500_000_000, 5)))
		m.keepGolden(golden, "second", "--tag", "renamed", "--tag", "größer, dumps:[]")
		m.goldenLater(golden)
		kit, err := os.ReadFile(m.kit())
		must(t, err)
		text := strings.ReplaceAll(string(kit), m.store, "file:///srv/backup")
		must(t, os.WriteFile(filepath.Join(golden, "kit.txt"), []byte(text), 0o644))
		must(t, os.RemoveAll("/golden"))
	}
}

// goldenLater is what else a store may hold: tombstones by the writer and by a
// maintainer, a second signer, a revocation, and a dump that is the difference
// to another.
func (m *machine) goldenLater(golden string) {
	m.t.Helper()
	for i := range 240 {
		write(m.t, fmt.Sprintf("/golden/many/%03d", i), fmt.Sprint(i))
	}
	gone := m.backup()
	write(m.t, "/golden/text", "rewritten again\n")
	m.keepGolden(golden, "third")
	m.run("snapshot", "purge", "--yes", gone)
	m.run("key", "rotate", "--kit", m.kit())
	key := filepath.Join(m.dir, "maintainer.key")
	m.run("key", "generate", key)
	m.run("key", "certify", "tester", "--maintainer", "--key", key+".pub", "--kit", m.kit())
	write(m.t, "/golden/text", "for a moment\n")
	gone = m.backup()
	must(m.t, os.Remove("/golden/many/007"))
	m.keepGolden(golden, "fourth")
	m.run("snapshot", "purge", "--yes", "--key", key, gone)
	m.run("key", "revoke", "tester", "--signer", "1", "--through", "4", "--kit", m.kit())
}

func (m *machine) keepGolden(golden, name string, options ...string) {
	m.t.Helper()
	id := m.backup(options...)
	text := id + "\n" + describe(scan(m.t, "/golden", Look{Holes: true, Root: true}))
	must(m.t, os.WriteFile(filepath.Join(golden, name+".txt"), []byte(text), 0o644))
}

// goldenTree is small and has a bit of everything.
func goldenTree(t *testing.T) {
	t.Helper()
	write(t, "/golden/text", strings.Repeat("what was stored stays readable\n", 2000))
	random(t, "/golden/random", 20_000)
	write(t, "/golden/empty", "")
	write(t, "/golden/folder/odd \n\xff name", "bytes")
	write(t, "/golden/folder/soft", "soft")
	must(t, os.Link("/golden/folder/soft", "/golden/folder/hard"))
	must(t, os.Symlink("../text\xfe", "/golden/folder/link"))
	must(t, unix.Mkfifo("/golden/folder/fifo", 0o620))
	must(t, unix.Mknod("/golden/folder/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Lchown("/golden/text", 1234, 5678))
	must(t, unix.Chmod("/golden/random", 0o4711))
	must(t, unix.Setxattr("/golden/text", "user.note", []byte("attribute \x00\xff"), 0))
	tool(t, "setfacl", "-m", "u:1234:rw", "/golden/empty")
	sparse(t, "/golden/sparse", 1<<20, 512<<10)
	for p, ns := range map[string]int64{"/golden/text": 123_456_789, "/golden/folder/link": 0, "/golden/folder": 999_999_999, "/golden": 1} {
		must(t, exec.Command("touch", "-h", "-d", fmt.Sprintf("@1400000000.%09d", ns), p).Run())
	}
}
