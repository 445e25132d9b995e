package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stores are the kinds of store that a story is told on.
func stores(t *testing.T, story func(t *testing.T, url string, env ...string)) {
	t.Run("local folder", func(t *testing.T) {
		story(t, "file://"+filepath.Join(t.TempDir(), "store"))
	})
	t.Run("s3", func(t *testing.T) {
		url, env := gateway(t)
		story(t, url, env...)
	})
}

// copies are the ways in which people restore.
var copies = map[string]func(t *testing.T, from, to string){
	"cp -a": func(t *testing.T, from, to string) {
		tool(t, "cp", "-a", "--sparse=auto", from+"/.", to)
	},
	"rsync -aHAXS": func(t *testing.T, from, to string) {
		tool(t, "rsync", "-aHAXS", "--specials", "--devices", from+"/", to+"/")
	},
	"tar": func(t *testing.T, from, to string) {
		tool(t, "sh", "-c", `tar --xattrs --xattrs-include='*' --acls --sparse --format=posix -C "$1" -cf - . |
			tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf - -C "$2"`, "sh", from, to)
	},
}

// A tree with one of everything comes back the same through the mount, seen
// directly and through each tool, on every kind of store.
func TestEverythingComesBack(t *testing.T) {
	stores(t, func(t *testing.T, url string, env ...string) {
		m := newMachine(t, url, env...)
		src := filepath.Join(m.dir, "source")
		everyCase(t, src)
		m.init(src)
		id := m.backup()
		want := scan(t, src, Look{Holes: true, Root: true})

		mnt := filepath.Join(m.mount(id), src)
		same(t, "the mount", want, scan(t, mnt, Look{Holes: true, Root: true}))
		for name, copy := range copies {
			t.Run(name, func(t *testing.T) {
				to := t.TempDir()
				copy(t, mnt, to)
				want := want
				if name == "tar" {
					want = asTar(want)
				}
				same(t, "the copy", want, scan(t, to, Look{Holes: true, Root: true}))
			})
		}
	})
}

// asTar is what of a tree tar keeps: no sockets, and every name of a FIFO for
// itself.
func asTar(t Tree) Tree {
	t = without(t, "s")
	for p, e := range t {
		if e.Type == "p" {
			e.Links = ""
			t[p] = e
		}
	}
	return t
}

// without leaves one type of entries out.
func without(t Tree, kind string) Tree {
	rest := Tree{}
	for p, e := range t {
		if e.Type != kind {
			rest[p] = e
		}
	}
	return rest
}

// Go's own source tree, as large as many a home folder.
func TestGoSourceComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("copies some 13,000 files six times")
	}
	comesBack(t, filepath.Join(strings.TrimSpace(tool(t, "go", "env", "GOROOT")), "src"))
}

// A system's own files: links, odd modes, many small ones.
func TestSystemFilesComeBack(t *testing.T) {
	if testing.Short() {
		t.Skip("copies what /usr/share/doc has six times")
	}
	comesBack(t, "/usr/share/doc")
}

// comesBack backs up a folder that nobody changes, and compares it with copies
// of every kind, from every kind of store.
func comesBack(t *testing.T, src string) {
	holes, want := scan(t, src, Look{Holes: true, Root: true}), scan(t, src, Look{Root: true})
	stores(t, func(t *testing.T, url string, env ...string) {
		m := newMachine(t, url, env...)
		m.init(src)
		mnt := filepath.Join(m.mount(m.backup()), src)
		same(t, "the mount", holes, scan(t, mnt, Look{Holes: true, Root: true}))
		for name, copy := range copies {
			t.Run(name, func(t *testing.T) {
				to := t.TempDir()
				copy(t, mnt, to)
				same(t, "the copy", want, scan(t, to, Look{Root: true})) // the tools make holes of zeros
			})
		}
	})
}

// All of /usr/share, with the tool that most people take.
func TestALargeFolderOfTheSystemComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("copies /usr/share")
	}
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	m.init("/usr/share")
	mnt := filepath.Join(m.mount(m.backup()), "usr/share")
	to := t.TempDir()
	copies["cp -a"](t, mnt, to)
	same(t, "the copy", scan(t, "/usr/share", Look{Root: true}), scan(t, to, Look{Root: true}))
}

// With nothing but the store and the recovery kit, another machine sees all.
func TestAnotherMachineNeedsOnlyStoreAndKit(t *testing.T) {
	stores(t, func(t *testing.T, url string, env ...string) {
		first := newMachine(t, url, env...)
		src := filepath.Join(first.dir, "source")
		everyCase(t, src)
		first.init(src)
		id := first.backup()
		want := scan(t, src, Look{Holes: true, Root: true})
		kit, err := os.ReadFile(first.kit())
		must(t, err)
		must(t, os.RemoveAll(filepath.Join(first.dir, "state")))
		must(t, os.Remove(filepath.Join(first.dir, "vaultik.toml")))

		second := newMachine(t, url, env...)
		must(t, os.WriteFile(second.kit(), kit, 0o600))
		same(t, "what the other machine sees", want,
			scan(t, filepath.Join(second.mount(id), src), Look{Holes: true, Root: true}))
		store := second.mount("")
		same(t, "the same in a mount of the store", want,
			scan(t, filepath.Join(store, "snapshots", id, src), Look{Holes: true, Root: true}))
	})
}

// The mount as an ordinary user, through fusermount3.
func TestAUserMountsWithoutRoot(t *testing.T) {
	m := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	m.becomeNobody()
	src := filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "hello"), "world")
	m.own(src)
	m.init(src)
	id, mnt := m.backup(), filepath.Join(m.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	m.own(mnt)
	m.run("mount", "--background", "--store", m.store, "--identity", m.kit(), id, mnt)
	as := append(slices.Clone(m.as), "sh", "-c", `cat "$1$2/hello"; fusermount3 -u "$1"`, "sh", mnt, src)
	if out := tool(t, as[0], as[1:]...); out != "world" {
		t.Errorf("through the mount: %q", out)
	}
	if mounted(mnt) {
		t.Error("still mounted after fusermount3 -u")
	}
}
