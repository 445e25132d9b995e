package metastore

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func drawAnyFile(t *rapid.T) File {
	u32 := rapid.Uint32()
	time := func() Time {
		return Time{rapid.Int64().Draw(t, "s"), rapid.Int32Range(0, maxNanos).Draw(t, "ns")}
	}
	text := func(limit int) string { return string(rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, "text")) }
	return File{
		Stat: Stat{
			Type: rapid.SampledFrom([]Type{Regular, Directory, Symlink, FIFO, Socket, CharDev, BlockDev}).Draw(t, "type"),
			Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"), UID: u32.Draw(t, "uid"), GID: u32.Draw(t, "gid"),
			Size: rapid.Int64Min(0).Draw(t, "size"), MTime: time(), CTime: time(), BTime: time(),
			Inode: rapid.Uint64().Draw(t, "inode"), Nlink: u32.Draw(t, "nlink"),
			RdevMajor: u32.Draw(t, "major"), RdevMinor: u32.Draw(t, "minor"),
		},
		Role: rapid.SampledFrom(roles[:]).Draw(t, "role"), State: rapid.SampledFrom(states[:]).Draw(t, "state"),
		Errno: rapid.IntRange(0, math.MaxInt32).Draw(t, "errno"), User: text(20), Group: text(20),
		Volume: rapid.Int64Min(0).Draw(t, "volume"), Target: text(300), Flags: u32.Draw(t, "flags"),
		Content: rapid.Int64Min(0).Draw(t, "content"),
	}
}

func TestAnyEntriesSurviveAPage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const first, dir = 1000, 7
		var b pageBuilder
		var want []Node
		for i := range rapid.IntRange(1, 30).Draw(t, "entries") {
			n := Node{
				Ino: first + uint64(i), Parent: dir, Cookie: first + uint64(i), File: drawAnyFile(t),
				Name:      string(rapid.SliceOfN(rapid.Byte(), 0, 255).Draw(t, "name")),
				HasXattrs: rapid.Bool().Draw(t, "xattrs"), Blocks: rapid.Int64Min(0).Draw(t, "blocks"), row: rapid.Int64Min(0).Draw(t, "row"),
			}
			e := entry{name: []byte(n.Name), row: n.row, blocks: n.Blocks, file: appendFile(nil, &n.File)}
			if n.HasXattrs {
				e.flags |= flagXattrs
			}
			if rapid.Bool().Draw(t, "link") {
				n.Ino = rapid.Uint64().Draw(t, "ino")
				e.flags, e.ino = e.flags|flagLink, n.Ino
			}
			if !b.add(&e) {
				t.Fatal("a small entry does not fit")
			}
			want = append(want, n)
		}
		p, err := openPage(first, dir, b.appendTo(nil))
		if err != nil || p.count != len(want) || b.count() != 0 {
			t.Fatalf("%d entries, %v", p.count, err)
		}
		var got Node // the same one again and again, as neighbours share strings
		for i := range want {
			if err := p.node(i, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want[i], got, cmp.AllowUnexported(Node{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestPagesAreFullButNotFuller(t *testing.T) {
	var b pageBuilder
	e := entry{name: bytes.Repeat([]byte{'n'}, 255), file: appendFile(nil, &File{Stat: Stat{Type: Regular}, Role: RoleInside, State: StateComplete})}
	n := 0
	for b.add(&e) {
		n++
	}
	page := b.appendTo(nil)
	if len(page) > pageSize || len(page) < pageSize-400 || n < 100 {
		t.Errorf("%d entries make %d bytes", n, len(page))
	}
	big := entry{name: []byte("n"), file: bytes.Repeat([]byte{1}, 2*pageSize)}
	if !b.add(&big) {
		t.Error("an entry that no page could hold has no place of its own")
	}
	if b.add(&e) {
		t.Error("something fits beside it")
	}
}

// FuzzPage feeds pages that a broken disk might return.
func FuzzPage(f *testing.F) {
	var b pageBuilder
	for _, name := range []string{"a", "b", "c"} {
		b.add(&entry{name: []byte(name), flags: flagLink, ino: 5, file: appendFile(nil, &File{Stat: Stat{Type: Regular}, Role: RoleInside, State: StateComplete})})
	}
	f.Add(b.appendTo(nil), "b")
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0}, "")
	f.Add([]byte{255, 255, 255, 255}, "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		p, err := openPage(1, 1, data)
		if err != nil {
			return
		}
		var n Node
		for i := range p.count {
			_ = p.node(i, &n)
		}
		if found, err := p.lookup(name, &n); found && err == nil && n.Name != name {
			t.Errorf("%q is called %q", name, n.Name)
		}
		p.reaches(name)
	})
}

func TestTablesAreThoseOfTheSchema(t *testing.T) {
	statement := regexp.MustCompile(`^CREATE TABLE (\w+) \((.*)\);$`)
	lines := strings.Split(strings.TrimSuffix(dumpSchema, "\n"), "\n")
	if len(lines) != len(tables) {
		t.Fatalf("%d tables", len(lines))
	}
	for i, line := range lines {
		m := statement.FindStringSubmatch(line)
		if m == nil || m[1] != tables[i].name {
			t.Fatalf("table %d is %q", i, line)
		}
		var want []column
		for _, c := range strings.Split(m[2], ", ") {
			words := strings.SplitN(c, " ", 3)
			k := map[string]Kind{"INTEGER": Integer, "TEXT": Text, "BLOB": Bytes}[words[1]]
			want = append(want, column{strings.Trim(words[0], `"`), k, len(words) == 2})
		}
		if diff := cmp.Diff(want, tables[i].columns, cmp.AllowUnexported(column{})); diff != "" {
			t.Errorf("%s: %s", m[1], diff)
		}
	}
}
