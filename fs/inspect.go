package fs

import (
	"context"
	"os"
	"path/filepath"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Store is what the catalog reads from.
func (c *Catalog) Store() remote.Store { return c.o.Store }

// Identities are what it decrypts with.
func (c *Catalog) Identities() []age.Identity { return c.o.Identities }

// HasView reports whether the view of a snapshot is in the cache folder or open,
// so that Open will not look at the snapshot's dump.
func (c *Catalog) HasView(s Snapshot) bool {
	if c.open.has(s.Hash) {
		return true
	}
	_, err := os.Stat(c.viewPath(s))
	return err == nil
}

func (c *Catalog) viewPath(s Snapshot) string {
	return filepath.Join(c.views, s.Hash.String()+".db")
}

// Blobs, Chunks and ContentPieces go through all that a snapshot's dump says
// about content; see view.View.
func (t *Tree) Blobs(ctx context.Context, each func(id int64, b view.BlobInfo) error) error {
	return t.view.Blobs(ctx, each)
}

// Chunks is described at Blobs.
func (t *Tree) Chunks(ctx context.Context, each func(*view.StoredChunk) error) error {
	return t.view.Chunks(ctx, each)
}

// ContentPieces is described at Blobs.
func (t *Tree) ContentPieces(ctx context.Context, each func(view.ContentPiece) error) error {
	return t.view.ContentPieces(ctx, each)
}
