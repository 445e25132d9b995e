package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// use is a blob as a snapshot's dump names it.
type use struct {
	view.BlobInfo
	key   string
	state *state // nil: nobody said that it is damaged
	wrong error  // what the dump says of it cannot be
}

// damaged is a chunk that is not where the dump says.
type damaged struct {
	id     int64 // of the chunk
	use    *use  // nil: in no blob
	healed bool
}

// snapshot checks what one snapshot says, and tells which of its files suffer.
func (c *checker) snapshot(ctx context.Context, s fs.Snapshot) error {
	if c.lost == nil {
		if err := c.dump(ctx, s); err != nil {
			return err
		}
	}
	known := c.Catalog.HasView(s)
	tree, err := c.Catalog.OpenSnapshot(ctx, s)
	if err != nil {
		return c.refuse(ctx, s, "", err)
	}
	c.mu.Lock()
	c.result.Snapshots++
	for _, d := range s.Manifest.Dumps {
		if !known {
			c.result.Dumps.add(d.Size)
			c.parts[remote.DumpKey(s.Writer, d.Seq, d.SHA256)] = true
		}
	}
	c.mu.Unlock()
	err = c.tree(ctx, s, tree)
	if failed := tree.Close(); err == nil {
		err = failed
	}
	return err
}

func (c *checker) tree(ctx context.Context, s fs.Snapshot, t *fs.Tree) error {
	uses, err := c.uses(ctx, s, t)
	if err != nil {
		return err
	}
	bad, err := c.places(ctx, t, uses)
	if err != nil || len(bad) == 0 {
		return err
	}
	return c.files(ctx, s, t, bad)
}

