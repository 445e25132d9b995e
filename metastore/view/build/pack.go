package build

import (
	"context"
	"database/sql/driver"
	"math"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// The packed tables of a view's making.
var (
	pathIDs  = layout.Packing{Table: "stage.path_ids", Pairs: false, Numbers: 0, Hashed: false} // id
	fileIDs  = layout.Packing{Table: "stage.file_ids", Pairs: false, Numbers: 1, Hashed: false} // id: path
	contents = layout.Packing{Table: "stage.contents", Pairs: false, Numbers: 0, Hashed: false} // id
	sizes    = layout.Packing{Table: "stage.sizes", Pairs: false, Numbers: 2, Hashed: false}    // content: bytes, blocks of 512 bytes
)

// packer writes a packed table. A row behind all others, which is how dumps
// have them, is appended to a page in memory. For any other one the page of
// its place is fetched, and kept as long as rows for it come.
type packer struct {
	layout.Packing
	insert, remove, seek, after *sqlite.Statement

	last layout.Key // no row is behind this
	tail tail

	edited edit
}

// tail is the page that rows are appended to; empty if there is none.
type tail struct {
	first layout.Key
	data  []byte
}

// edit is a page that was fetched to be changed.
type edit struct {
	open, dirty bool
	stored      layout.Key // under which the table has it
	next        layout.Key // of the page behind it, or the greatest there is
	rows        []layout.Row
}

var greatestKey = layout.Key{First: math.MaxInt64, Second: math.MaxInt64}

func newPacker(conn *sqlite.Conn, p layout.Packing) (*packer, error) {
	k := &packer{Packing: p}
	for _, s := range []struct {
		to    **sqlite.Statement
		query string
	}{
		{&k.insert, "INSERT INTO " + p.Table + " VALUES (?, ?)"},
		{&k.remove, "DELETE FROM " + p.Table + " WHERE first = ?"},
		{&k.seek, "SELECT data FROM " + p.Table + " WHERE first <= ? ORDER BY first DESC LIMIT 1"},
		{&k.after, "SELECT data FROM " + p.Table + " WHERE first > ? ORDER BY first LIMIT 1"},
	} {
		var err error
		if *s.to, err = conn.Prepare(s.query); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// put adds a row. It reports whether there was none with its key.
func (k *packer) put(r *layout.Row) (added bool, err error) {
	if k.last.Compare(r.Key) < 0 {
		return true, k.append(r)
	}
	if err := k.edit(r.Key); err != nil {
		return false, err
	}
	e := &k.edited
	i := layout.Search(e.rows, r.Key)
	if i < len(e.rows) && e.rows[i].Key == r.Key {
		return false, nil
	}
	e.rows, e.dirty = slices.Insert(e.rows, i, *r), true
	return true, nil
}

// append adds a row behind all others.
func (k *packer) append(r *layout.Row) error {
	if len(k.tail.data) > 0 {
		before := len(k.tail.data)
		k.tail.data = k.Packing.Append(k.tail.data, k.last, r)
		if len(k.tail.data) <= layout.PackedSize {
			k.last = r.Key
			return nil
		}
		k.tail.data = k.tail.data[:before]
		if err := k.flush(); err != nil {
			return err
		}
	}
	k.tail.first, k.last = r.Key, r.Key
	k.tail.data = k.Packing.Append(k.tail.data, layout.Key{}, r)
	return nil
}

// flush writes the page that rows are appended to.
func (k *packer) flush() error {
	if len(k.tail.data) == 0 {
		return nil
	}
	if e := &k.edited; k.tail.first.Compare(e.next) < 0 {
		e.next = k.tail.first
	}
	err := k.insert.Do(k.tail.first.Bytes(), k.tail.data)
	k.tail.data = k.tail.data[:0]
	return err
}

// edit fetches the page in which key has its place.
func (k *packer) edit(key layout.Key) error {
	if err := k.flush(); err != nil {
		return err
	}
	e := &k.edited
	if e.open && e.stored.Compare(key) <= 0 && key.Compare(e.next) < 0 {
		return nil
	}
	if err := k.store(); err != nil {
		return err
	}
	data, err := only(k.seek, key.Bytes())
	if err == nil && data == nil {
		data, err = only(k.after, key.Bytes()) // it comes before all others
	}
	if err != nil {
		return err
	}
	*e = edit{open: true, stored: key, next: greatestKey}
	if data == nil {
		return nil
	}
	if e.rows, err = k.Decode(data, nil); err != nil {
		return err
	}
	e.stored = e.rows[0].Key
	if data, err = only(k.after, e.stored.Bytes()); err != nil || data == nil {
		return err
	}
	behind, err := k.Decode(data, nil)
	if err == nil {
		e.next = behind[0].Key
	}
	return err
}

// store writes the page that was changed, as several if it grew too big.
func (k *packer) store() error {
	e := &k.edited
	e.open = false
	if !e.dirty {
		return nil
	}
	e.dirty = false
	if err := k.remove.Do(e.stored.Bytes()); err != nil {
		return err
	}
	var page []byte
	for start, i := 0, 0; i <= len(e.rows); i++ {
		whole := len(page)
		if i < len(e.rows) {
			before := layout.Key{}
			if i > start {
				before = e.rows[i-1].Key
			}
			if page = k.Packing.Append(page, before, &e.rows[i]); i == start || len(page) <= layout.PackedSize {
				continue
			}
		}
		if whole == 0 {
			break // no rows are left
		}
		if err := k.insert.Do(e.rows[start].Bytes(), page[:whole]); err != nil {
			return err
		}
		if page, start = page[:0], i; i < len(e.rows) {
			page = k.Packing.Append(page, layout.Key{}, &e.rows[i])
		}
	}
	return nil
}

// take removes the rows whose keys begin with first, and returns how many they
// were and the last one.
func (k *packer) take(first int64) (last layout.Row, n int64, err error) {
	for key := (layout.Key{First: first, Second: 0}); ; {
		if err := k.edit(key); err != nil {
			return last, n, err
		}
		e := &k.edited
		from := layout.Search(e.rows, layout.Key{First: first, Second: 0})
		to := layout.Search(e.rows, layout.Key{First: first, Second: math.MaxInt64})
		if from < to {
			last, n = e.rows[to-1], n+int64(to-from)
			e.rows, e.dirty = slices.Delete(e.rows, from, to), true
		}
		if e.next.First != first || e.next == greatestKey {
			return last, n, nil
		}
		key = e.next
	}
}

// finish writes what is still in memory.
func (k *packer) finish() error {
	if err := k.store(); err != nil {
		return err
	}
	return k.flush()
}

// reader looks up what was written.
func (k *packer) reader() *layout.Reader {
	return &layout.Reader{Packing: &k.Packing, Load: func(key []byte) ([]byte, error) { return only(k.seek, key) }}
}

// cursor goes through what was written.
func (k *packer) cursor(ctx context.Context) *cursor {
	return &cursor{ctx: ctx, packer: k, at: layout.Key{First: -1, Second: 0}}
}

// cursor goes through the rows of a packed table.
type cursor struct {
	ctx    context.Context
	packer *packer
	at     layout.Key // first of the page that rows were in; -1 before the first
	page   []layout.Row
	rows   []layout.Row // of page, still to come
}

// next returns the next row; nil at the end. It is valid until the next call.
func (c *cursor) next() (*layout.Row, error) {
	if len(c.rows) == 0 {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		after := []byte{}
		if c.at.First >= 0 {
			after = c.at.Bytes()
		}
		data, err := only(c.packer.after, after)
		if err != nil || data == nil {
			return nil, err
		}
		if c.page, err = c.packer.Decode(data, c.page[:0]); err != nil {
			return nil, err
		}
		c.rows = c.page
		c.at = c.rows[0].Key
	}
	r := &c.rows[0]
	c.rows = c.rows[1:]
	return r, nil
}

// reach moves on to the row with a key, past those before it; nil if there is
// none. Keys must come in ascending order, none twice.
func (c *cursor) reach(first int64) (*layout.Row, error) {
	for {
		r, err := c.next()
		switch {
		case err != nil || r == nil:
			return nil, err
		case r.First == first:
			return r, nil
		case r.First > first:
			c.rows = c.page[len(c.page)-len(c.rows)-1:] // it comes again
			return nil, nil
		}
	}
}

// only returns the one value of the one row of a query, nil if there is none.
func only(s *sqlite.Statement, args ...any) (data []byte, err error) {
	err = s.Each(func(row []driver.Value) error {
		data, _ = row[0].([]byte)
		return nil
	}, args...)
	return data, err
}
