package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Revival brings a writer's own files back from what the store has of it. It
// holds the lock of the state folder. Every step can be repeated.
type Revival struct {
	Machine

	Where  state.Folders
	URL    stores.URL
	Root   remote.PublicKey // whose certificates count
	ID     *kit.Identity    // that opens the snapshots
	Writer string           // set by OpenRevival

	store     stores.Store
	unlock    func()
	snapshots []fs.Snapshot // retained ones, oldest first
	next      remote.Seq    // the run that follows all those in the store
	there     *index.Status // where the index that is there stands; nil if there is none, or none of use
	unread    error         // why it could not be looked at, though it may be in order
	views     *fs.Catalog
	temp      string                        // of views
	newest    map[string]metastore.Snapshot // of each set, as its metadata describe it
	secret    []byte                        // the chunker's; nil: no snapshot tells it
	secretOf  remote.Seq                    // the run that it is from
	lost      map[remote.Seq]bool           // snapshots whose metadata are
}

// OpenRevival takes the lock of the state folder, opens the store and reads what it
// has of the writer that choose names. It refuses to go on from anything but the
// whole of it.
func OpenRevival(ctx context.Context, r Revival, choose func(remote.Store) (string, error)) (_ *Revival, err error) {
	r.newest, r.lost = map[string]metastore.Snapshot{}, map[remote.Seq]bool{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.unlock, err = state.Lock(r.Where.State); err != nil {
		return nil, err
	}
	store, err := r.URL.Open(ctx, r.Route)
	if err != nil {
		return nil, err
	}
	r.store = store
	if r.Writer, err = choose(r.store); err != nil {
		return nil, err
	}
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	if err := state.MakePrivate(r.Where.Cache); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	// Each view is needed once, and none of those that other commands keep is to
	// go for it.
	if r.temp, err = os.MkdirTemp(r.Where.Cache, "rebuild-"); err != nil {
		return nil, fmt.Errorf("make a folder for views: %w", err)
	}
	r.views, err = fs.NewCatalog(fs.CatalogOptions{
		Store: r.store, StoreID: r.URL.String(), Root: r.Root, Identities: r.ID.Keys, Cache: r.temp, OpenTrees: 1, ViewBytes: 1,
	})
	return &r, err
}

// Close lets go of everything that was opened so far, the lock last.
func (r *Revival) Close() error {
	var errs []error
	if r.views != nil {
		errs = append(errs, r.views.Close())
	}
	if r.temp != "" {
		errs = append(errs, os.RemoveAll(r.temp))
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.unlock != nil {
		r.unlock()
	}
	return errors.Join(errs...)
}

// look reads the writer's manifests.
func (r *Revival) look(ctx context.Context) error {
	seen, err := state.OpenSeen(r.Where.State)
	if err != nil {
		r.UI.Warn("what this store shows cannot be remembered, so that a rollback would go unnoticed: %v", err)
	}
	state, err := remote.ReadWriter(ctx, r.store, r.Root, r.Writer)
	if err != nil {
		return err
	}
	var grave []error
	for _, flaw := range state.Flaws(seen, r.URL.String(), r.Now()) {
		if p := (*remote.Problem)(nil); errors.As(flaw, &p) && !p.Stops {
			r.UI.Warn("%v", flaw)
			continue
		}
		grave = append(grave, flaw)
	}
	if len(grave) > 0 {
		return fmt.Errorf("the store does not show the whole of what writer %q made, so nobody can go on from it as this writer; "+
			"mend that first, or start a new writer: %w", r.Writer, errors.Join(grave...))
	}
	r.next = 1
	for _, v := range state.Snapshots {
		m := v.Manifest
		if err := remote.CheckName(m.Set); err != nil {
			return fmt.Errorf("snapshot %q: its set: %w", m.Snapshot, err)
		}
		started, err := time.Parse(time.RFC3339, m.Started)
		if err != nil {
			return fmt.Errorf("snapshot %q: %w", m.Snapshot, err)
		}
		r.snapshots = append(r.snapshots, fs.Snapshot{Writer: m.Writer, Seq: m.Seq, ID: m.Snapshot, Set: m.Set, Started: started, Hash: v.Hash, Manifest: m})
		r.next = m.Seq + 1
	}
	if len(r.snapshots) > 0 {
		if err := r.ID.Check(r.snapshots[len(r.snapshots)-1]); err != nil {
			return err
		}
	}
	return r.unfinished(ctx)
}

// file is the path of one of the writer's files.
func (r *Revival) file(name string) string { return filepath.Join(r.Where.State, r.Writer, name) }

// open loads a snapshot's metadata. nil: they are lost, which was told.
func (r *Revival) open(ctx context.Context, s fs.Snapshot) (*fs.Tree, error) {
	tree, err := r.views.OpenSnapshot(ctx, s)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, lost := range []error{remote.ErrCorrupt, fs.ErrLost, dump.ErrBad, seal.ErrNoIdentity} {
		if errors.Is(err, lost) {
			r.UI.Warn("the metadata of snapshot %s cannot be had, and are left out: %v", s.ID, err)
			r.lost[s.Seq] = true
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	about := tree.Snapshot()
	r.newest[s.Set] = about
	if s.Seq >= r.secretOf {
		r.secret, r.secretOf = about.Chunking.Secret, s.Seq
	}
	return tree, nil
}

// describe loads the newest snapshot of each set, or the newest that can be
// loaded.
func (r *Revival) describe(ctx context.Context) error {
	for _, s := range slices.Backward(r.snapshots) {
		if _, known := r.newest[s.Set]; known {
			continue
		}
		r.UI.Progress("", "loading the metadata of %s", s.ID)
		tree, err := r.open(ctx, s)
		if err == nil && tree != nil {
			err = tree.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