// dump compares the parts of a dump with their names, if they will not be read
// because they were once: a view says nothing about what is in the store now.
func (c *checker) dump(ctx context.Context, s fs.Snapshot) error {
	known := c.Catalog.HasView(s)
	for _, d := range s.Manifest.Dumps {
		key := remote.DumpKey(s.Writer, d.Seq, d.SHA256)
		if !known || c.parts[key] {
			continue
		}
		c.parts[key] = true
		if err := c.part(ctx, key, d); err != nil {
			if err := c.refuse(ctx, s, key, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) part(ctx context.Context, key string, d remote.DumpPart) error {
	if err := c.flight.Acquire(ctx, min(d.Size, inFlight)); err != nil {
		return err
	}
	defer c.flight.Release(min(d.Size, inFlight))
	object, err := c.get(ctx, named{key, d.SHA256, d.Size})
	c.reuse(object)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Dumps.add(int64(len(object)))
	return err
}

// uses finds out which blobs a dump names, and what is known of them.
func (c *checker) uses(ctx context.Context, s fs.Snapshot, t *fs.Tree) (map[int64]*use, error) {
	signed, err := c.signed(ctx, s)
	if err != nil {
		return nil, err
	}
	uses := make(map[int64]*use)
	var unknown []named
	err = t.Blobs(ctx, func(id int64, b view.BlobInfo) error {
		u := &use{BlobInfo: b, key: blobKey(s.Writer, b)}
		uses[id] = u
		if u.state = c.states[u.key]; u.state != nil || c.lost != nil {
			return nil
		}
		unknown = append(unknown, named{u.key, b.Hash, b.Size})
		return nil
	})
	if err != nil || c.lost != nil {
		return uses, err
	}
	if err := c.blobs(ctx, unknown); err != nil {
		return nil, err
	}
	for _, u := range uses {
		u.state = c.states[u.key]
		if size, found := signed[u.key]; signed != nil && (!found || size != u.Size) {
			c.report(Finding{Kind: KindDump, Snapshot: s, Key: u.key,
				Err: corrupt("the dump names it with %d bytes, and the signed manifest does not", u.Size)})
			if found {
				u.wrong = corrupt("it has %d bytes, the dump says %d", size, u.Size)
			}
		}
		if h := u.state.header; h != 0 && h != u.Header {
			u.wrong = corrupt("its age header has %d bytes, the dump says %d", h, u.Header)
		}
	}
	return uses, nil
}

// signed returns the sizes of the blobs that the manifest names, by key; nil if
// it cannot be said, which was reported.
func (c *checker) signed(ctx context.Context, s fs.Snapshot) (map[string]int64, error) {
	if c.lost != nil {
		return nil, nil
	}
	objects, err := c.named(ctx, s)
	if err != nil {
		if fatal(ctx, err) {
			return nil, err
		}
		return nil, nil
	}
	sizes := make(map[string]int64, len(objects))
	for _, o := range objects {
		sizes[remote.BlobKey(s.Writer, o.Seq, o.SHA256)] = o.Size
	}
	return sizes, nil
}

// places compares where a dump says that chunks are with what is there. What is
// not is returned by id.
func (c *checker) places(ctx context.Context, t *fs.Tree, uses map[int64]*use) (bad []damaged, err error) {
	type claim struct {
		id int64
		blob.Chunk
	}
	untold := make(map[*use][]claim) // in blobs that do not say what is in them
	err = t.Chunks(ctx, func(k *view.StoredChunk) error {
		u := uses[k.BlobID]
		if c.sound(u, k) {
			return nil
		}
		if u != nil && u.wrong == nil && u.state.untold {
			untold[u] = append(untold[u], claim{k.ID, chunkAt(k)})
			return nil
		}
		bad = append(bad, damaged{id: k.ID, use: u})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for u, claims := range untold {
		chunks := make([]blob.Chunk, len(claims))
		for i, k := range claims {
			chunks[i] = k.Chunk
		}
		slices.SortFunc(chunks, func(a, b blob.Chunk) int {
			return cmp.Or(cmp.Compare(a.FrameOffset, b.FrameOffset), cmp.Compare(a.Offset, b.Offset))
		})
		s, err := c.inspect(ctx, named{u.key, u.Hash, u.Size}, chunks)
		if err != nil {
			return nil, err
		}
		for _, k := range claims {
			if !s.has(c.fingerprint(k.Chunk)) {
				bad = append(bad, damaged{id: k.id, use: u})
			}
		}
	}
	slices.SortFunc(bad, func(a, b damaged) int { return cmp.Compare(a.id, b.id) })
	return bad, c.heal(ctx, t, bad)
}

// sound reports whether a chunk is in its place.
func (c *checker) sound(u *use, k *view.StoredChunk) bool {
	switch {
	case u == nil:
		return false
	case c.lost != nil:
		return u.state == nil
	}
	return u.wrong == nil && u.state.has(c.fingerprint(chunkAt(k)))
}

func chunkAt(k *view.StoredChunk) blob.Chunk {
	return blob.Chunk{ID: k.Hash, FrameOffset: k.FrameOffset, FrameLength: k.FrameLength, Offset: k.FrameStart, Length: k.Size}
}

// heal finds out which damaged chunks readers find elsewhere.
func (c *checker) heal(ctx context.Context, t *fs.Tree, bad []damaged) error {
	if len(bad) == 0 {
		return nil
	}
	writer, at := t.Snapshot().Writer, 0
	return t.Chunks(ctx, func(k *view.StoredChunk) error {
		for at < len(bad) && bad[at].id < k.ID {
			at++
		}
		if at == len(bad) || bad[at].id != k.ID {
			return nil
		}
		var failed error
		x := view.Extent{Length: k.Size, Chunk: k.Hash, ChunkSize: k.Size, Lost: true}
		_ = t.Elsewhere(ctx, x, func(y view.Extent) bool { // a dump that cannot be loaded has its own finding
			bad[at].healed, failed = c.there(ctx, writer, y)
			return failed == nil && !bad[at].healed
		})
		if failed == nil {
			failed = ctx.Err()
		}
		return failed
	})
}

// there reports whether a chunk is in a place.
func (c *checker) there(ctx context.Context, writer string, x view.Extent) (bool, error) {
	key := blobKey(writer, x.Blob)
	if c.lost != nil {
		return !c.lost[key], nil
	}
	s, err := c.state(ctx, named{key, x.Blob.Hash, x.Blob.Size})
	if err != nil {
		return false, err
	}
	k := blob.Chunk{ID: x.Chunk, FrameOffset: x.FrameOffset, FrameLength: x.FrameLength, Offset: x.FrameStart, Length: x.ChunkSize}
	return s.header == x.Blob.Header && s.has(c.fingerprint(k)), nil
}

// reason says why a chunk is not where it should be.
func (d *damaged) reason() (key string, err error) {
	switch u := d.use; {
	case u == nil:
		return "", fmt.Errorf("its chunk is in no blob: %w", fs.ErrLost)
	case u.wrong != nil:
		return u.key, u.wrong
	case u.state.err != nil:
		return u.key, u.state.err
	default:
		return u.key, corrupt("something else is where the dump says that it is")
	}
}
