package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// ErrNewest: a writer's newest snapshot and the newest of each set are never
// forgotten. The next run builds on them.
var ErrNewest = errors.New("the newest is never forgotten")

// Tombstones returns an unsigned tombstone for each of these snapshots, in
// their order. It refuses with ErrNewest, with fs.ErrNotExist where there is
// no such snapshot, and with what w.Stopped says: where something of a writer
// is missing or not trusted, nobody can tell what is the newest.
func (w *WriterState) Tombstones(seqs []Seq, now time.Time) ([]Tombstone, error) {
	if err := w.Stopped(); err != nil {
		return nil, fmt.Errorf("writer %q: nothing is forgotten while its chain does not hold: %w", w.Writer, err)
	}
	snapshots := make(map[Seq]Verified, len(w.Snapshots))
	newest := make(map[string]Seq)
	var last Seq
	for _, v := range w.Snapshots {
		m := v.Manifest
		snapshots[m.Seq], newest[m.Set], last = v, m.Seq, m.Seq
	}
	var out []Tombstone
	for _, seq := range seqs {
		v, ok := snapshots[seq]
		switch {
		case !ok:
			return nil, fmt.Errorf("run %d of writer %q: %w", seq, w.Writer, fs.ErrNotExist)
		case seq == last:
			return nil, fmt.Errorf("run %d of writer %q: %w: it is the writer's", seq, w.Writer, ErrNewest)
		case seq == newest[v.Manifest.Set]:
			return nil, fmt.Errorf("run %d of writer %q: %w: it is that of set %q", seq, w.Writer, ErrNewest, v.Manifest.Set)
		}
		out = append(out, NewTombstone(w.Writer, seq, v.Hash, v.Manifest.Previous, now))
	}
	return out, nil
}

// MayForget says whether a tombstone that key signs for run seq would count.
// If not, the error wraps ErrNotTrusted and says what is in the way.
func (s Signers) MayForget(key SigningKey, seq Seq) error {
	previous := new(Hash)
	if seq == 1 {
		previous = nil
	}
	_, err := s.signTombstone(NewTombstone(s.Writer, seq, Hash{}, previous, time.Unix(0, 0)), key)
	return err
}

// signTombstone signs a tombstone and checks it as a reader would.
func (s Signers) signTombstone(t Tombstone, key SigningKey) (object []byte, err error) {
	if object, err = t.Sign(key); err != nil {
		return nil, err
	}
	signed, err := DecodeTombstone(object)
	if err == nil {
		_, err = signed.Verify(s)
	}
	if err == nil {
		return object, nil
	}
	for _, c := range s.Certificates {
		if c.Key.Equal(key.Public()) && c.PurgeMaintainer {
			return nil, fmt.Errorf("%w: the certificate of writer %q (signer %d) says purge=maintainer: only a maintainer's key may forget its snapshots", ErrNotTrusted, s.Writer, c.N)
		}
	}
	return nil, fmt.Errorf("the key %s may not forget run %d of writer %q: %w", key.Public(), t.Seq, s.Writer, err)
}

// Forget signs a tombstone, puts it, and then deletes the manifest that it is
// about, in this order: whoever meets the manifest gone meets the tombstone. A
// tombstone of the same meaning that is there already will do. The manifest's
// signature stays, so that its number stays taken. A crash in between leaves
// the manifest for prune to delete.
//
// Forget does not look at what t is about; Tombstones does. If nobody
// would accept the key's signature, nothing is put: ErrNotTrusted.
func Forget(ctx context.Context, s Store, signers Signers, t Tombstone, key SigningKey) error {
	if err := putTombstone(ctx, s, signers, t, key); err != nil {
		return err
	}
	if err := s.Delete(ctx, ManifestKey(t.Writer, t.Seq)); err != nil {
		return fmt.Errorf("delete %q, whose tombstone is in place (\"vaultik prune\" will delete it): %w", ManifestKey(t.Writer, t.Seq), err)
	}
	return nil
}

func putTombstone(ctx context.Context, s Store, signers Signers, t Tombstone, key SigningKey) error {
	object, err := signers.signTombstone(t, key)
	if err != nil {
		return err
	}
	at := TombstoneKey(t.Writer, t.Seq)
	switch err := s.Put(ctx, at, object); {
	case errors.Is(err, ErrExists):
		there, err := readTombstone(ctx, s, signers, t.Seq)
		if err != nil {
			return fmt.Errorf("%q is taken: %w; whatever put it there, remove it and run this again", at, err)
		}
		if there.Manifest != t.Manifest || !equal(there.Previous, t.Previous) {
			return fmt.Errorf("%w: %q is there already, about another manifest of this run", ErrNotTrusted, at)
		}
	case err != nil:
		return fmt.Errorf("put %q: %w", at, err)
	}
	return nil
}

// ManifestTimes says when the store took each of a writer's manifests, by the
// store's own clock.
func ManifestTimes(ctx context.Context, s Store, writer string) (map[Seq]time.Time, error) {
	times := make(map[Seq]time.Time)
	for info, err := range s.List(ctx, MetadataPrefix(writer)) {
		if err != nil {
			return nil, fmt.Errorf("list %q: %w", MetadataPrefix(writer), err)
		}
		if k, err := ParseKey(info.Key); err == nil && k.Kind == KindManifest && !k.Signature {
			times[k.Seq] = info.Modified
		}
	}
	return times, nil
}
