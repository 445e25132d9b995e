package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Defaults of CatalogOptions.
const (
	DefaultOpenTrees = 32
	DefaultViewBytes = 8 << 30
)

// CatalogOptions says which store to read, whom to trust and where to keep
// views. Store, Root and Cache are needed, the rest may be zero.
type CatalogOptions struct {
	Store      remote.Store
	StoreID    string // what Seen calls this store
	Root       remote.PublicKey
	Identities []age.Identity // needed by Open only
	Cache      string         // folder of views; made if missing, 0700
	Seen       *remote.Seen   // remembers the newest manifests; nil: no rollback is noticed

	OpenTrees int   // views kept open though nobody uses them
	ViewBytes int64 // size of all views on disk above which the oldest go
	Chunks    ChunkOptions
}

// Snapshot is one verified snapshot of the store.
type Snapshot struct {
	Writer            string
	Seq               remote.Seq
	ID, Set           string
	Started, Finished time.Time // as the writer claims
	Hash              remote.Hash
	Manifest          *remote.Manifest // without Blobs, Pins and PinnedDumps
}

// Catalog knows the verified snapshots of a store and opens their trees. What
// is not trusted is left out and told as a problem. Make one with NewCatalog,
// then Refresh. It is safe for concurrent use.
type Catalog struct {
	o      CatalogOptions
	chunks *Chunks
	views  string

	refreshing sync.Mutex // one Refresh at a time

	mu        sync.Mutex
	writers   map[string]writerSnapshots
	snapshots []Snapshot            // by writer, then seq
	newest    map[string][]Snapshot // of each set, by writer
	problems  []error
	others    map[string]*elsewhere // by writer

	open treeSet
}

// writerSnapshots is what the last successful look at a writer found. listing
// stands for the keys it was made from: as long as they are the same there is
// nothing to read again, because no object is ever overwritten.
type writerSnapshots struct {
	listing   listingSum
	snapshots []Snapshot
	problems  []error
}

// NewCatalog makes the cache folder and knows no snapshot yet.
func NewCatalog(o CatalogOptions) (*Catalog, error) {
	if o.OpenTrees <= 0 {
		o.OpenTrees = DefaultOpenTrees
	}
	if o.ViewBytes <= 0 {
		o.ViewBytes = DefaultViewBytes
	}
	views := filepath.Join(o.Cache, "views")
	if err := os.MkdirAll(views, 0o700); err != nil {
		return nil, fmt.Errorf("cache folder of views: %w", err)
	}
	// The views hold every file name of the snapshots in clear.
	if err := os.Chmod(views, 0o700); err != nil {
		return nil, fmt.Errorf("cache folder of views: %w", err)
	}
	c := &Catalog{o: o, views: views, chunks: NewChunks(o.Store, o.Identities, o.Chunks),
		writers: make(map[string]writerSnapshots), others: make(map[string]*elsewhere)}
	c.open.init(o.OpenTrees)
	return c, nil
}

// Store is what the catalog reads from.
func (c *Catalog) Store() remote.Store { return c.o.Store }

// Identities are what it decrypts with.
func (c *Catalog) Identities() []age.Identity { return c.o.Identities }

// Close closes all trees, also those still in use, and ends their fetches.
func (c *Catalog) Close() error {
	return errors.Join(c.open.close(), c.chunks.Close())
}

// Snapshots returns the verified snapshots, ordered by writer and seq.
func (c *Catalog) Snapshots() []Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.snapshots)
}

// Problems returns what is wrong with the store as far as the last Refresh
// saw: writers that are not certified, each a *remote.Uncertified; snapshots
// that are not trusted, corrupt or of an unknown format, gaps in a chain, and
// a store that shows less than it did before.
func (c *Catalog) Problems() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

// Writers returns the names of all writers that the last Refresh looked at,
// sorted, whether they have snapshots or not.
func (c *Catalog) Writers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.writers))
}

