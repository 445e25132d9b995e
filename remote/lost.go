package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"
)

// Lost returns unsigned tombstones for the runs from … to of a writer whose
// manifests are missing, so that the chain leads over the gap. Bury puts
// them. Runs that were forgotten are
// left out; if all of them were, there is nothing to do.
//
// Where a manifest is gone its hash is known from the run that follows, which
// names it. Of several in a row that is so for the last one only. The others
// are given LostHash in its place: hashes that no manifest has, but which link
// one tombstone to the next. So the gap hangs by true hashes at both ends, and
// should one of these manifests turn up again, its tombstone is not about it
// and does not count.
//
// It refuses where a manifest is there, whatever it looks like, and where no
// newer run is known: what is missing at the end was taken away, and no
// tombstone may hide that. Errors wrap ErrMissing or ErrExists.
func (w *WriterState) Lost(from, to Seq, now time.Time) ([]Tombstone, error) {
	if from < 1 || from > to || to > MaxSeq {
		return nil, fmt.Errorf("runs %d to %d: runs are numbered from 1 on", uint64(from), uint64(to))
	}
	if to-from >= maxLost {
		return nil, fmt.Errorf("runs %d to %d: %d at most can be declared lost at once; no machine makes so many, "+
			"so look first whether somebody signed a run with a number that is none of the machine's, and revoke his key", uint64(from), uint64(to), maxLost)
	}
	known := w.links()
	var newest Seq
	for seq := range known {
		newest = max(newest, seq)
	}
	if to >= newest {
		return nil, fmt.Errorf("%w: nothing newer than run %d of writer %q is known, only that would tell what was there; "+
			"a store that lost its newest runs was rolled back: bring them back from a copy of the store, or begin a new writer on that machine",
			ErrMissing, max(newest, 1), w.Writer)
	}
	if err := w.neighbours(known, from, to); err != nil {
		return nil, err
	}
	var out []Tombstone
	for seq := to; seq >= from; seq-- {
		if _, ok := known[seq]; ok {
			continue // forgotten
		}
		hash := *known[seq+1].previous // only run 1 has none
		var previous *Hash
		if seq > 1 {
			h := LostHash(w.Writer, seq-1)
			if before, ok := known[seq-1]; ok {
				h = before.hash
			}
			previous = &h
		}
		known[seq] = link{hash, previous}
		out = append(out, NewTombstone(w.Writer, seq, hash, previous, now))
	}
	return out, nil
}

// Bury signs and puts what Lost returned. Before the first one is put, each
// manifest is looked for by its name: a listing that leaves out what is there
// must not make it count as lost. Nor does one that was only deleted in a store
// that keeps versions: prune would take the last of it. It deletes nothing.
func Bury(ctx context.Context, s Store, signers Signers, lost []Tombstone, key SigningKey) error {
	for _, t := range lost {
		at := ManifestKey(t.Writer, t.Seq)
		_, err := s.Stat(ctx, at)
		if err == nil {
			return fmt.Errorf("%w: %q is there, though the store's listing leaves it out; nothing was done", ErrExists, at)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for %q: %w", at, err)
		}
		if id, err := coveredVersion(ctx, s, at); err != nil {
			return err
		} else if id != "" {
			return fmt.Errorf("%w: %q was deleted, but the store has kept it as version %q; nothing was done: remove the delete marker that covers it, "+
				"and it is there again; or delete the version too, if it is to be forgotten", ErrExists, at, id)
		}
	}
	for _, t := range lost {
		if err := putTombstone(ctx, s, signers, t, key); err != nil {
			return err
		}
	}
	return nil
}

// coveredVersion returns the newest version of an object below its delete
// marker, "" if there is none or these credentials may not look.
func coveredVersion(ctx context.Context, s Store, key string) (id string, err error) {
	v, ok := AsVersioned(s)
	if !ok {
		return "", nil
	}
	keeps, err := v.KeepsVersions(ctx)
	if errors.Is(err, ErrDenied) || err == nil && !keeps {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask whether the store keeps versions: %w", err)
	}
	for version, err := range v.Versions(ctx, key) {
		switch {
		case errors.Is(err, ErrDenied):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("look for versions of %q: %w", key, err)
		case version.Key == key && !version.Marker:
			return version.ID, nil
		}
	}
	return "", nil
}

// LostHash stands in for the hash of a manifest that nobody knows any more: it
// is the SHA-256 of "vaultik lost manifest <writer> <seq>" and a newline, seq
// with ten digits, so that everybody who closes a gap says the same.
func LostHash(writer string, seq Seq) Hash {
	return Sum(fmt.Appendf(nil, "vaultik lost manifest %s %s\n", writer, seq))
}

// maxLost is how many runs can be declared lost at once.
const maxLost = 100_000

// link is what is known of a run in the chain.
type link struct {
	hash     Hash
	previous *Hash
}

func (w *WriterState) links() map[Seq]link {
	known := make(map[Seq]link, len(w.Snapshots)+len(w.Forgotten)+len(w.unvouched))
	maps.Copy(known, w.unvouched) // whoever says what is lost vouches for what is not
	for _, v := range w.Snapshots {
		known[v.Manifest.Seq] = link{v.Hash, v.Manifest.Previous}
	}
	for _, t := range w.Forgotten {
		known[t.Seq] = link{t.Manifest, t.Previous}
	}
	return known
}

// neighbours refuses what is there, and gaps that were not named as a whole.
func (w *WriterState) neighbours(known map[Seq]link, from, to Seq) error {
	for _, v := range w.Snapshots {
		if m := v.Manifest; m.Seq >= from && m.Seq <= to {
			return fmt.Errorf("%w: the manifest of run %d of writer %q is there and holds; \"vaultik snapshot purge %s\" forgets it", ErrExists, m.Seq, w.Writer, m.Snapshot)
		}
	}
	for _, err := range w.Problems {
		p := (*Problem)(nil)
		if !errors.As(err, &p) || errors.Is(p, ErrMissing) {
			continue
		}
		if k, bad := ParseKey(p.Key); bad == nil && k.Kind == KindManifest && k.Seq >= from && k.Seq <= to {
			return fmt.Errorf("%w: the manifest of run %d of writer %q is there, though it does not hold; bring it back from a copy of the store, "+
				"or, if there is none, delete that object and run this again: %w", ErrExists, k.Seq, w.Writer, err)
		}
	}
	first, last := Seq(1), MaxSeq
	for seq := range known { // a newer one is
		if seq < from {
			first = max(first, seq+1)
		}
		if seq > to {
			last = min(last, seq-1)
		}
	}
	if first < from && !has(known, from) || last > to && !has(known, to) {
		return fmt.Errorf("%w: more runs are missing in one gap; if all of them are lost, name the whole gap: --missing %d-%d", ErrMissing, uint64(first), uint64(last))
	}
	return nil
}

func has(known map[Seq]link, seq Seq) bool { _, ok := known[seq]; return ok }
