package metastore

import (
	"bytes"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-sqlite3"
	"pgregory.net/rapid"
)

// emptyPacker is a packer of a table of its own.
func emptyPacker(t testing.TB, p packing) *packer {
	t.Helper()
	c, err := (&sqlite3.SQLiteDriver{}).Open(sqlite.Location(filepath.Join(t.TempDir(), "db"), "mode=rwc&_synchronous=OFF&_journal_mode=MEMORY"))
	if err != nil {
		t.Fatal(err)
	}
	conn := &sqlite.Conn{SQLiteConn: c.(*sqlite3.SQLiteConn)}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Exec("CREATE TABLE "+p.table+" (first BLOB PRIMARY KEY, data BLOB NOT NULL)", nil); err != nil {
		t.Fatal(err)
	}
	k, err := newPacker(conn, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var unexported = cmp.AllowUnexported(packedRow{}, packedKey{})

// Rows may come in any order and go again: what is there in the end is there
// once, in order and to be found.
func TestPackedTablesHoldWhatWasPut(t *testing.T) {
	pairs, single := packing{"main.pairs", true, 2, false}, packing{"main.single", false, 1, true}
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom([]packing{pairs, single}).Draw(rt, "table")
		k := emptyPacker(t, p)
		want := map[packedKey]packedRow{}
		most := rapid.SampledFrom([]int64{50, 5000, math.MaxInt64}).Draw(rt, "greatest key")
		var next packedKey
		row := func(key packedKey) packedRow {
			r := packedRow{packedKey: key}
			for i := range p.numbers {
				r.n[i] = rapid.SampledFrom([]int64{0, 1, 127, 128, 1 << 40, math.MaxInt64}).Draw(rt, "number")
			}
			if p.hashed {
				r.hash[0], r.hash[31] = byte(key.first), 7
			}
			return r
		}
		put := func(r packedRow) {
			_, there := want[r.packedKey]
			added, err := k.put(&r)
			if err != nil || added == there {
				rt.Fatalf("%v: added %v, %v", r.packedKey, added, err)
			}
			if !there {
				want[r.packedKey] = r
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"many behind one another": func(rt *rapid.T) {
				for range rapid.IntRange(1, 600).Draw(rt, "rows") {
					if next.first >= most {
						return
					}
					next.first++
					put(packedRow{packedKey: next, n: [5]int64{next.first % 1000}})
					for p.pairs && rapid.IntRange(0, 9).Draw(rt, "more of it") == 0 {
						next.second++
						put(packedRow{packedKey: next})
					}
					next.second = 0
				}
			},
			"one anywhere": func(rt *rapid.T) {
				key := packedKey{first: rapid.Int64Range(1, most).Draw(rt, "first")}
				if p.pairs {
					key.second = rapid.Int64Range(0, 3).Draw(rt, "second")
				}
				next.first = max(next.first, key.first)
				put(row(key))
			},
			"many that begin alike": func(rt *rapid.T) {
				if !p.pairs {
					rt.Skip()
				}
				first := rapid.Int64Range(1, most).Draw(rt, "first")
				next.first = max(next.first, first)
				for second := range rapid.Int64Range(1, 900).Draw(rt, "rows") {
					key := packedKey{first, second}
					if _, there := want[key]; !there {
						put(packedRow{packedKey: key})
					}
				}
			},
			"take": func(rt *rapid.T) {
				first := rapid.Int64Range(1, most).Draw(rt, "first")
				if keys := slices.SortedFunc(maps.Keys(want), packedKey.compare); len(keys) > 0 && rapid.Bool().Draw(rt, "one that is there") {
					first = keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "key")].first
				}
				there, last := int64(0), packedRow{}
				for key, r := range want {
					if key.first == first {
						there++
						if last.compare(key) <= 0 {
							last = r
						}
					}
				}
				got, n, err := k.take(first)
				if diff := cmp.Diff(last, got, unexported); err != nil || n != there || diff != "" {
					rt.Fatalf("took %d of %d of %d: %s %v", n, there, first, diff, err)
				}
				maps.DeleteFunc(want, func(key packedKey, _ packedRow) bool { return key.first == first })
			},
			"": func(rt *rapid.T) {},
		})
		if err := k.finish(); err != nil {
			rt.Fatal(err)
		}
		keys, reader, cursor, again := slices.SortedFunc(maps.Keys(want), packedKey.compare), k.reader(), k.cursor(t.Context()), k.cursor(t.Context())
		var before int64
		for _, key := range keys {
			r, err := cursor.next()
			if err != nil || r == nil {
				rt.Fatalf("%v: %v, %v", key, r, err)
			}
			if diff := cmp.Diff(want[key], *r, unexported); diff != "" {
				rt.Fatal(diff)
			}
			found, ok, err := reader.get(key)
			if diff := cmp.Diff(want[key], found, unexported); diff != "" || !ok || err != nil {
				rt.Fatalf("get: %v, %s %v", ok, diff, err)
			}
			if key.first != before {
				if key.first > before+1 {
					if r, err := again.reach(key.first - 1); r != nil || err != nil {
						rt.Fatalf("%d is there: %v, %v", key.first-1, r, err)
					}
				}
				if r, err := again.reach(key.first); err != nil || r == nil || r.packedKey != key {
					rt.Fatalf("%v is not reached: %v, %v", key, r, err)
				}
			}
			before = key.first
		}
		if r, err := cursor.next(); r != nil || err != nil {
			rt.Fatalf("behind the last: %v, %v", r, err)
		}
	})
}

func TestPackedPagesAreBounded(t *testing.T) {
	k := emptyPacker(t, packing{"main.single", false, 1, true})
	for id := range int64(3000) { // the even ones in order, then those between
		if _, err := k.put(&packedRow{packedKey: packedKey{first: 1 + (2*id)%3000 + 2*id/3000}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.finish(); err != nil {
		t.Fatal(err)
	}
	for key := (packedKey{}); ; {
		data, err := only(k.after, key.bytes())
		if err != nil || data == nil {
			break
		}
		rows, err := k.decode(data, nil)
		if err != nil || len(data) > packedSize {
			t.Fatalf("a page of %d bytes, %v", len(data), err)
		}
		key = rows[0].packedKey
	}
}

func FuzzPackedPage(f *testing.F) {
	f.Add([]byte{}, false, uint8(0), false)
	f.Add([]byte{1, 0, 5, 7, 0, 9, 1, 1}, true, uint8(2), false)
	f.Add([]byte(strings.Repeat("\x01", 90)), false, uint8(1), true)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01"), false, uint8(0), false)
	f.Add([]byte("\x01\xff"), false, uint8(3), true)
	f.Fuzz(func(t *testing.T, data []byte, pairs bool, numbers uint8, hashed bool) {
		p := packing{"", pairs, int(numbers % 6), hashed}
		rows, err := p.decode(data, nil)
		if err != nil {
			return
		}
		var out []byte
		var before packedKey
		for i := range rows {
			if i > 0 && rows[i].compare(before) <= 0 {
				t.Fatalf("%v behind %v", rows[i].packedKey, before)
			}
			out = p.append(out, before, &rows[i])
			before = rows[i].packedKey
		}
		again, err := p.decode(out, nil)
		if diff := cmp.Diff(rows, again, unexported); diff != "" || err != nil || len(out) > len(data) || len(out) == len(data) && !bytes.Equal(out, data) {
			t.Fatalf("%s %v", diff, err)
		}
	})
}
