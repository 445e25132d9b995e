package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"git.eeqj.de/sneak/vaultik/remote"
)

// MaxMissing is how many missing objects a Plan names.
const MaxMissing = 16

// findMissing looks which objects the retained snapshots need and the listing
// did not show. A stale listing does not show all there is, and a purge may
// have forgotten the snapshot meanwhile, after which another prune took its
// objects away: so the first of them are looked at one by one, and if a
// tombstone came there is nothing to say before the next look.
func (p *Plan) findMissing(ctx context.Context, s remote.Store, w *remote.WriterState, k *keep) error {
	var lost []remote.Key
	for _, kind := range []remote.Kind{remote.KindList, remote.KindDump, remote.KindBlob} {
		set := k.of(kind)
		names := slices.SortedFunc(maps.Keys(set), remote.CompareNames)
		for _, n := range names {
			if set[n]&needed != 0 && set[n]&present == 0 {
				lost = append(lost, remote.Key{Writer: p.Writer, Kind: kind, Seq: n.Seq, Hash: n.SHA256})
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	var missing []string
	for _, key := range lost[:min(len(lost), MaxMissing)] {
		_, err := s.Stat(ctx, key.String())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, key.String())
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, remote.ErrDenied): // no right to look: nothing is known
			return fmt.Errorf("look at %q: %w", key, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// An invalid tombstone would silence this for ever, so those are known too.
	known := make(map[string]bool)
	for _, t := range w.Forgotten {
		known[remote.TombstoneKey(p.Writer, t.Seq)] = true
	}
	for _, err := range w.Problems {
		if problem := (*remote.Problem)(nil); errors.As(err, &problem) {
			known[problem.Key] = true
		}
	}
	prefix := remote.ForgottenPrefix(p.Writer)
	for info, err := range s.List(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		if key, err := remote.ParseKey(info.Key); err == nil && key.Kind == remote.KindTombstone && !known[info.Key] {
			return nil
		}
	}
	p.Missing, p.Lost = missing, int64(len(lost))
	return nil
}
