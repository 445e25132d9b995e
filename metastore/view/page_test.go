package view

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

func drawAnyFile(t *rapid.T) metastore.File {
	u32 := rapid.Uint32()
	time := func() metastore.Time {
		return metastore.Time{Sec: rapid.Int64().Draw(t, "s"), Nsec: rapid.Int32Range(0, 999_999_999).Draw(t, "ns")}
	}
	text := func(limit int) string { return string(rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, "text")) }
	return metastore.File{
		Stat: metastore.Stat{
			Type: rapid.SampledFrom([]metastore.Type{metastore.Regular, metastore.Directory, metastore.Symlink, metastore.FIFO, metastore.Socket, metastore.CharDev, metastore.BlockDev}).Draw(t, "type"),
			Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"), UID: u32.Draw(t, "uid"), GID: u32.Draw(t, "gid"),
			Size: rapid.Int64Min(0).Draw(t, "size"), MTime: time(), CTime: time(), BTime: time(),
			Inode: rapid.Uint64().Draw(t, "inode"), Nlink: u32.Draw(t, "nlink"),
			RdevMajor: u32.Draw(t, "major"), RdevMinor: u32.Draw(t, "minor"),
		},
		Role: rapid.SampledFrom([]metastore.Role{metastore.RoleRoot, metastore.RoleInside, metastore.RoleParent}).Draw(t, "role"), State: rapid.SampledFrom([]metastore.State{metastore.StateComplete, metastore.StateChanged, metastore.StateUnreadable, metastore.StateOtherFS, metastore.StateCacheDir, metastore.StateExcluded}).Draw(t, "state"),
		Errno: rapid.IntRange(0, math.MaxInt32).Draw(t, "errno"), User: text(20), Group: text(20),
		Volume: rapid.Int64Min(0).Draw(t, "volume"), Target: text(300), Flags: u32.Draw(t, "flags"),
		Content: rapid.Int64Min(0).Draw(t, "content"),
	}
}

func TestAnyEntriesSurviveAPage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const first, dir = 1000, 7
		var b layout.PageBuilder
		var want []Node
		for i := range rapid.IntRange(1, 30).Draw(t, "entries") {
			n := Node{
				Ino: first + uint64(i), Parent: dir, Cookie: first + uint64(i), File: drawAnyFile(t),
				Name:      string(rapid.SliceOfN(rapid.Byte(), 0, 255).Draw(t, "name")),
				HasXattrs: rapid.Bool().Draw(t, "xattrs"), Blocks: rapid.Int64Min(0).Draw(t, "blocks"), row: rapid.Int64Min(0).Draw(t, "row"),
			}
			e := layout.Entry{Name: []byte(n.Name), Row: n.row, Blocks: n.Blocks, File: layout.AppendFile(nil, &n.File)}
			if n.HasXattrs {
				e.Flags |= layout.FlagXattrs
			}
			if rapid.Bool().Draw(t, "link") {
				n.Ino = rapid.Uint64().Draw(t, "ino")
				e.Flags, e.Ino = e.Flags|layout.FlagLink, n.Ino
			}
			if !b.Add(&e) {
				t.Fatal("a small entry does not fit")
			}
			want = append(want, n)
		}
		p, err := layout.OpenPage(first, dir, b.AppendTo(nil))
		if err != nil || p.Count != len(want) || b.Count() != 0 {
			t.Fatalf("%d entries, %v", p.Count, err)
		}
		var got Node // the same one again and again, as neighbours share strings
		for i := range want {
			if err := nodeOf(&p, i, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want[i], got, cmp.AllowUnexported(Node{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// FuzzPage feeds pages that a broken disk might return.
func FuzzPage(f *testing.F) {
	var b layout.PageBuilder
	for _, name := range []string{"a", "b", "c"} {
		b.Add(&layout.Entry{Name: []byte(name), Flags: layout.FlagLink, Ino: 5, File: layout.AppendFile(nil, &metastore.File{Stat: metastore.Stat{Type: metastore.Regular}, Role: metastore.RoleInside, State: metastore.StateComplete})})
	}
	f.Add(b.AppendTo(nil), "b")
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0}, "")
	f.Add([]byte{255, 255, 255, 255}, "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		p, err := layout.OpenPage(1, 1, data)
		if err != nil {
			return
		}
		var n Node
		for i := range p.Count {
			_ = nodeOf(&p, i, &n)
		}
		if found, err := lookupIn(&p, name, &n); found && err == nil && n.Name != name {
			t.Errorf("%q is called %q", name, n.Name)
		}
		p.Reaches(name)
	})
}
