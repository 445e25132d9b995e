package retention

import (
	"fmt"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Of is what Apply needs to know of a writer's snapshots. stored is what
// remote.ManifestTimes returns; nil if nobody asks for MinAge.
func Of(w *remote.WriterState, stored map[remote.Seq]time.Time) ([]Snapshot, error) {
	chain := make([]Snapshot, 0, len(w.Snapshots))
	for _, v := range w.Snapshots {
		m := v.Manifest
		finished, err := time.Parse(time.RFC3339, m.Finished)
		if err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", m.Snapshot, err)
		}
		chain = append(chain, Snapshot{
			ID: m.Snapshot, Set: m.Set, Seq: m.Seq, Finished: finished, Stored: stored[m.Seq], Tags: m.Tags, Hash: v.Hash,
		})
	}
	return chain, nil
}
