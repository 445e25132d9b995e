package clean

import (
	"context"
	"errors"
	"sort"

	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// plan finds what is needed and what is not.
func (c *cleaning) plan(ctx context.Context) (err error) {
	if err := c.planRuns(ctx); err != nil {
		return err
	}
	if err := c.x.DB.Abort(); err != nil { // readers are beside it
		return err
	}
	readers, err := sqlite.OpenReaders(c.x.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, readers.Close()) }()
	for _, step := range []struct {
		last int64
		read func(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error
	}{
		{c.x.Files, c.files},
		{c.x.Contents, c.contents},
		{c.x.Contents, c.fileChunks},
		{c.x.Chunks, c.blobChunks},
		{c.x.Chunks, c.chunks},
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
	err := x.DB.Each(ctx, "SELECT id FROM sets", nil, func(scan func(...any) error) error {
		var set int64
		err := scan(&set)
		c.runs[set] = nil
		return err
	})
	if err != nil {
		return err
	}
	err = x.DB.Each(ctx, "SELECT seq, set_id FROM runs ORDER BY seq", nil, func(scan func(...any) error) error {
		var seq, set int64
		err := scan(&seq, &set)
		c.runs[set], c.all = append(c.runs[set], seq), append(c.all, seq)
		return err
	})
	if err != nil {
		return err
	}
	err = x.DB.Each(ctx, "SELECT rows FROM bases", nil, func(scan func(...any) error) error {
		var packed []byte
		if err := scan(&packed); err != nil {
			return err
		}
		var rows idset.Rows
		if err := rows.Decode(packed); err != nil {
			return err
		}
		for i, set := range c.base.Sets() {
			set.Merge(*rows.Sets()[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = x.DB.Each(ctx, "SELECT path FROM marks", nil, func(scan func(...any) error) error {
		var path int64
		err := scan(&path)
		c.marked.Add(path)
		return err
	})
	if err != nil {
		return err
	}
	return x.DB.Each(ctx, "SELECT id, seq, coalesce(end_run, 0), retired IS NOT NULL, size FROM blobs", nil, func(scan func(...any) error) error {
		b := &usedBlob{}
		var end int64
		err := scan(&b.id, &b.seq, &end, &b.retired, &b.size)
		b.live = end == 0
		if b.live || holds(c.all, b.seq, end) || c.base.Live.Has(b.id) || c.base.Blobs.Has(b.id) {
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
	for _, s := range []struct{ to, from *idset.Set }{
		{&k.paths, &v.paths}, {&k.volumes, &v.volumes}, {&k.contents, &v.contents}, {&k.chunks, &v.chunks},
		{&k.open, &v.open}, {&k.openChunks, &v.openChunks}, {&k.held, &v.held},
		{&c.drop.files, &u.drop.files}, {&c.drop.attributed, &u.drop.attributed},
		{&c.drop.contents, &u.drop.contents}, {&c.drop.chunks, &u.drop.chunks},
	} {
		s.to.Merge(*s.from)
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
			u.keep.paths.Add(path)
			u.keep.volumes.Add(volume)
			if content != 0 {
				u.keep.contents.Add(content)
				if open {
					u.keep.open.Add(content)
				}
			}
		case !c.base.Files.Has(id):
			u.drop.files.Add(id)
			if xattrs > 0 {
				u.drop.attributed.Add(id)
			}
		}
		return nil
	})
}

func (c *cleaning) contents(ctx context.Context, u *use, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, "SELECT id FROM contents WHERE id > ? AND id <= ?", []any{k.After, k.UpTo}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !c.keep.contents.Has(id) && !c.base.Contents.Has(id) {
			u.drop.contents.Add(id)
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
			if c.keep.contents.Has(content) {
				u.keep.chunks.Add(chunk)
				if c.keep.open.Has(content) {
					u.keep.openChunks.Add(chunk)
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
		u.keep.held.Add(at)
		if c.keep.chunks.Has(at) {
			bytes(best.id).needed += size
		}
		if c.keep.openChunks.Has(at) {
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
		if !c.keep.chunks.Has(id) && !c.keep.held.Has(id) && !c.base.Chunks.Has(id) {
			u.drop.chunks.Add(id)
		}
		return err
	})
}

// ancestors adds to the paths that are needed those that lead to them.
func (c *cleaning) ancestors(ctx context.Context, s *sqlite.Reader) error {
	paths := &c.keep.paths
	paths.Add(1)
	paths.Merge(c.marked)
	paths.Merge(c.base.Paths)
	for again := true; again; {
		again = false
		// A parent is made before what is in it, so that once through will do.
		err := s.Each(ctx, "SELECT id, parent FROM paths NOT INDEXED ORDER BY id DESC", nil, func(scan func(...any) error) error {
			var id, parent int64
			err := scan(&id, &parent)
			if paths.Has(id) && !paths.Has(parent) {
				paths.Add(parent)
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
