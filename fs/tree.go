// Package fs is the reader: it shows a snapshot as a tree of files.
//
//	store ─ manifest (verified) ─ dump ─ view.View ──────┐
//	store ─ blob ─ frame ─ chunk (verified) ─ Chunks ────┴─ Tree ─ mount, restore, web
//
// A Catalog knows the snapshots of a store, by signed manifests alone, and
// opens the Tree of any of them. A Tree answers questions about metadata from
// a local database, so they work without the store, and reads content through
// Chunks, which is shared by all trees of a store.
//
// What it promises: every byte that ReadAt returns was checked against the
// chunk's SHA-256 on that very call, whether it came from the store or from
// memory; the hash comes from a dump that a signed manifest names. A hole is
// zeros because the dump says so. What cannot be read is an error, never
// zeros and never a short file.
//
// What it does not: it writes nothing outside its cache folder, it does not
// check permissions (a consumer or the kernel does), and it does not hide from
// the store which parts of which blobs are read.
package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// Errors that consumers tell apart with errors.Is. Bytes that are not what
// their hash promises are remote.ErrCorrupt; a store that did not answer in
// time is context.DeadlineExceeded.
var (
	// ErrLost: the store does not have the object any more, or no object that
	// a manifest vouches for holds this content. It is not io/fs.ErrNotExist,
	// which speaks of entries of a tree.
	ErrLost = errors.New("lost from the store")
	// ErrNotCaptured: the backup saw the entry but could not read it, or was
	// told not to. The snapshot records that it existed, not what was in it.
	ErrNotCaptured = errors.New("content was not captured by the backup")
	// ErrIsDirectory and ErrNotRegular: only regular files have content.
	ErrIsDirectory = errors.New("is a directory")
	ErrNotRegular  = errors.New("is not a regular file")
	// ErrClosed: the Tree, Catalog or Chunks was closed.
	ErrClosed = errors.New("closed")
	// ErrNoSnapshot: no snapshot has this name.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrAmbiguous: several snapshots answer to this name.
	ErrAmbiguous = errors.New("the name fits several snapshots")
)

// Tree is one snapshot. Inode 1 is its "/". It is safe for concurrent use.
type Tree struct {
	view    *view.View
	chunks  *Chunks
	ahead   *ahead
	writer  string
	release func() error

	elsewhere *elsewhere // nil: what fails stays so
}

// NewTree shows a view whose content chunks fetches. Closing the Tree closes
// the view and leaves chunks alone. Of other snapshots it knows nothing, as those
// that a Catalog opens do.
func NewTree(v *view.View, c *Chunks) *Tree {
	t := &Tree{view: v, chunks: c, writer: v.Snapshot().Writer}
	t.ahead = newAhead(t)
	t.release = func() error { t.ahead.close(); return v.Close() }
	return t
}

// Close gives the tree back. It must not be used afterwards.
func (t *Tree) Close() error { return t.release() }

// View is what the tree is made from. Closing the tree closes it.
func (t *Tree) View() *view.View { return t.view }

// Snapshot describes the snapshot.
func (t *Tree) Snapshot() metastore.Snapshot { return t.view.Snapshot() }

// Totals are the signed counts of the snapshot.
func (t *Tree) Totals() metastore.Totals { return t.view.Totals() }

// HasXattrs reports whether any entry has an extended attribute.
func (t *Tree) HasXattrs() bool { return t.view.HasXattrs() }

// Root is the inode number of "/".
func (t *Tree) Root() uint64 { return t.view.Root() }

// Node returns the entry with an inode number; io/fs.ErrNotExist if there is
// none. Hard links share one.
func (t *Tree) Node(ctx context.Context, ino uint64) (view.Node, error) {
	return t.view.Node(ctx, ino)
}

// Lookup returns the entry called name in a directory, io/fs.ErrNotExist if
// there is none. In a directory that could not be read it fails with
// ErrNotCaptured, because nobody knows; so it does for an Unknown entry.
func (t *Tree) Lookup(ctx context.Context, dir uint64, name string) (view.Node, error) {
	n, err := t.view.Lookup(ctx, dir, name)
	if err != nil {
		if known := t.listable(ctx, dir); known != nil {
			return view.Node{}, known
		}
	}
	if err == nil && Unknown(n) {
		return view.Node{}, fmt.Errorf("%s: %w", t.name(n), ErrNotCaptured)
	}
	return n, err
}

// Unknown reports whether an entry could not be captured and yet would pass
// for an empty file: nobody reads what has no bytes, so nobody would be told.
// It is listed by its name and cannot be looked at.
func Unknown(n view.Node) bool {
	return n.State == metastore.StateUnreadable && n.Type == metastore.Regular && n.Size == 0
}

// ReadDir returns up to n entries of a directory that follow cookie, in
// listing order; cookie 0 is the start, and each Node's Cookie continues after
// it. No entries and no error mean the end. A directory that could not be read
// fails with ErrNotCaptured: it is never shown as empty.
func (t *Tree) ReadDir(ctx context.Context, dir, cookie uint64, n int) ([]view.Node, error) {
	nodes, err := t.view.ReadDir(ctx, dir, cookie, n)
	if err == nil && len(nodes) == 0 {
		if err := t.listable(ctx, dir); err != nil {
			return nil, err
		}
	}
	return nodes, err
}

// After returns the entries behind a Node's Cookie in the order in which whoever
// copies the whole tree comes to them, up to n; none and no error is the end.
func (t *Tree) After(ctx context.Context, cookie uint64, n int) ([]view.Node, error) {
	return t.view.After(ctx, cookie, n)
}

func (t *Tree) listable(ctx context.Context, dir uint64) error {
	n, err := t.view.Node(ctx, dir)
	if err == nil && n.Type == metastore.Directory && n.State == metastore.StateUnreadable {
		return fmt.Errorf("directory %s: %w", t.name(n), ErrNotCaptured)
	}
	return nil
}

// name spells an entry for messages, by its path and its snapshot.
func (t *Tree) name(n view.Node) string {
	at := ""
	for deep := 0; n.Parent != 0 && deep < maxDepth; deep++ {
		at = "/" + n.Name + at
		up, err := t.view.Node(context.Background(), n.Parent)
		if err != nil {
			at = "…" + at
			break
		}
		n = up
	}
	return fmt.Sprintf("%q in snapshot %s", cmp.Or(at, "/"), t.view.Snapshot().ID)
}

// maxDepth bounds the way up in a view that leads in a circle.
const maxDepth = 4096

// Xattrs returns the extended attributes of an entry, sorted by name.
func (t *Tree) Xattrs(ctx context.Context, ino uint64) ([]metastore.Xattr, error) {
	return t.view.Xattrs(ctx, ino)
}
