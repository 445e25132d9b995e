package backup

import (
	"context"
	"iter"

	"git.eeqj.de/sneak/vaultik/remote"
)

// hiding is a store whose listings do not show one object.
type hiding struct {
	remote.Store
	key string
	hid int
}

func (h *hiding) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		for info, err := range h.Store.List(ctx, prefix) {
			if info.Key == h.key {
				h.hid++
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}
