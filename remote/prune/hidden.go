package prune

import (
	"context"
	"fmt"

	"git.eeqj.de/sneak/vaultik/remote"
)

// addHidden adds what takes space and is in no listing: garbage below delete
// markers, in a store that keeps versions. An earlier prune, or somebody with
// another tool, left it there. What is hidden and is no garbage stays hidden,
// and is missing as far as readers are concerned.
func (p *Plan) addHidden(ctx context.Context, s remote.Store, w *remote.WriterState, k *keep) error {
	e, err := remote.NewEraser(ctx, s)
	if err != nil || !e.KeepsVersions() {
		return err
	}
	var hidden []listed
	for o, err := range e.Objects(ctx, remote.WriterPrefix(p.Writer)) {
		if err != nil {
			return fmt.Errorf("list the versions of writer %q: %w", p.Writer, err)
		}
		key, err := remote.ParseKey(o.Key)
		if err != nil || !o.Hidden {
			continue
		}
		if !key.Hash.IsZero() {
			if _, kept := k.of(key.Kind)[remote.Name{Seq: key.Seq, SHA256: key.Hash}]; kept {
				continue
			}
		}
		key.Writer = p.Writer
		hidden = append(hidden, listed{key, o.Size})
	}
	stays := p.Stays
	p.sort(hidden, w, k)
	p.Stays = stays // none of it shows
	return nil
}
