package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"git.eeqj.de/sneak/vaultik/remote"
)

// What to do about ErrStoreLost and ErrCloned.
const (
	startAnew = "move the config and the state folder away and start a new writer here: " +
		"\"vaultik init --store URL --root KEY --recipient KEY PATH…\", all as that config has them"
	wrongStore = "look whether this is the right store and whether it is complete; if the snapshot is gone for good, " + startAnew
	newWriter  = "if this machine or its state folder was brought back from an old copy, \"vaultik index rebuild --force --identity KIT\" " +
		"brings the index up to date; if it is a copy of another machine that goes on as this writer, or without the recovery kit, " + startAnew
)

// settle brings index and store together before a run: an intent on file is
// sent again and confirmed, what an interrupted run left in the index is
// undone, and an index that is not the one the store knows is refused.
func (w *writer) settle(ctx context.Context) error {
	status, err := w.Index.Status(ctx)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	if status.Writer != w.Writer {
		return fmt.Errorf("the index belongs to writer %q, not to %q", status.Writer, w.Writer)
	}
	switch {
	case status.Intent != nil:
		w.intent = intent{
			seq:      remote.Seq(status.Intent.Seq),
			manifest: status.Intent.Manifest, signature: status.Intent.Signature,
		}
		if err := w.publish(ctx); err != nil {
			return fmt.Errorf("finish the interrupted commit of run %d: %w", status.Intent.Seq, err)
		}
		w.problem(Notice, "", fmt.Errorf("the commit of run %d had been interrupted and is finished now", status.Intent.Seq))
		status.LastSeq, status.LastManifest = status.Intent.Seq, status.Intent.Hash
		w.intent = intent{}
	case status.Interrupted != 0:
		if err := w.Index.Rollback(ctx); err != nil {
			return fmt.Errorf("undo the interrupted run %d: %w", status.Interrupted, err)
		}
	}
	last := remote.Seq(status.LastSeq)
	manifests, err := w.compareSeq(ctx, last)
	if err == nil && manifests == nil {
		err = w.compareNext(ctx, last)
	}
	if err != nil || last == 0 {
		return err
	}
	if err := w.compareManifest(ctx, last, status.LastManifest); err != nil || manifests == nil {
		return err
	}
	return w.learnPurged(ctx, manifests)
}

// compareSeq makes sure that the index's newest run is the store's newest. The
// signature counts for what is taken, the manifest for what is there. It
// returns the manifests that are, nil if the writer may not list them.
func (w *writer) compareSeq(ctx context.Context, last remote.Seq) (manifests map[remote.Seq]bool, err error) {
	var taken, newest remote.Seq
	manifests = map[remote.Seq]bool{}
	for info, err := range w.Store.List(ctx, remote.MetadataPrefix(w.Writer)) {
		if errors.Is(err, remote.ErrDenied) {
			w.unverified("list its objects")
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the writer's snapshots: %w", err)
		}
		key, err := remote.ParseKey(info.Key)
		if err != nil || key.Kind != remote.KindManifest {
			continue // not an object of ours, or only an attempt's
		}
		taken = max(taken, key.Seq)
		if !key.Signature {
			newest = max(newest, key.Seq)
			manifests[key.Seq] = true
		}
	}
	if taken > last {
		return nil, fmt.Errorf("%w: the store holds run %d of writer %q, the index knows nothing after run %d; %s",
			ErrCloned, taken, w.Writer, last, newWriter)
	}
	if newest == last {
		return manifests, nil
	}
	// Put a moment ago, by this process perhaps: a listing may lag behind.
	switch _, err := w.Store.Stat(ctx, remote.ManifestKey(w.Writer, last)); {
	case err == nil:
		manifests[last] = true
		return manifests, nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, remote.ErrDenied):
		return nil, fmt.Errorf("look at the newest manifest: %w", err)
	}
	return nil, fmt.Errorf("%w: the index has committed run %d of writer %q, the newest in the store is %d; "+
		wrongStore, ErrStoreLost, last, w.Writer, newest)
}

