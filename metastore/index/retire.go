package index

import (
	"cmp"
	"slices"
)

// retireBelow: a blob is retired when less than one part in so many of it is
// needed.
const retireBelow = 4

// retire retires blobs, those first of which the least is needed. Blobs that
// hold nothing open are let alone: the next commit does not name them. So are
// those of a run that was not committed, whose files are not recorded yet.
func (c *cleaning) retire() error {
	if c.limit.Retire <= 0 {
		return nil
	}
	var candidates []*usedBlob
	budget := c.limit.Retire
	for _, b := range c.blobs {
		switch {
		case !b.live || b.open == 0 || b.seq > c.last:
		case b.retired:
			budget -= b.open
		case b.needed < (b.total+retireBelow-1)/retireBelow:
			candidates = append(candidates, b)
		}
	}
	share := func(b *usedBlob) float64 { return float64(b.needed) / float64(b.total) }
	slices.SortFunc(candidates, func(a, b *usedBlob) int {
		return cmp.Or(cmp.Compare(share(a), share(b)), cmp.Compare(a.id, b.id))
	})
	for _, b := range candidates {
		idle := budget == c.limit.Retire // then one is retired however large it is
		if budget -= b.open; budget < 0 && !idle {
			c.done.More = true
			return nil
		}
		if _, _, err := c.x.db.Exec("UPDATE blobs SET retired = ? WHERE id = ?", c.last+1, b.id); err != nil {
			return err
		}
		c.done.Retired++
		c.done.Bytes += b.size
		c.done.Live += b.open
	}
	return nil
}
