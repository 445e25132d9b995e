package clean

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// sweep deletes what is not needed: what refers to rows before those that it
// refers to, so that it may stop anywhere.
func (c *cleaning) sweep(ctx context.Context) error {
	if err := c.delete(ctx, c.drop.attributed.Without(nil), "DELETE FROM xattrs WHERE file = ?"); err != nil {
		return err
	}
	if err := c.delete(ctx, c.drop.files.Without(nil), "DELETE FROM files WHERE id = ?"); err != nil {
		return err
	}
	if err := c.delete(ctx, c.drop.contents.Without(nil), "DELETE FROM file_chunks WHERE content = ?", "DELETE FROM contents WHERE id = ?"); err != nil {
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
	_, n, err := c.x.DB.Exec(query, args...)
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
	if c.x.DB.Changed < c.x.DB.Batch {
		return nil
	}
	return errors.Join(c.x.DB.Commit(), ctx.Err())
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
	batch := make([]chunk, 0, min(c.x.DB.Batch, c.drop.chunks.Count()))
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
	for id := range c.drop.chunks.Without(nil) {
		if c.full() {
			return nil
		}
		var hash []byte
		if _, err := c.x.DB.Row("SELECT hash FROM chunks WHERE id = ?", []any{id}, &hash); err != nil {
			return err
		}
		var whole [32]byte
		copy(whole[:], hash)
		if batch = append(batch, chunk{id, metastore.Prefix(whole)}); len(batch) == cap(batch) {
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
	ids, err := c.without(ctx, "SELECT id FROM paths NOT INDEXED ORDER BY id DESC", c.keep.paths.Has)
	if err != nil {
		return err
	}
	if err := c.delete(ctx, slices.Values(ids), "DELETE FROM paths WHERE id = ?"); err != nil || c.spent {
		return err
	}
	ids, err = c.without(ctx, "SELECT id FROM volumes", func(id int64) bool { return c.keep.volumes.Has(id) || c.base.Volumes.Has(id) })
	if err != nil {
		return err
	}
	return c.delete(ctx, slices.Values(ids), "DELETE FROM volumes WHERE id = ?")
}

// without lists the ids that a query selects and that are not to be kept, no
// more than may be deleted.
func (c *cleaning) without(ctx context.Context, query string, keep func(int64) bool) (ids []int64, err error) {
	return ids, c.x.DB.Each(ctx, query, nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		if !keep(id) && int64(len(ids)) <= c.limit.Rows {
			ids = append(ids, id)
		}
		return err
	})
}