// compareNext makes sure that nobody has taken the next run's number. It is all
// that a writer can do who may not list; if it may not look either, the commit
// will tell.
func (w *writer) compareNext(ctx context.Context, last remote.Seq) error {
	key := remote.SignatureKey(remote.ManifestKey(w.Writer, last+1))
	_, err := w.Store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, remote.ErrDenied):
		w.unverified("look at its objects")
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", key, err)
	}
	return fmt.Errorf("%w: the store holds run %d of writer %q, the index knows nothing after run %d; %s",
		ErrCloned, last+1, w.Writer, last, newWriter)
}

// compareManifest makes sure that the newest manifest in the store is the one
// that this index committed: not every store keeps two clones from creating
// the same key.
func (w *writer) compareManifest(ctx context.Context, last remote.Seq, hash remote.Hash) error {
	key := remote.ManifestKey(w.Writer, last)
	object, err := get(ctx, w.Store, key, remote.MaxManifest+1)
	switch {
	case errors.Is(err, remote.ErrDenied):
		w.unverified("read its objects")
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s, the manifest of the index's newest run; "+wrongStore, ErrStoreLost, key)
	case err != nil:
		return fmt.Errorf("read the newest manifest: %w", err)
	case remote.Sum(object) != hash:
		return fmt.Errorf("%w: %s is not what this index committed; %s", ErrCloned, key, newWriter)
	}
	return nil
}

// intent is a commit decided on: these bytes and no others become the
// snapshot.
type intent struct {
	seq                 remote.Seq
	manifest, signature []byte
}

// publish puts the signature and then the manifest. The manifest's arrival is
// the commit; only then does the index count the run.
func (w *writer) publish(ctx context.Context) error {
	key := remote.ManifestKey(w.Writer, w.intent.seq)
	if err := w.putOnce(ctx, remote.SignatureKey(key), w.intent.signature); err != nil {
		return err
	}
	if err := w.putOnce(ctx, key, w.intent.manifest); err != nil {
		return err
	}
	// The snapshot exists now; being told to stop must not leave the index
	// behind the store, though it could catch up.
	if err := w.Index.Confirm(context.WithoutCancel(ctx), int64(w.intent.seq)); err != nil {
		return fmt.Errorf("the snapshot is in the store, but the index could not be told: %w", err)
	}
	return nil
}

// putOnce puts an object whose key decides between two runs with one seq. If
// it is there already with the same bytes, an earlier try's answer was lost.
func (w *writer) putOnce(ctx context.Context, key string, body []byte) error {
	err := w.Store.Put(ctx, key, body)
	if err == nil {
		return nil
	}
	if !errors.Is(err, remote.ErrExists) {
		return fmt.Errorf("put %s: %w", key, err)
	}
	there, err := get(ctx, w.Store, key, int64(len(body))+1)
	switch {
	case errors.Is(err, remote.ErrDenied):
		// May write but not look: with the intent on file, this is ours
		// unless the index was cloned, which a reader's check of the chain
		// brings to light.
		w.unverified("read its objects")
		return nil
	case err != nil:
		return fmt.Errorf("compare %s with what is there: %w", key, err)
	case !bytes.Equal(there, body):
		return fmt.Errorf("%w: %s is there with other content; %s", ErrCloned, key, newWriter)
	}
	return nil
}

// unverified notes, once, that credentials which may only write left the run
// without the comparisons that follow an upload.
func (w *writer) unverified(what string) {
	if w.result.Unverified {
		return
	}
	w.result.Unverified = true
	w.problem(Notice, "", fmt.Errorf("the store's credentials do not let this writer %s: "+
		"a blob that goes missing is not noticed here", what))
}

// get reads an object of at most limit bytes.
func get(ctx context.Context, s remote.Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r, limit))
	return body, errors.Join(err, r.Close())
}

// exists reports whether an object of that size is there.
func (w *writer) exists(ctx context.Context, key string, size int64) (bool, error) {
	info, err := w.Store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, remote.ErrDenied):
		w.unverified("look at its objects")
		return true, nil
	case err != nil:
		return false, err
	}
	return info.Size == size, nil
}
