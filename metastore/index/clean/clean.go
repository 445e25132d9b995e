// Package clean deletes from an index what no snapshot that is kept needs, nor
// the next run, and retires blobs that are mostly dead.
//
//	plan    every table from one end to the other: what is needed
//	sweep   what is not, what refers to rows before the rows themselves
//	retire  blobs of which little is needed
//
// It may stop after any row: nothing that is needed is touched, so nothing has
// to be taken back. What it is asked for, and when, is package index's to say.
package clean

import (
	"cmp"
	"context"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore/index/internal/idset"
	"git.eeqj.de/sneak/vaultik/metastore/internal/sqlite"
)

// Limits bounds what one Run does.
type Limits struct {
	Rows   int64 // delete at most about so many rows
	Retire int64 // bytes of plaintext that may wait to be moved out of retired blobs; 0 retires none
}

// DefaultRows is for Limits.Rows: they take a few seconds.
const DefaultRows = 250_000

// Done says what a Run did.
type Done struct {
	Rows    int64 // deleted
	Retired int   // blobs retired
	Bytes   int64 // of their objects
	Live    int64 // bytes of plaintext in them that are still needed
	More    bool  // there is more to do, for the next Run
}

// Index is an index that nobody else writes meanwhile.
type Index struct {
	DB   *sqlite.Writer
	Path string
	Run  int64 // the newest one

	Files, Contents, Chunks int64 // the last ids given out
}

// Run deletes rows and retires blobs, if the index says that there may be some
// that nothing needs.
func Run(ctx context.Context, x Index, limit Limits) (Done, error) {
	unclean, err := x.DB.Row("SELECT 1 FROM settings WHERE key = 'unclean'", nil, new(int64))
	if err != nil || !unclean {
		return Done{}, err
	}
	c := &cleaning{x: x, limit: limit, runs: map[int64][]int64{}, blobs: map[int64]*usedBlob{}}
	if err := c.plan(ctx); err != nil {
		return Done{}, err
	}
	if err := c.sweep(ctx); err != nil {
		return c.done, err
	}
	if err := c.retire(); err != nil {
		return c.done, err
	}
	if !c.done.More {
		if _, _, err := x.DB.Exec("DELETE FROM settings WHERE key = 'unclean'"); err != nil {
			return c.done, err
		}
	}
	return c.done, x.DB.Commit()
}

// cleaning is a Run at work: first it finds all that is needed, reading every
// table from one end to the other, then it deletes what is left.
type cleaning struct {
	x     Index
	limit Limits
	runs  map[int64][]int64 // kept, by set, in order
	all   []int64           // those of all sets
	blobs map[int64]*usedBlob

	base   idset.Rows // rows of the base dumps
	marked idset.Set  // paths that have marks

	keep  needed
	drop  dropped
	done  Done
	spent bool // nothing more is deleted in this Run
}

// needed are rows that are needed. Those of base dumps are not among them.
type needed struct {
	paths, volumes, contents, chunks idset.Set
	open, openChunks                 idset.Set // contents and chunks of what is open
	held                             idset.Set // chunks in blobs that the index counts on
}

// dropped are rows that are not.
type dropped struct {
	files, attributed, contents, chunks idset.Set
	places                              []place // of chunks in blobs that go
	furtherPlaces                       bool
}

type place struct{ chunk, blob int64 }

// usedBlob is what of a blob is used, in bytes of plaintext.
type usedBlob struct {
	id, seq, size       int64
	live, retired       bool
	total, needed, open int64
}

// use is the part of a cleaning that one reader finds.
type use struct {
	keep  needed
	drop  dropped
	bytes map[int64]*usedBlob // total, needed and open only
}

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
		case !b.live || b.open == 0 || b.seq > c.x.Run:
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
		if _, _, err := c.x.DB.Exec("UPDATE blobs SET retired = ? WHERE id = ?", c.x.Run+1, b.id); err != nil {
			return err
		}
		c.done.Retired++
		c.done.Bytes += b.size
		c.done.Live += b.open
	}
	return nil
}
