package metastore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sort"
)

// Cleaning bounds what one [Index.Clean] does.
type Cleaning struct {
	Rows   int64 // delete at most about so many rows
	Retire int64 // bytes of plaintext that may wait to be moved out of retired blobs; 0 retires none
}

// DefaultRows is for Cleaning.Rows: they take a few seconds.
const DefaultRows = 250_000

// Cleaned says what a Clean did.
type Cleaned struct {
	Rows    int64 // deleted
	Retired int   // blobs retired
	Bytes   int64 // of their objects
	Live    int64 // bytes of plaintext in them that are still needed
	More    bool  // there is more to do, for the next Clean
}

// Clean deletes rows that neither a snapshot that is kept, nor what is open, nor
// a base dump needs, and retires blobs that are mostly dead: those of which less
// than a quarter is needed by a snapshot that is kept or by what is open. A
// retired blob is counted on as before, but its chunks count as not stored, and
// [Run.Moves] names those that are to be uploaded again.
//
// It looks at every row, but only after a Forget, until nothing is left to do;
// otherwise it does nothing. A crash takes nothing back and leaves nothing
// half done: what is deleted was needed by nobody, row by row.
//
// The space is used again by later rows; the file does not shrink.
func (x *Index) Clean(ctx context.Context, limit Cleaning) (done Cleaned, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	done, err = x.clean(ctx, limit)
	return done, x.fail("clean up", errors.Join(err, x.finish()))
}

func (x *Index) clean(ctx context.Context, limit Cleaning) (Cleaned, error) {
	s, err := x.idle(ctx)
	if err != nil {
		return Cleaned{}, err
	}
	unclean, err := x.row("SELECT 1 FROM settings WHERE key = 'unclean'", nil, new(int64))
	if err != nil || !unclean {
		return Cleaned{}, err
	}
	c := &cleaning{x: x, limit: limit, last: s.LastSeq, runs: map[int64][]int64{}, blobs: map[int64]*usedBlob{}}
	if err := c.plan(ctx); err != nil {
		return Cleaned{}, err
	}
	if err := c.sweep(ctx); err != nil {
		return c.done, err
	}
	if err := c.retire(); err != nil {
		return c.done, err
	}
	if !c.done.More {
		if _, _, err := x.exec("DELETE FROM settings WHERE key = 'unclean'"); err != nil {
			return c.done, err
		}
	}
	return c.done, x.commit()
}

// cleaning is a Clean at work: first it finds all that is needed, reading every
// table from one end to the other, then it deletes what is left.
type cleaning struct {
	x     *Index
	limit Cleaning
	last  int64             // the newest run
	runs  map[int64][]int64 // kept, by set, in order
	all   []int64           // those of all sets
	blobs map[int64]*usedBlob

	base   dumpedRows // rows of the base dumps
	marked bitset     // paths that have marks

	keep  needed
	drop  dropped
	done  Cleaned
	spent bool // nothing more is deleted in this Clean
}

// needed are rows that are needed. Those of base dumps are not among them.
type needed struct {
	paths, volumes, contents, chunks bitset
	open, openChunks                 bitset // contents and chunks of what is open
	held                             bitset // chunks in blobs that the index counts on
}

// dropped are rows that are not.
type dropped struct {
	files, attributed, contents, chunks bitset
	places                              []place // of chunks in blobs that go
	furtherPlaces                       bool
}

type place struct{ chunk, blob int64 }

// usedBlob is what of a blob is used, in bytes of plaintext.
type usedBlob struct {
	id, seq, size       int64
	live, retired       bool
	total, needed, open int64
}

// use is the part of a cleaning that one reader finds.
type use struct {
	keep  needed
	drop  dropped
	bytes map[int64]*usedBlob // total, needed and open only
}

func (c *cleaning) plan(ctx context.Context) (err error) {
	if err := c.planRuns(ctx); err != nil {
		return err
	}
	if err := c.x.finish(); err != nil { // readers are beside it
		return err
	}
	readers, err := openReaders(c.x.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, readers.close()) }()
	for _, step := range []struct {
		last int64
		read func(ctx context.Context, u *use, s *snapshotReader, k keys) error
	}{
		{c.x.last.files, c.files},
		{c.x.last.contents, c.contents},
		{c.x.last.contents, c.fileChunks},
		{c.x.last.chunks, c.blobChunks},
		{c.x.last.chunks, c.chunks},
	} {
		all := make([]use, len(readers))
		err := readers.sweep(ctx, step.last, func(ctx context.Context, n int, s *snapshotReader, k keys) error {
			return step.read(ctx, &all[n], s, k)
		})
		if err != nil {
			return err
		}
		for i := range all {
			c.merge(&all[i])
		}
	}
	return c.ancestors(ctx, readers[0])
}

