package metastore

import (
	"context"
	"database/sql/driver"
	"math"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// packer writes a packed table. A row behind all others, which is how dumps
// have them, is appended to a page in memory. For any other one the page of
// its place is fetched, and kept as long as rows for it come.
type packer struct {
	packing
	insert, remove, seek, after *sqlite.Statement

	last packedKey // no row is behind this
	tail packedTail

	edited packedEdit
}

// packedTail is the page that rows are appended to; empty if there is none.
type packedTail struct {
	first packedKey
	data  []byte
}

// packedEdit is a page that was fetched to be changed.
type packedEdit struct {
	open, dirty bool
	stored      packedKey // under which the table has it
	next        packedKey // of the page behind it, or the greatest there is
	rows        []packedRow
}

var greatestKey = packedKey{math.MaxInt64, math.MaxInt64}

func newPacker(conn *sqlite.Conn, p packing) (*packer, error) {
	k := &packer{packing: p}
	for _, s := range []struct {
		to    **sqlite.Statement
		query string
	}{
		{&k.insert, "INSERT INTO " + p.table + " VALUES (?, ?)"},
		{&k.remove, "DELETE FROM " + p.table + " WHERE first = ?"},
		{&k.seek, "SELECT data FROM " + p.table + " WHERE first <= ? ORDER BY first DESC LIMIT 1"},
		{&k.after, "SELECT data FROM " + p.table + " WHERE first > ? ORDER BY first LIMIT 1"},
	} {
		var err error
		if *s.to, err = conn.Prepare(s.query); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// put adds a row. It reports whether there was none with its key.
func (k *packer) put(r *packedRow) (added bool, err error) {
	if k.last.compare(r.packedKey) < 0 {
		return true, k.append(r)
	}
	if err := k.edit(r.packedKey); err != nil {
		return false, err
	}
	e := &k.edited
	i := searchPacked(e.rows, r.packedKey)
	if i < len(e.rows) && e.rows[i].packedKey == r.packedKey {
		return false, nil
	}
	e.rows, e.dirty = slices.Insert(e.rows, i, *r), true
	return true, nil
}

// append adds a row behind all others.
func (k *packer) append(r *packedRow) error {
	if len(k.tail.data) > 0 {
		before := len(k.tail.data)
		k.tail.data = k.packing.append(k.tail.data, k.last, r)
		if len(k.tail.data) <= packedSize {
			k.last = r.packedKey
			return nil
		}
		k.tail.data = k.tail.data[:before]
		if err := k.flush(); err != nil {
			return err
		}
	}
	k.tail.first, k.last = r.packedKey, r.packedKey
	k.tail.data = k.packing.append(k.tail.data, packedKey{}, r)
	return nil
}

// flush writes the page that rows are appended to.
func (k *packer) flush() error {
	if len(k.tail.data) == 0 {
		return nil
	}
	if e := &k.edited; k.tail.first.compare(e.next) < 0 {
		e.next = k.tail.first
	}
	err := k.insert.Do(k.tail.first.bytes(), k.tail.data)
	k.tail.data = k.tail.data[:0]
	return err
}

// edit fetches the page in which key has its place.
func (k *packer) edit(key packedKey) error {
	if err := k.flush(); err != nil {
		return err
	}
	e := &k.edited
	if e.open && e.stored.compare(key) <= 0 && key.compare(e.next) < 0 {
		return nil
	}
	if err := k.store(); err != nil {
		return err
	}
	data, err := only(k.seek, key.bytes())
	if err == nil && data == nil {
		data, err = only(k.after, key.bytes()) // it comes before all others
	}
	if err != nil {
		return err
	}
	*e = packedEdit{open: true, stored: key, next: greatestKey}
	if data == nil {
		return nil
	}
	if e.rows, err = k.decode(data, nil); err != nil {
		return err
	}
	e.stored = e.rows[0].packedKey
	if data, err = only(k.after, e.stored.bytes()); err != nil || data == nil {
		return err
	}
	behind, err := k.decode(data, nil)
	if err == nil {
		e.next = behind[0].packedKey
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
	if err := k.remove.Do(e.stored.bytes()); err != nil {
		return err
	}
	var page []byte
	for start, i := 0, 0; i <= len(e.rows); i++ {
		whole := len(page)
		if i < len(e.rows) {
			before := packedKey{}
			if i > start {
				before = e.rows[i-1].packedKey
			}
			if page = k.packing.append(page, before, &e.rows[i]); i == start || len(page) <= packedSize {
				continue
			}
		}
		if whole == 0 {
			break // no rows are left
		}
		if err := k.insert.Do(e.rows[start].bytes(), page[:whole]); err != nil {
			return err
		}
		if page, start = page[:0], i; i < len(e.rows) {
			page = k.packing.append(page, packedKey{}, &e.rows[i])
		}
	}
	return nil
}

// take removes the rows whose keys begin with first, and returns how many they
// were and the last one.
func (k *packer) take(first int64) (last packedRow, n int64, err error) {
	for key := (packedKey{first, 0}); ; {
		if err := k.edit(key); err != nil {
			return last, n, err
		}
		e := &k.edited
		from := searchPacked(e.rows, packedKey{first, 0})
		to := searchPacked(e.rows, packedKey{first, math.MaxInt64})
		if from < to {
			last, n = e.rows[to-1], n+int64(to-from)
			e.rows, e.dirty = slices.Delete(e.rows, from, to), true
		}
		if e.next.first != first || e.next == greatestKey {
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
func (k *packer) reader() *packedReader {
	return &packedReader{packing: &k.packing, load: func(key []byte) ([]byte, error) { return only(k.seek, key) }}
}

// cursor goes through what was written.
func (k *packer) cursor(ctx context.Context) *packedCursor {
	return &packedCursor{ctx: ctx, packer: k, at: packedKey{-1, 0}}
}

// packedCursor goes through the rows of a packed table.
type packedCursor struct {
	ctx    context.Context
	packer *packer
	at     packedKey // first of the page that rows were in; -1 before the first
	page   []packedRow
	rows   []packedRow // of page, still to come
}

// next returns the next row; nil at the end. It is valid until the next call.
func (c *packedCursor) next() (*packedRow, error) {
	if len(c.rows) == 0 {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		after := []byte{}
		if c.at.first >= 0 {
			after = c.at.bytes()
		}
		data, err := only(c.packer.after, after)
		if err != nil || data == nil {
			return nil, err
		}
		if c.page, err = c.packer.decode(data, c.page[:0]); err != nil {
			return nil, err
		}
		c.rows = c.page
		c.at = c.rows[0].packedKey
	}
	r := &c.rows[0]
	c.rows = c.rows[1:]
	return r, nil
}

// reach moves on to the row with a key, past those before it; nil if there is
// none. Keys must come in ascending order, none twice.
func (c *packedCursor) reach(first int64) (*packedRow, error) {
	for {
		r, err := c.next()
		switch {
		case err != nil || r == nil:
			return nil, err
		case r.first == first:
			return r, nil
		case r.first > first:
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
