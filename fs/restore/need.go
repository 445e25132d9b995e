package restore

import (
	"context"
	"errors"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// need is a blob that content comes from.
type need struct {
	id     int64
	bytes  int64 // that will be fetched of it
	frames int
	// at once: all of it, or what lies together in one place; else it is nil
	// and the frames are fetched as they come.
	at *blob.Span
}

// all is the place of a whole blob.
var all = &blob.Span{}

// need finds out which blobs are fetched, and how much of each. Below half of
// one, only parts are.
func (r *run) need(ctx context.Context) error {
	var n need
	frame, from, to, apart := int64(-1), int64(0), int64(0), false
	end := func() error {
		if n.frames == 0 {
			return nil
		}
		b, err := r.Tree.Blob(ctx, n.id)
		if err != nil {
			return err
		}
		switch {
		case n.bytes >= b.Size/2 && b.Size <= fs.DownloadMax:
			n.at, n.bytes = all, b.Size
		case !apart && n.bytes <= partsAtOnce:
			n.at = &blob.Span{Offset: from, Length: to - from}
		}
		r.needs = append(r.needs, n)
		return nil
	}
	for u, err := range r.uses.All() {
		if err != nil {
			return err
		}
		if u.blob != n.id {
			if err := errors.Join(end(), ctx.Err()); err != nil {
				return err
			}
			n, frame, from, to, apart = need{id: u.blob}, -1, u.frame, u.frame, false
		}
		if u.frame == frame {
			continue
		}
		if gap := u.frame - to; gap > fs.DownloadGap {
			apart = true
		} else if gap > 0 {
			n.bytes += gap
		}
		n.bytes += int64(u.packed)
		n.frames++
		frame, to = u.frame, u.frame+int64(u.packed)
	}
	return end()
}