// planRuns reads the small tables.
func (c *cleaning) planRuns(ctx context.Context) error {
	x := c.x
	err := x.each(ctx, "SELECT id FROM sets", nil, func(scan func(...any) error) error {
		var set int64
		err := scan(&set)
		c.runs[set] = nil
		return err
	})
	if err != nil {
		return err
	}
	err = x.each(ctx, "SELECT seq, set_id FROM runs ORDER BY seq", nil, func(scan func(...any) error) error {
		var seq, set int64
		err := scan(&seq, &set)
		c.runs[set], c.all = append(c.runs[set], seq), append(c.all, seq)
		return err
	})
	if err != nil {
		return err
	}
	err = x.each(ctx, "SELECT rows FROM bases", nil, func(scan func(...any) error) error {
		var packed []byte
		if err := scan(&packed); err != nil {
			return err
		}
		var rows dumpedRows
		if err := rows.decode(packed); err != nil {
			return err
		}
		for i, set := range c.base.sets() {
			set.merge(*rows.sets()[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = x.each(ctx, "SELECT path FROM marks", nil, func(scan func(...any) error) error {
		var path int64
		err := scan(&path)
		c.marked.add(path)
		return err
	})
	if err != nil {
		return err
	}
	return x.each(ctx, "SELECT id, seq, coalesce(end_run, 0), retired IS NOT NULL, size FROM blobs", nil, func(scan func(...any) error) error {
		b := &usedBlob{}
		var end int64
		err := scan(&b.id, &b.seq, &end, &b.retired, &b.size)
		b.live = end == 0
		if b.live || holds(c.all, b.seq, end) || c.base.live.has(b.id) || c.base.blobs.has(b.id) {
			c.blobs[b.id] = b
		}
		return err
	})
}

// holds reports whether one of runs, which are in order, is in [first, end);
// end 0 is none.
func holds(runs []int64, first, end int64) bool {
	i := sort.Search(len(runs), func(i int) bool { return runs[i] >= first })
	return i < len(runs) && (end == 0 || runs[i] < end)
}

func (c *cleaning) merge(u *use) {
	k, v := &c.keep, &u.keep
	for _, s := range []struct{ to, from *bitset }{
		{&k.paths, &v.paths}, {&k.volumes, &v.volumes}, {&k.contents, &v.contents}, {&k.chunks, &v.chunks},
		{&k.open, &v.open}, {&k.openChunks, &v.openChunks}, {&k.held, &v.held},
		{&c.drop.files, &u.drop.files}, {&c.drop.attributed, &u.drop.attributed},
		{&c.drop.contents, &u.drop.contents}, {&c.drop.chunks, &u.drop.chunks},
	} {
		s.to.merge(*s.from)
	}
	c.drop.places = append(c.drop.places, u.drop.places...)
	c.drop.furtherPlaces = c.drop.furtherPlaces || u.drop.furtherPlaces
	for id, b := range u.bytes {
		to := c.blobs[id]
		to.total += b.total
		to.needed += b.needed
		to.open += b.open
	}
}

func (c *cleaning) files(ctx context.Context, u *use, s *snapshotReader, k keys) error {
	return s.each(ctx, `SELECT id, set_id, first_run, coalesce(end_run, 0), path, volume, coalesce(content, 0), xattrs
		FROM files NOT INDEXED WHERE id > ? AND id <= ?`, []any{k.after, k.upTo}, func(scan func(...any) error) error {
		var id, set, first, end, path, volume, content, xattrs int64
		if err := scan(&id, &set, &first, &end, &path, &volume, &content, &xattrs); err != nil {
			return err
		}
		runs, there := c.runs[set]
		open := there && end == 0
		switch {
		case open || holds(runs, first, end):
			u.keep.paths.add(path)
			u.keep.volumes.add(volume)
			if content != 0 {
				u.keep.contents.add(content)
				if open {
					u.keep.open.add(content)
				}
			}
		case !c.base.files.has(id):
			u.drop.files.add(id)
			if xattrs > 0 {
				u.drop.attributed.add(id)
			}
		}
		return nil
	})
}

func (c *cleaning) contents(ctx context.Context, u *use, s *snapshotReader, k keys) error {
	return s.each(ctx, "SELECT id FROM contents WHERE id > ? AND id <= ?", []any{k.after, k.upTo}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !c.keep.contents.has(id) && !c.base.contents.has(id) {
			u.drop.contents.add(id)
		}
		return err
	})
}

func (c *cleaning) fileChunks(ctx context.Context, u *use, s *snapshotReader, k keys) error {
	return s.each(ctx, "SELECT content, chunk FROM file_chunks WHERE content > ? AND content <= ? AND chunk IS NOT NULL",
		[]any{k.after, k.upTo}, func(scan func(...any) error) error {
			var content, chunk int64
			if err := scan(&content, &chunk); err != nil {
				return err
			}
			if c.keep.contents.has(content) {
				u.keep.chunks.add(chunk)
				if c.keep.open.has(content) {
					u.keep.openChunks.add(chunk)
				}
			}
			return nil
		})
}

// blobChunks finds out what of each blob that is counted on is used: of several
// with a chunk, only the one that it is read from.
func (c *cleaning) blobChunks(ctx context.Context, u *use, s *snapshotReader, k keys) error {
	u.bytes = map[int64]*usedBlob{}
	bytes := func(id int64) *usedBlob {
		b := u.bytes[id]
		if b == nil {
			b = &usedBlob{}
			u.bytes[id] = b
		}
		return b
	}
	var at, size int64
	var best *usedBlob
	count := func() {
		if best == nil {
			return
		}
		u.keep.held.add(at)
		if c.keep.chunks.has(at) {
			bytes(best.id).needed += size
		}
		if c.keep.openChunks.has(at) {
			bytes(best.id).open += size
		}
	}
	err := s.each(ctx, "SELECT chunk, blob, length FROM blob_chunks WHERE chunk > ? AND chunk <= ? ORDER BY chunk",
		[]any{k.after, k.upTo}, func(scan func(...any) error) error {
			var chunk, blob, length int64
			if err := scan(&chunk, &blob, &length); err != nil {
				return err
			}
			if chunk != at {
				count()
				at, best = chunk, nil
			}
			size = length
			b := c.blobs[blob]
			switch {
			case b == nil && int64(len(u.drop.places)) < c.limit.Rows:
				u.drop.places = append(u.drop.places, place{chunk, blob})
			case b == nil:
				u.drop.furtherPlaces = true
			case b.live:
				bytes(blob).total += length
				if best == nil || best.retired && !b.retired || best.retired == b.retired && b.id > best.id {
					best = b
				}
			}
			return nil
		})
	count()
	return err
}

func (c *cleaning) chunks(ctx context.Context, u *use, s *snapshotReader, k keys) error {
	return s.each(ctx, "SELECT id FROM chunks WHERE id > ? AND id <= ?", []any{k.after, k.upTo}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !c.keep.chunks.has(id) && !c.keep.held.has(id) && !c.base.chunks.has(id) {
			u.drop.chunks.add(id)
		}
		return err
	})
}

// ancestors adds to the paths that are needed those that lead to them.
func (c *cleaning) ancestors(ctx context.Context, s *snapshotReader) error {
	paths := &c.keep.paths
	paths.add(1)
	paths.merge(c.marked)
	paths.merge(c.base.paths)
	for again := true; again; {
		again = false
		// A parent is made before what is in it, so that once through will do.
		err := s.each(ctx, "SELECT id, parent FROM paths NOT INDEXED ORDER BY id DESC", nil, func(scan func(...any) error) error {
			var id, parent int64
			err := scan(&id, &parent)
			if paths.has(id) && !paths.has(parent) {
				paths.add(parent)
				again = again || parent > id
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes what is not needed: what refers to rows before those that it
// refers to, so that it may stop anywhere.
func (c *cleaning) sweep(ctx context.Context) error {
	if err := c.delete(ctx, c.drop.attributed.without(nil), "DELETE FROM xattrs WHERE file = ?"); err != nil {
		return err
	}
	if err := c.delete(ctx, c.drop.files.without(nil), "DELETE FROM files WHERE id = ?"); err != nil {
		return err
	}
	if err := c.delete(ctx, c.drop.contents.without(nil), "DELETE FROM file_chunks WHERE content = ?", "DELETE FROM contents WHERE id = ?"); err != nil {
		return err
	}
	if err := c.dropPlaces(ctx); err != nil {
		return err
	}
	if err := c.dropChunks(ctx); err != nil {
		return err
	}
	return c.dropRest(ctx)
}

// delete deletes rows by their keys, with queries that take one.
func (c *cleaning) delete(ctx context.Context, keys iter.Seq[int64], queries ...string) error {
	for key := range keys {
		if c.full() {
			return nil
		}
		for _, query := range queries {
			if err := c.exec(query, key); err != nil {
				return err
			}
		}
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *cleaning) exec(query string, args ...any) error {
	_, n, err := c.x.exec(query, args...)
	c.done.Rows += n
	return err
}

// full reports, when there is more to delete, that enough was.
func (c *cleaning) full() bool {
	if c.done.Rows >= c.limit.Rows {
		c.spent, c.done.More = true, true
	}
	return c.spent
}

// pause is called where a transaction may end.
func (c *cleaning) pause(ctx context.Context) error {
	if c.x.changed < c.x.batch {
		return nil
	}
	return errors.Join(c.x.commit(), ctx.Err())
}

// dropPlaces deletes the blobs that are not needed, and where in them chunks are.
func (c *cleaning) dropPlaces(ctx context.Context) error {
	for _, p := range c.drop.places {
		if c.full() {
			return nil
		}
		if err := c.exec("DELETE FROM blob_chunks WHERE chunk = ? AND blob = ?", p.chunk, p.blob); err != nil {
			return err
		}
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
	if c.drop.furtherPlaces {
		c.spent, c.done.More = true, true
		return nil
	}
	ids, err := c.without(ctx, "SELECT id FROM blobs", func(id int64) bool { return c.blobs[id] != nil })
	if err != nil {
		return err
	}
	return c.delete(ctx, slices.Values(ids), "DELETE FROM blobs WHERE id = ?")
}

// dropChunks deletes chunks, a page of prefixes at a time.
func (c *cleaning) dropChunks(ctx context.Context) error {
	type chunk struct{ id, prefix int64 }
	batch := make([]chunk, 0, min(c.x.batch, c.drop.chunks.count()))
	flush := func() error {
		slices.SortFunc(batch, func(a, b chunk) int { return cmp.Compare(a.prefix, b.prefix) })
		for _, d := range batch {
			if c.full() {
				break
			}
			for _, query := range []string{
				"DELETE FROM blob_chunks WHERE chunk = ?1", "DELETE FROM chunks WHERE id = ?1",
			} {
				if err := c.exec(query, d.id); err != nil {
					return err
				}
			}
			if err := c.exec("DELETE FROM prefixes WHERE prefix = ? AND chunk = ?", d.prefix, d.id); err != nil {
				return err
			}
			if err := c.pause(ctx); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	for id := range c.drop.chunks.without(nil) {
		if c.full() {
			return nil
		}
		var hash []byte
		if _, err := c.x.row("SELECT hash FROM chunks WHERE id = ?", []any{id}, &hash); err != nil {
			return err
		}
		var whole [32]byte
		copy(whole[:], hash)
		if batch = append(batch, chunk{id, prefixOf(whole)}); len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// dropRest deletes paths and volumes.
func (c *cleaning) dropRest(ctx context.Context) error {
	if c.spent {
		return nil
	}
	ids, err := c.without(ctx, "SELECT id FROM paths NOT INDEXED ORDER BY id DESC", c.keep.paths.has)
	if err != nil {
		return err
	}
	if err := c.delete(ctx, slices.Values(ids), "DELETE FROM paths WHERE id = ?"); err != nil || c.spent {
		return err
	}
	ids, err = c.without(ctx, "SELECT id FROM volumes", func(id int64) bool { return c.keep.volumes.has(id) || c.base.volumes.has(id) })
	if err != nil {
		return err
	}
	return c.delete(ctx, slices.Values(ids), "DELETE FROM volumes WHERE id = ?")
}

// without lists the ids that a query selects and that are not to be kept, no
// more than may be deleted.
func (c *cleaning) without(ctx context.Context, query string, keep func(int64) bool) (ids []int64, err error) {
	return ids, c.x.each(ctx, query, nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !keep(id) && int64(len(ids)) <= c.limit.Rows {
			ids = append(ids, id)
		}
		return err
	})
}
