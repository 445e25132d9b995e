package build

import (
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-sqlite3"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// emptyPacker is a packer of a table of its own.
func emptyPacker(t testing.TB, p layout.Packing) *packer {
	t.Helper()
	c, err := (&sqlite3.SQLiteDriver{}).Open(sqlite.Location(filepath.Join(t.TempDir(), "db"), "mode=rwc&_synchronous=OFF&_journal_mode=MEMORY"))
	if err != nil {
		t.Fatal(err)
	}
	conn := &sqlite.Conn{SQLiteConn: c.(*sqlite3.SQLiteConn)}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Exec("CREATE TABLE "+p.Table+" (first BLOB PRIMARY KEY, data BLOB NOT NULL)", nil); err != nil {
		t.Fatal(err)
	}
	k, err := newPacker(conn, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var unexported = cmp.AllowUnexported(layout.Row{}, layout.Key{})

// Rows may come in any order and go again: what is there in the end is there
// once, in order and to be found.
func TestPackedTablesHoldWhatWasPut(t *testing.T) {
	pairs, single := layout.Packing{Table: "main.pairs", Pairs: true, Numbers: 2, Hashed: false}, layout.Packing{Table: "main.single", Pairs: false, Numbers: 1, Hashed: true}
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom([]layout.Packing{pairs, single}).Draw(rt, "table")
		k := emptyPacker(t, p)
		want := map[layout.Key]layout.Row{}
		most := rapid.SampledFrom([]int64{50, 5000, math.MaxInt64}).Draw(rt, "greatest key")
		var next layout.Key
		row := func(key layout.Key) layout.Row {
			r := layout.Row{Key: key}
			for i := range p.Numbers {
				r.N[i] = rapid.SampledFrom([]int64{0, 1, 127, 128, 1 << 40, math.MaxInt64}).Draw(rt, "number")
			}
			if p.Hashed {
				r.Hash[0], r.Hash[31] = byte(key.First), 7
			}
			return r
		}
		put := func(r layout.Row) {
			_, there := want[r.Key]
			added, err := k.put(&r)
			if err != nil || added == there {
				rt.Fatalf("%v: added %v, %v", r.Key, added, err)
			}
			if !there {
				want[r.Key] = r
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"many behind one another": func(rt *rapid.T) {
				for range rapid.IntRange(1, 600).Draw(rt, "rows") {
					if next.First >= most {
						return
					}
					next.First++
					put(layout.Row{Key: next, N: [5]int64{next.First % 1000}})
					for p.Pairs && rapid.IntRange(0, 9).Draw(rt, "more of it") == 0 {
						next.Second++
						put(layout.Row{Key: next})
					}
					next.Second = 0
				}
			},
			"one anywhere": func(rt *rapid.T) {
				key := layout.Key{First: rapid.Int64Range(1, most).Draw(rt, "first")}
				if p.Pairs {
					key.Second = rapid.Int64Range(0, 3).Draw(rt, "second")
				}
				next.First = max(next.First, key.First)
				put(row(key))
			},
			"many that begin alike": func(rt *rapid.T) {
				if !p.Pairs {
					rt.Skip()
				}
				first := rapid.Int64Range(1, most).Draw(rt, "first")
				next.First = max(next.First, first)
				for second := range rapid.Int64Range(1, 900).Draw(rt, "rows") {
					key := layout.Key{First: first, Second: second}
					if _, there := want[key]; !there {
						put(layout.Row{Key: key})
					}
				}
			},
			"take": func(rt *rapid.T) {
				first := rapid.Int64Range(1, most).Draw(rt, "first")
				if keys := slices.SortedFunc(maps.Keys(want), layout.Key.Compare); len(keys) > 0 && rapid.Bool().Draw(rt, "one that is there") {
					first = keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "key")].First
				}
				there, last := int64(0), layout.Row{}
				for key, r := range want {
					if key.First == first {
						there++
						if last.Compare(key) <= 0 {
							last = r
						}
					}
				}
				got, n, err := k.take(first)
				if diff := cmp.Diff(last, got, unexported); err != nil || n != there || diff != "" {
					rt.Fatalf("took %d of %d of %d: %s %v", n, there, first, diff, err)
				}
				maps.DeleteFunc(want, func(key layout.Key, _ layout.Row) bool { return key.First == first })
			},
			"": func(rt *rapid.T) {},
		})
		if err := k.finish(); err != nil {
			rt.Fatal(err)
		}
		keys, reader, cursor, again := slices.SortedFunc(maps.Keys(want), layout.Key.Compare), k.reader(), k.cursor(t.Context()), k.cursor(t.Context())
		var before int64
		for _, key := range keys {
			r, err := cursor.next()
			if err != nil || r == nil {
				rt.Fatalf("%v: %v, %v", key, r, err)
			}
			if diff := cmp.Diff(want[key], *r, unexported); diff != "" {
				rt.Fatal(diff)
			}
			found, ok, err := reader.Get(key)
			if diff := cmp.Diff(want[key], found, unexported); diff != "" || !ok || err != nil {
				rt.Fatalf("get: %v, %s %v", ok, diff, err)
			}
			if key.First != before {
				if key.First > before+1 {
					if r, err := again.reach(key.First - 1); r != nil || err != nil {
						rt.Fatalf("%d is there: %v, %v", key.First-1, r, err)
					}
				}
				if r, err := again.reach(key.First); err != nil || r == nil || r.Key != key {
					rt.Fatalf("%v is not reached: %v, %v", key, r, err)
				}
			}
			before = key.First
		}
		if r, err := cursor.next(); r != nil || err != nil {
			rt.Fatalf("behind the last: %v, %v", r, err)
		}
	})
}

func TestPackedPagesAreBounded(t *testing.T) {
	k := emptyPacker(t, layout.Packing{Table: "main.single", Pairs: false, Numbers: 1, Hashed: true})
	for id := range int64(3000) { // the even ones in order, then those between
		if _, err := k.put(&layout.Row{Key: layout.Key{First: 1 + (2*id)%3000 + 2*id/3000}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.finish(); err != nil {
		t.Fatal(err)
	}
	for key := (layout.Key{}); ; {
		data, err := only(k.after, key.Bytes())
		if err != nil || data == nil {
			break
		}
		rows, err := k.Decode(data, nil)
		if err != nil || len(data) > layout.PackedSize {
			t.Fatalf("a page of %d bytes, %v", len(data), err)
		}
		key = rows[0].Key
	}
}
