package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/metastore/view/build"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Open opens the tree of a snapshot that the catalog knows. The first time it
// fetches the snapshot's dump and builds a view of it in the cache folder,
// which takes a while for millions of files; callers that come meanwhile wait
// for the same work, and it goes on when they leave. Close the tree.
func (c *Catalog) Open(ctx context.Context, writer string, seq remote.Seq) (*Tree, error) {
	c.mu.Lock()
	i, ok := slices.BinarySearchFunc(c.snapshots, Snapshot{Writer: writer, Seq: seq}, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Seq, b.Seq))
	})
	var s Snapshot
	if ok {
		s = c.snapshots[i]
	}
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("snapshot %s of writer %q: %w", seq, writer, ErrNoSnapshot)
	}
	return c.OpenSnapshot(ctx, s)
}

// OpenSnapshot opens a snapshot that Snapshots or Resolve returned, even if it
// was forgotten since: its metadata may still be in the cache folder.
func (c *Catalog) OpenSnapshot(ctx context.Context, s Snapshot) (*Tree, error) {
	return c.open.get(ctx, s.Hash, func(ctx context.Context) (*Tree, error) {
		v, err := c.view(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("open snapshot %q: %w", s.ID, err)
		}
		t := NewTree(v, c.chunks)
		t.elsewhere = c.elsewhere(s.Writer)
		return t, nil
	})
}

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

// view opens the cached view of a snapshot, or builds it anew if there is none
// or it is damaged.
func (c *Catalog) view(ctx context.Context, s Snapshot) (*view.View, error) {
	path := c.viewPath(s)
	v, err := view.Open(ctx, path)
	if err == nil {
		now := c.chunks.o.Now()
		_ = os.Chtimes(path, now, now) // only decides which view goes first when there are too many
		return v, nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		if err := os.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return nil, fmt.Errorf("damaged view: %w", err)
		}
	}
	if err := c.build(ctx, s, path); err != nil {
		return nil, err
	}
	if err := c.shed(path); err != nil {
		return nil, err
	}
	return view.Open(ctx, path)
}

// leftover is the age at which a view that is still being built is not: a
// process was killed over it.
const leftover = 24 * time.Hour

// shed removes the views that were opened longest ago while all together are
// too big. One that is open stays readable until it is closed.
func (c *Catalog) shed(keep string) error {
	entries, err := os.ReadDir(c.views)
	if err != nil {
		return fmt.Errorf("cache folder of views: %w", err)
	}
	var views []iofs.FileInfo
	total := int64(0)
	for _, e := range entries {
		i, err := e.Info()
		switch {
		case err != nil: // gone since
		case filepath.Ext(e.Name()) == ".db":
			views = append(views, i)
			total += i.Size()
		case strings.Contains(e.Name(), ".db.tmp-") && c.chunks.o.Now().Sub(i.ModTime()) > leftover:
			_ = os.Remove(filepath.Join(c.views, e.Name())) // the next one tries again
		}
	}
	slices.SortFunc(views, func(a, b iofs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, i := range views {
		if total <= c.o.ViewBytes {
			break
		}
		if i.Name() == filepath.Base(keep) {
			continue
		}
		if err := os.Remove(filepath.Join(c.views, i.Name())); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("cache folder of views: %w", err)
		}
		total -= i.Size()
	}
	return nil
}

// While a part of a dump is loaded, those behind it are fetched: so many at a
// time, and so many bytes together with it.
const (
	partsAhead     = 3
	partsAheadSize = 64 << 20
)

// build fetches the parts of the dump, ahead of the one being loaded, and makes
// a view of them.
func (c *Catalog) build(ctx context.Context, s Snapshot, path string) error {
	g, ctx := errgroup.WithContext(ctx)
	dumps := s.Manifest.Dumps
	parts := make([]build.Part, len(dumps))
	fetched := make([]chan []byte, len(parts))
	next := 0
	// ahead begins with what part i, which is to be loaded now, leaves room for.
	ahead := func(i int) {
		size := int64(0)
		for k := i; k < min(i+1+partsAhead, len(dumps)); k++ {
			if size += dumps[k].Size; k > i && size > partsAheadSize {
				return
			}
			if k < next {
				continue
			}
			d, done := dumps[k], make(chan []byte, 1)
			fetched[k], next = done, k+1
			g.Go(func() error {
				object, err := c.object(ctx, remote.DumpKey(s.Writer, d.Seq, d.SHA256), d.Size, d.SHA256)
				if err == nil {
					done <- object
				}
				return err
			})
		}
	}
	for i, d := range dumps {
		parts[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
			ahead(i)
			select {
			case object := <-fetched[i]:
				return seal.Open(object, c.o.Identities, d.PlainSize)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
	err := build.View(ctx, path, parts, expected(s.Manifest))
	if failed := g.Wait(); failed != nil {
		return failed // it is why build.View failed
	}
	return err
}

// object fetches a whole object and checks it against its signed hash before
// anything looks into it.
func (c *Catalog) object(ctx context.Context, key string, size int64, sum remote.Hash) ([]byte, error) {
	r, err := c.o.Store.Get(ctx, key, 0, size)
	if err != nil {
		return nil, lost(err)
	}
	defer r.Close()
	object := make([]byte, size)
	if _, err := io.ReadFull(r, object); err != nil {
		return nil, fmt.Errorf("get %q: %w", key, lost(err))
	}
	if remote.Sum(object) != sum {
		return nil, fmt.Errorf("%q does not have the bytes that its manifest signs: %w", key, remote.ErrCorrupt)
	}
	return object, nil
}

// Manifest fetches a snapshot's manifest once more, with the lists of blobs that
// a Snapshot leaves out. It is the one whose signature was checked, or an error
// wrapping ErrLost or remote.ErrCorrupt.
func (c *Catalog) Manifest(ctx context.Context, s Snapshot) (*remote.Manifest, error) {
	key := remote.ManifestKey(s.Writer, s.Seq)
	r, err := c.o.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, lost(err)
	}
	object, err := io.ReadAll(io.LimitReader(r, remote.MaxManifest+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("get %q: %w", key, lost(err))
	}
	if remote.Sum(object) != s.Hash {
		return nil, fmt.Errorf("%q is another manifest than the one that was shown: %w", key, remote.ErrCorrupt)
	}
	return remote.DecodeManifest(object)
}

// expected is what the manifest signs about its dump.
func expected(m *remote.Manifest) build.Expected {
	return build.Expected{
		ID: m.Snapshot, Writer: m.Writer, Set: m.Set, Seq: int64(m.Seq),
		Totals: metastore.Totals{
			Files: m.Rows.Files, Bytes: m.Totals.Bytes,
			Volumes: m.Rows.Volumes, Paths: m.Rows.Paths, Xattrs: m.Rows.Xattrs, Contents: m.Rows.Contents,
			FileChunks: m.Rows.FileChunks, Chunks: m.Rows.Chunks, Blobs: m.Rows.Blobs, BlobChunks: m.Rows.BlobChunks,
		},
	}
}
