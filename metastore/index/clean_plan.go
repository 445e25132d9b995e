package index

import (
	"context"
	"errors"
	"sort"

	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// plan finds what is needed and what is not.
func (c *cleaning) plan(ctx context.Context) (err error) {
	if err := c.planRuns(ctx); err != nil {
		return err
	}
	if err := c.x.finish(); err != nil { // readers are beside it
		return err
	}
	readers, err := sqlite.OpenReaders(c.x.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, readers.Close()) }()
	for _, step := range []struct {
		last int64
		read func(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error
	}{
		{c.x.last.files, c.files},
		{c.x.last.contents, c.contents},
		{c.x.last.contents, c.fileChunks},
		{c.x.last.chunks, c.blobChunks},
		{c.x.last.chunks, c.chunks},
	} {
		all := make([]use, len(readers))
		err := readers.Sweep(ctx, step.last, func(ctx context.Context, n int, s *sqlite.Reader, k sqlite.Keys) error {
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
	err := x.db.Each(ctx, "SELECT id FROM sets", nil, func(scan func(...any) error) error {
		var set int64
		err := scan(&set)
		c.runs[set] = nil
		return err
	})
	if err != nil {
		return err
	}
	err = x.db.Each(ctx, "SELECT seq, set_id FROM runs ORDER BY seq", nil, func(scan func(...any) error) error {
		var seq, set int64
		err := scan(&seq, &set)
		c.runs[set], c.all = append(c.runs[set], seq), append(c.all, seq)
		return err
	})
	if err != nil {
		return err
	}
	err = x.db.Each(ctx, "SELECT rows FROM bases", nil, func(scan func(...any) error) error {
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
	err = x.db.Each(ctx, "SELECT path FROM marks", nil, func(scan func(...any) error) error {
		var path int64
		err := scan(&path)
		c.marked.add(path)
		return err
	})
	if err != nil {
		return err
	}
	return x.db.Each(ctx, "SELECT id, seq, coalesce(end_run, 0), retired IS NOT NULL, size FROM blobs", nil, func(scan func(...any) error) error {
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

func (c *cleaning) files(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, `SELECT id, set_id, first_run, coalesce(end_run, 0), path, volume, coalesce(content, 0), xattrs
		FROM files NOT INDEXED WHERE id > ? AND id <= ?`, []any{k.After, k.UpTo}, func(scan func(...any) error) error {
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

func (c *cleaning) contents(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, "SELECT id FROM contents WHERE id > ? AND id <= ?", []any{k.After, k.UpTo}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !c.keep.contents.has(id) && !c.base.contents.has(id) {
			u.drop.contents.add(id)
		}
		return err
	})
}

func (c *cleaning) fileChunks(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, "SELECT content, chunk FROM file_chunks WHERE content > ? AND content <= ? AND chunk IS NOT NULL",
		[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
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
func (c *cleaning) blobChunks(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	if u.bytes == nil {
		u.bytes = map[int64]*usedBlob{}
	}
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
	err := s.Each(ctx, "SELECT chunk, blob, length FROM blob_chunks WHERE chunk > ? AND chunk <= ? ORDER BY chunk",
		[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
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

func (c *cleaning) chunks(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, "SELECT id FROM chunks WHERE id > ? AND id <= ?", []any{k.After, k.UpTo}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !c.keep.chunks.has(id) && !c.keep.held.has(id) && !c.base.chunks.has(id) {
			u.drop.chunks.add(id)
		}
		return err
	})
}

// ancestors adds to the paths that are needed those that lead to them.
func (c *cleaning) ancestors(ctx context.Context, s *sqlite.Reader) error {
	paths := &c.keep.paths
	paths.add(1)
	paths.merge(c.marked)
	paths.merge(c.base.paths)
	for again := true; again; {
		again = false
		// A parent is made before what is in it, so that once through will do.
		err := s.Each(ctx, "SELECT id, parent FROM paths NOT INDEXED ORDER BY id DESC", nil, func(scan func(...any) error) error {
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
