package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// revival brings a writer's own files back from what the store has of it. It
// holds the lock of the state folder. Every step can be repeated.
type revival struct {
	app    *app
	where  folders
	url    storeURL
	store  openedStore
	root   remote.PublicKey
	id     *identity
	writer string
	unlock func()

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

// sources says from how many snapshots an index was made.
func (r *revival) sources(made index.Rebuilt) string {
	text := plural(made.Runs, "snapshot", "snapshots")
	if len(r.lost) > 0 {
		text += fmt.Sprintf(", %d of which without their metadata", len(r.lost))
	}
	return text
}

// openRevival opens the store and reads what it has of the writer that choose
// names. It refuses to go on from anything but the whole of it.
func (a *app) openRevival(ctx context.Context, r revival, choose func(remote.Store) (string, error)) (_ *revival, err error) {
	r.app, r.newest, r.lost = a, map[string]metastore.Snapshot{}, map[remote.Seq]bool{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.unlock, err = lock(r.where.state); err != nil {
		return nil, err
	}
	store, err := r.url.open(ctx, a.route())
	if err != nil {
		return nil, err
	}
	r.store = store
	if r.writer, err = choose(r.store); err != nil {
		return nil, err
	}
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	if err := private(r.where.cache); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	// Each view is needed once, and none of those that other commands keep is to
	// go for it.
	if r.temp, err = os.MkdirTemp(r.where.cache, "rebuild-"); err != nil {
		return nil, fmt.Errorf("make a folder for views: %w", err)
	}
	r.views, err = fs.NewCatalog(fs.CatalogOptions{
		Store: r.store, StoreID: r.url.String(), Root: r.root, Identities: r.id.keys, Cache: r.temp, OpenTrees: 1, ViewBytes: 1,
	})
	return &r, err
}

// close lets go of everything that was opened so far, the lock last.
func (r *revival) close() error {
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
func (r *revival) look(ctx context.Context) error {
	seen, err := openSeen(r.where.state)
	if err != nil {
		r.app.ui.warn("what this store shows cannot be remembered, so that a rollback would go unnoticed: %v", err)
	}
	state, err := remote.ReadWriter(ctx, r.store, r.root, r.writer)
	if err != nil {
		return err
	}
	var grave []error
	for _, flaw := range state.Flaws(seen, r.url.String(), r.app.now()) {
		if p := (*remote.Problem)(nil); errors.As(flaw, &p) && !p.Stops {
			r.app.ui.warn("%v", flaw)
			continue
		}
		grave = append(grave, flaw)
	}
	if len(grave) > 0 {
		return fmt.Errorf("the store does not show the whole of what writer %q made, so nobody can go on from it as this writer; "+
			"mend that first, or start a new writer: %w", r.writer, errors.Join(grave...))
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
		if err := r.id.check(r.snapshots[len(r.snapshots)-1]); err != nil {
			return err
		}
	}
	return r.unfinished(ctx)
}

// file is the path of one of the writer's files.
func (r *revival) file(name string) string { return filepath.Join(r.where.state, r.writer, name) }

// open loads a snapshot's metadata. nil: they are lost, which was told.
func (r *revival) open(ctx context.Context, s fs.Snapshot) (*fs.Tree, error) {
	tree, err := r.views.OpenSnapshot(ctx, s)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, lost := range []error{remote.ErrCorrupt, fs.ErrLost, dump.ErrBad, seal.ErrNoIdentity} {
		if errors.Is(err, lost) {
			r.app.ui.warn("the metadata of snapshot %s cannot be had, and are left out: %v", s.ID, err)
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
func (r *revival) describe(ctx context.Context) error {
	for _, s := range slices.Backward(r.snapshots) {
		if _, known := r.newest[s.Set]; known {
			continue
		}
		r.app.ui.progress("", "loading the metadata of %s", s.ID)
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

// index makes the index anew, and moves away what is in its place.
func (r *revival) index(ctx context.Context) (made index.Rebuilt, err error) {
	if err := private(filepath.Dir(r.file(indexFile))); err != nil {
		return made, fmt.Errorf("make the writer's folder: %w", err)
	}
	b, err := index.Rebuild(ctx, r.file(indexFile), r.writer, index.Options{})
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for i, s := range r.snapshots {
		r.app.ui.progress("", "snapshot %d of %d: loading the metadata of %s", i+1, len(r.snapshots), s.ID)
		if err := r.add(ctx, b, s); err != nil {
			return made, err
		}
	}
	live, lists, err := r.counted(ctx)
	if err != nil {
		return made, err
	}
	if err := r.moveAway(indexFile); err != nil {
		return made, err
	}
	return b.Finish(ctx, live, lists)
}

func (r *revival) add(ctx context.Context, b *index.Rebuilding, s fs.Snapshot) (err error) {
	tree, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	var shown *view.View
	if tree != nil {
		defer func() { err = errors.Join(err, tree.Close()) }()
		shown = tree.View()
	}
	return b.Add(ctx, index.Past{
		Seq: int64(s.Seq), Set: s.Set, SnapshotID: s.ID, Started: metastore.TimeOf(s.Started), Hash: s.Hash,
	}, shown)
}

// counted returns the blobs that the newest manifest refers to or pins, and
// what the index keeps of its lists.
func (r *revival) counted(ctx context.Context) (live []metastore.BlobRef, lists []byte, err error) {
	if len(r.snapshots) == 0 {
		return nil, nil, nil
	}
	m := r.snapshots[len(r.snapshots)-1].Manifest
	for _, l := range []remote.ObjectList{m.Blobs, m.Pins} {
		objects, err := l.Resolve(func(ref remote.ListRef) ([]remote.Object, error) {
			return remote.FetchList(ctx, r.store, r.writer, ref)
		})
		if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, remote.ErrCorrupt) {
			r.app.ui.warn("which blobs the next run may count on cannot be had, so that it uploads their contents again: %v", err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, o := range objects {
			live = append(live, metastore.BlobRef{Seq: int64(o.Seq), Hash: o.SHA256, Size: o.Size})
		}
	}
	lists, err = backup.KeptLists(m)
	return live, lists, err
}

// moveAway renames one of the writer's files, if it is there, and what SQLite
// keeps beside it: nothing that might still be of use is deleted.
func (r *revival) moveAway(name string) error {
	path := r.file(name)
	if _, err := os.Lstat(path); errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	base := path + ".replaced-" + r.app.now().UTC().Format("20060102-150405Z")
	to := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, iofs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = fmt.Sprintf("%s-%d", base, n)
	}
	for _, beside := range []string{"", "-wal", "-shm", "-journal"} {
		if err := ignoreMissing(os.Rename(path+beside, to+beside)); err != nil {
			return err
		}
	}
	r.app.ui.note("what was there is kept as %s", quote(to))
	return nil
}
