package view

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// read runs a query for one page. The query is not told about ctx: one that
// can be cancelled costs a goroutine and takes longer than the query.
func (v *View) read(ctx context.Context, s *sql.Stmt, args ...any) (p layout.Page, found bool, err error) {
	if err := ctx.Err(); err != nil {
		return layout.Page{}, false, err
	}
	var first, dir int64
	var data []byte
	switch err := s.QueryRow(args...).Scan(&first, &dir, &data); {
	case errors.Is(err, sql.ErrNoRows):
		return layout.Page{}, false, nil
	case err != nil:
		return layout.Page{}, false, err
	}
	if p, err = layout.OpenPage(uint64(first), uint64(dir), data); err != nil {
		return layout.Page{}, false, err
	}
	v.recent.put(p)
	return p, true, nil
}

// pageOf returns the page with a slot.
func (v *View) pageOf(ctx context.Context, slot uint64) (p layout.Page, found bool, err error) {
	if slot == 0 || slot > math.MaxInt64 {
		return layout.Page{}, false, nil
	}
	if p, found := v.recent.get(slot); found {
		return p, true, ctx.Err()
	}
	p, found, err = v.read(ctx, v.node, int64(slot))
	return p, found && p.Has(slot), err
}

// Node returns the entry with an inode number, fs.ErrNotExist if there is
// none. Of hard links it is the first in the order of listings.
func (v *View) Node(ctx context.Context, ino uint64) (n Node, err error) {
	p, found, err := v.pageOf(ctx, ino)
	if err == nil && found {
		err = nodeOf(&p, int(ino-p.First), &n)
	}
	if err != nil {
		return Node{}, v.fail(fmt.Sprintf("look up inode %d", ino), err)
	}
	if !found || n.Ino != ino {
		return Node{}, fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return n, nil
}

// Lookup returns the entry called name of a directory. It fails with
// fs.ErrNotExist if there is none and with ErrNotDirectory.
func (v *View) Lookup(ctx context.Context, dir uint64, name string) (Node, error) {
	if dir == 0 || dir > math.MaxInt64 {
		return Node{}, fmt.Errorf("inode %d: %w", dir, fs.ErrNotExist)
	}
	n, found, err := v.lookup(ctx, dir, name)
	if err == nil && !found {
		if err = v.directory(ctx, dir); err == nil {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return Node{}, v.fail(fmt.Sprintf("look up %q in directory %d", name, dir), err)
	}
	return n, nil
}

func (v *View) lookup(ctx context.Context, dir uint64, name string) (n Node, found bool, err error) {
	// The page that would have a directory of that name has everything else
	// too, unless it begins behind where that would be.
	p, some, err := v.read(ctx, v.find, int64(dir), layout.SortKey(true, name))
	if err != nil || !some {
		return Node{}, false, err
	}
	found, err = lookupIn(&p, name, &n)
	if err != nil || found || p.Reaches(name) {
		return n, found, err
	}
	p, some, err = v.read(ctx, v.find, int64(dir), layout.SortKey(false, name))
	if err == nil && some {
		found, err = lookupIn(&p, name, &n)
	}
	return n, found, err
}

// directory makes sure that an inode number is a directory's.
func (v *View) directory(ctx context.Context, ino uint64) error {
	n, err := v.Node(ctx, ino)
	if err == nil && n.Type != metastore.Directory {
		err = fmt.Errorf("%q: %w", n.Name, ErrNotDirectory)
	}
	return err
}

// ReadDir returns up to n entries of a directory that follow cookie in listing
// order: everything that is not a directory, then the directories, each in
// byte order of the names. Cookie 0 is the start. No entries and no error mean
// the end. It may return fewer than n before the end. A State unreadable
// directory is empty; whoever shows that as such would be lying.
func (v *View) ReadDir(ctx context.Context, dir, cookie uint64, n int) ([]Node, error) {
	var p layout.Page
	var found bool
	var err error
	if cookie == 0 {
		if dir == 0 || dir > math.MaxInt64 {
			return nil, fmt.Errorf("inode %d: %w", dir, fs.ErrNotExist)
		}
		p, found, err = v.read(ctx, v.list, int64(dir))
	} else {
		p, found, err = v.pageOf(ctx, cookie+1)
	}
	if err != nil {
		return nil, v.fail(fmt.Sprintf("read directory %d", dir), err)
	}
	if !found || p.Dir != dir {
		if cookie == 0 {
			return nil, v.directory(ctx, dir)
		}
		return nil, nil // behind the last entry
	}
	start := 0
	if cookie != 0 {
		start = int(cookie + 1 - p.First)
	}
	nodes := make([]Node, max(0, min(n, p.Count-start)))
	for i := range nodes {
		if i > 0 {
			// The same owner, most likely.
			nodes[i].User, nodes[i].Group = nodes[i-1].User, nodes[i-1].Group
		}
		if err := nodeOf(&p, start+i, &nodes[i]); err != nil {
			return nil, v.fail(fmt.Sprintf("read directory %d", dir), err)
		}
	}
	return nodes, nil
}

// After returns the entries behind a slot, which a Node's Cookie is, up to n of
// them and whatever directories they are in: everything in the order in which
// whoever copies the whole tree comes to it. No entries and no error mean that
// there are none; it may return fewer than n before that.
func (v *View) After(ctx context.Context, slot uint64, n int) ([]Node, error) {
	p, found, err := v.pageOf(ctx, slot+1)
	if err != nil || !found {
		return nil, v.fail(fmt.Sprintf("read behind entry %d", slot), err)
	}
	start := int(slot + 1 - p.First)
	nodes := make([]Node, max(0, min(n, p.Count-start)))
	for i := range nodes {
		if err := nodeOf(&p, start+i, &nodes[i]); err != nil {
			return nil, v.fail(fmt.Sprintf("read behind entry %d", slot), err)
		}
	}
	return nodes, nil
}

// Xattrs returns the extended attributes of an entry, sorted by name.
func (v *View) Xattrs(ctx context.Context, ino uint64) ([]metastore.Xattr, error) {
	n, err := v.Node(ctx, ino)
	if err != nil || !n.HasXattrs {
		return nil, err
	}
	return v.XattrsOf(ctx, &n)
}

// XattrsOf is Xattrs for an entry at hand, which of hard links may be any.
func (v *View) XattrsOf(ctx context.Context, n *Node) ([]metastore.Xattr, error) {
	rows, err := v.attributes.Query(n.row)
	if err != nil {
		return nil, v.fail(fmt.Sprintf("read the extended attributes of %q", n.Name), err)
	}
	var xattrs []metastore.Xattr
	err = sqlite.EachRow(ctx, rows, func(scan func(...any) error) error {
		var x metastore.Xattr
		err := scan(&x.Name, &x.Value)
		xattrs = append(xattrs, x)
		return err
	})
	return xattrs, v.fail(fmt.Sprintf("read the extended attributes of %q", n.Name), err)
}

// blobInfo looks a blob up, which for most files is the last file's again.
func (v *View) blobInfo(id int64) (b BlobInfo, err error) {
	if b, known := v.blobs.get(id); known {
		return b, nil
	}
	var hash []byte
	if err := v.blob.QueryRow(id).Scan(&hash, &b.Seq, &b.Size, &b.Header); err != nil {
		return BlobInfo{}, err
	}
	copy(b.Hash[:], hash)
	v.blobs.put(id, b)
	return b, nil
}

// knownBlobs remembers blobs that were looked up, 16,384 of them: 2 MB.
type knownBlobs struct {
	mu    sync.Mutex
	blobs map[int64]BlobInfo
}

func (k *knownBlobs) get(id int64) (BlobInfo, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, known := k.blobs[id]
	return b, known
}

func (k *knownBlobs) put(id int64, b BlobInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.blobs == nil || len(k.blobs) >= 16384 {
		k.blobs = make(map[int64]BlobInfo)
	}
	k.blobs[id] = b
}

// recentPages remembers the pages read last, about a megabyte. Whoever copies
// files out asks for one entry after the other.
type recentPages struct {
	mu    sync.Mutex
	pages [16]layout.Page
	next  int // to be replaced
}

func (r *recentPages) get(slot uint64) (layout.Page, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pages {
		if r.pages[i].Has(slot) {
			return r.pages[i], true
		}
	}
	return layout.Page{}, false
}

func (r *recentPages) put(p layout.Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pages {
		if r.pages[i].First == p.First {
			return
		}
	}
	r.pages[r.next] = p
	r.next = (r.next + 1) % len(r.pages)
}
