package snapshot

import (
	"context"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// collection collects Contents from the large tables.
type collection struct {
	*Contents
	readers sqlite.Readers

	open       idset.Set // contents of the other open versions: of other sets, and below gaps
	openChunks idset.Set // and their chunks
	located    idset.Set // chunks for which there is a blob that the run's recipients can read
	sets       map[int64]bool
	then       liveBlobs // those among which the base chose, as they were then
	length     string    // what to read as a chunk's length: the last column of many, and seldom needed
}

// found is what one reader has found.
type found struct {
	idset.Rows
	open, openChunks, located, moved, pinned idset.Set
	moving                                   moving
	totals                                   metastore.Totals
}

func (c *collection) collect(ctx context.Context) error {
	if err := c.openSets(ctx); err != nil {
		return err
	}
	if err := c.blobsThen(ctx); err != nil {
		return err
	}
	c.length = "0"
	for _, b := range c.liveBlobs {
		if c.toMove(b) {
			c.length = "length"
		}
	}
	for _, step := range []struct {
		last int64
		read func(ctx context.Context, f *found, s *sqlite.Reader, k sqlite.Keys) error
	}{
		{c.LastFile, c.files},
		{c.LastContent, c.fileChunks},
		{c.LastChunk, c.blobChunks},
	} {
		all := make([]found, len(c.readers))
		err := c.readers.Sweep(ctx, step.last, func(ctx context.Context, n int, s *sqlite.Reader, k sqlite.Keys) error {
			return step.read(ctx, &all[n], s, k)
		})
		if err != nil {
			return err
		}
		for i := range all {
			c.merge(&all[i])
		}
	}
	return nil
}

func (c *collection) merge(f *found) {
	for i, set := range c.Rows.Sets() {
		set.Merge(*f.Sets()[i])
	}
	c.open.Merge(f.open)
	c.openChunks.Merge(f.openChunks)
	c.located.Merge(f.located)
	c.moved.Merge(f.moved)
	c.pinned.Merge(f.pinned)
	c.moving.merge(f.moving)
	c.Totals.Xattrs += f.totals.Xattrs
	c.Totals.Bytes = metastore.AddBytes(c.Totals.Bytes, f.totals.Bytes)
	c.Totals.FileChunks += f.totals.FileChunks
	c.Totals.BlobChunks += f.totals.BlobChunks
}

// files finds what the snapshot shows, and the contents of all other open
// versions.
func (c *collection) files(ctx context.Context, f *found, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, `SELECT id, set_id, path, gap, volume, coalesce(content, 0), size, xattrs FROM files NOT INDEXED
		WHERE id > ?1 AND id <= ?2 AND (end_run IS NULL OR gap AND first_run = ?3)`,
		[]any{k.After, k.UpTo, c.Seq}, func(scan func(...any) error) error {
			var gap bool
			var id, set, path, volume, content, size, xattrs int64
			if err := scan(&id, &set, &path, &gap, &volume, &content, &size, &xattrs); err != nil {
				return err
			}
			switch {
			case !c.sets[set]:
			case set == c.Set && c.Shows(path, gap):
				f.Files.Add(id)
				f.Paths.Add(path)
				f.Volumes.Add(volume)
				f.totals.Xattrs += xattrs
				if content != 0 {
					f.Contents.Add(content)
					f.totals.Bytes = metastore.AddBytes(f.totals.Bytes, size)
				}
			case content != 0:
				f.open.Add(content)
			}
			return nil
		})
}

// fileChunks finds the chunks of both.
func (c *collection) fileChunks(ctx context.Context, f *found, s *sqlite.Reader, k sqlite.Keys) error {
	return s.Each(ctx, "SELECT content, coalesce(chunk, 0) FROM file_chunks WHERE content > ? AND content <= ?",
		[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
			var content, chunk int64
			if err := scan(&content, &chunk); err != nil {
				return err
			}
			if c.Rows.Contents.Has(content) {
				f.totals.FileChunks++
				if chunk != 0 {
					f.Chunks.Add(chunk)
				}
			}
			if chunk != 0 && c.open.Has(content) {
				f.openChunks.Add(chunk)
			}
			return nil
		})
}

// blobChunks chooses for every chunk the blob to read it from.
func (c *collection) blobChunks(ctx context.Context, f *found, s *sqlite.Reader, k sqlite.Keys) error {
	var at, size int64
	var best, before *liveBlob
	choose := func() {
		if c.Base != nil && !before.same(best) && c.Base.Chunks.Has(at) && c.Chunks.Has(at) {
			f.moved.Add(at)
		}
		if best == nil {
			return
		}
		if best.current || c.Spread {
			f.located.Add(at)
		}
		if c.Chunks.Has(at) {
			f.totals.BlobChunks++
			f.Blobs.Add(best.id)
			if c.toMove(best) {
				f.moving.add(best.id, size)
			}
		}
		if c.openChunks.Has(at) {
			f.pinned.Add(best.id)
		}
	}
	err := s.Each(ctx, "SELECT chunk, blob, "+c.length+" FROM blob_chunks WHERE chunk > ? AND chunk <= ? ORDER BY chunk",
		[]any{k.After, k.UpTo}, func(scan func(...any) error) error {
			var chunk, blob, length int64
			if err := scan(&chunk, &blob, &length); err != nil {
				return err
			}
			if chunk != at {
				choose()
				at, best, before = chunk, nil, nil
			}
			size = length
			b := c.liveBlobs[blob]
			if b.better(best) {
				best = b
			}
			// A base is encrypted as this run is, so it chose by the same rule.
			if c.Base != nil && c.Base.Live.Has(blob) {
				if b := c.then[blob]; b.better(before) {
					before = b
				}
			}
			return nil
		})
	choose()
	return err
}

// openSets finds the sets that have snapshots, or are about to.
func (c *collection) openSets(ctx context.Context) error {
	c.sets = map[int64]bool{}
	return c.readers[0].Each(ctx, "SELECT id FROM sets", nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		c.sets[id] = true
		return err
	})
}

// blobsThen finds out what the blobs were like among which the base chose the
// one to read each chunk from.
func (c *collection) blobsThen(ctx context.Context) error {
	if c.Base == nil {
		return nil
	}
	c.then = liveBlobs{}
	return c.readers[0].Each(ctx, "SELECT id, recipients = ?, coalesce(retired <= ?, 0) FROM blobs", []any{c.Recipients[:], c.Base.Run},
		func(scan func(...any) error) error {
			b := &liveBlob{}
			err := scan(&b.id, &b.current, &b.retired)
			if c.Base.Live.Has(b.id) {
				c.then[b.id] = b
			}
			return err
		})
}