// Refresh looks for new and for forgotten snapshots, and reports whether
// Snapshots or Problems changed. Where nothing changed it costs a few listings
// a writer. If it fails for a writer, that writer's snapshots stay as they
// were. A store that has lost all of its writers is a remote.ErrNoStore.
func (c *Catalog) Refresh(ctx context.Context) (changed bool, err error) {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	c.mu.Lock()
	known := c.writers
	c.mu.Unlock()
	// A writer that vanished as a whole is looked at as well: Seen may know it.
	names, err := remote.WritersToRead(ctx, c.o.Store, c.o.Seen, c.o.StoreID, slices.Collect(maps.Keys(known))...)
	if err != nil {
		return false, err
	}

	found := make([]writerSnapshots, len(names))
	failed := make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(4) // each of them fetches in parallel as well
	for i, name := range names {
		g.Go(func() error {
			found[i], failed[i] = c.look(ctx, name, known[name])
			return nil
		})
	}
	_ = g.Wait() // errors are in failed

	writers := make(map[string]writerSnapshots, len(names))
	for i, name := range names {
		if failed[i] != nil {
			failed[i] = fmt.Errorf("writer %q: %w", name, failed[i])
		}
		writers[name] = found[i]
	}
	err = errors.Join(failed...)
	for name, w := range writers {
		if old, ok := known[name]; !ok || old.listing != w.listing || !slices.EqualFunc(old.problems, w.problems, sameText) {
			changed = true
		}
	}
	if changed {
		c.adopt(writers)
	}
	return changed, err
}

func sameText(a, b error) bool { return a.Error() == b.Error() }

func (c *Catalog) adopt(writers map[string]writerSnapshots) {
	var snapshots []Snapshot
	var problems []error
	for _, w := range writers {
		snapshots = append(snapshots, w.snapshots...)
		problems = append(problems, w.problems...)
	}
	slices.SortFunc(snapshots, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Seq, b.Seq))
	})
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writers, c.snapshots, c.newest, c.problems = writers, snapshots, newestOfSets(snapshots), problems
}

// look reads one writer if its listing differs from what is known.
func (c *Catalog) look(ctx context.Context, writer string, known writerSnapshots) (writerSnapshots, error) {
	// The first time it is read in any case, which lists the same.
	listing := newListings(c.o.Store, writer)
	if known.listing != (listingSum{}) {
		sum, err := listing.sum(ctx)
		if err != nil || sum == known.listing {
			return known, err
		}
		listing = newListings(c.o.Store, writer)
	}
	state, err := remote.ReadChain(ctx, listing, c.o.Root, writer)
	if err != nil {
		return known, err
	}
	w := writerSnapshots{problems: state.Flaws(c.o.Seen, c.o.StoreID, c.chunks.o.Now())}
	if w.listing, err = listing.sum(ctx); err != nil {
		return known, err
	}
	for _, p := range w.problems {
		if errors.Is(p, remote.ErrUnreadable) || errors.Is(p, remote.ErrDenied) {
			w.listing = listingSum{} // it may come out next time
		}
	}
	for _, v := range state.Snapshots {
		s, err := snapshotOf(v)
		if err != nil {
			w.problems = append(w.problems, err)
			continue
		}
		w.snapshots = append(w.snapshots, s)
	}
	return w, nil
}

func snapshotOf(v remote.Verified) (Snapshot, error) {
	m := v.Manifest
	s := Snapshot{Writer: m.Writer, Seq: m.Seq, ID: m.Snapshot, Set: m.Set, Hash: v.Hash, Manifest: m}
	// The names become folder names in a mount, whoever signed them.
	if err := errors.Join(remote.CheckName(m.Set), checkID(m.Snapshot)); err != nil {
		return s, fmt.Errorf("snapshot %s of writer %q is left out: %w", m.Seq, m.Writer, err)
	}
	var err error
	if s.Started, err = time.Parse(time.RFC3339, m.Started); err != nil {
		return s, fmt.Errorf("snapshot %q is left out: its start time: %w", m.Snapshot, err)
	}
	if s.Finished, err = time.Parse(time.RFC3339, m.Finished); err != nil {
		return s, fmt.Errorf("snapshot %q is left out: its finish time: %w", m.Snapshot, err)
	}
	return s, nil
}
