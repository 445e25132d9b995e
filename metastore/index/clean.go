package index

import (
	"context"
	"errors"
)

// Cleaning bounds what one [Index.Clean] does.
type Cleaning struct {
	Rows   int64 // delete at most about so many rows
	Retire int64 // bytes of plaintext that may wait to be moved out of retired blobs; 0 retires none
}

// DefaultRows is for Cleaning.Rows: they take a few seconds.
const DefaultRows = 250_000

// Cleaned says what a Clean did.
type Cleaned struct {
	Rows    int64 // deleted
	Retired int   // blobs retired
	Bytes   int64 // of their objects
	Live    int64 // bytes of plaintext in them that are still needed
	More    bool  // there is more to do, for the next Clean
}

// Clean deletes rows that neither a snapshot that is kept, nor what is open, nor
// a base dump needs, and retires blobs that are mostly dead: those of which less
// than a quarter is needed by a snapshot that is kept or by what is open. A
// retired blob is counted on as before, but its chunks count as not stored, and
// [Run.Moves] names those that are to be uploaded again.
//
// It looks at every row, but only after a Forget, until nothing is left to do;
// otherwise it does nothing. A crash takes nothing back and leaves nothing
// half done: what is deleted was needed by nobody, row by row.
//
// The space is used again by later rows; the file does not shrink.
func (x *Index) Clean(ctx context.Context, limit Cleaning) (done Cleaned, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	done, err = x.clean(ctx, limit)
	return done, x.fail("clean up", errors.Join(err, x.finish()))
}

func (x *Index) clean(ctx context.Context, limit Cleaning) (Cleaned, error) {
	s, err := x.idle(ctx)
	if err != nil {
		return Cleaned{}, err
	}
	unclean, err := x.db.Row("SELECT 1 FROM settings WHERE key = 'unclean'", nil, new(int64))
	if err != nil || !unclean {
		return Cleaned{}, err
	}
	c := &cleaning{x: x, limit: limit, last: s.LastSeq, runs: map[int64][]int64{}, blobs: map[int64]*usedBlob{}}
	if err := c.plan(ctx); err != nil {
		return Cleaned{}, err
	}
	if err := c.sweep(ctx); err != nil {
		return c.done, err
	}
	if err := c.retire(); err != nil {
		return c.done, err
	}
	if !c.done.More {
		if _, _, err := x.db.Exec("DELETE FROM settings WHERE key = 'unclean'"); err != nil {
			return c.done, err
		}
	}
	return c.done, x.db.Commit()
}

// cleaning is a Clean at work: first it finds all that is needed, reading every
// table from one end to the other, then it deletes what is left.
type cleaning struct {
	x     *Index
	limit Cleaning
	last  int64             // the newest run
	runs  map[int64][]int64 // kept, by set, in order
	all   []int64           // those of all sets
	blobs map[int64]*usedBlob

	base   dumpedRows // rows of the base dumps
	marked bitset     // paths that have marks

	keep  needed
	drop  dropped
	done  Cleaned
	spent bool // nothing more is deleted in this Clean
}

// needed are rows that are needed. Those of base dumps are not among them.
type needed struct {
	paths, volumes, contents, chunks bitset
	open, openChunks                 bitset // contents and chunks of what is open
	held                             bitset // chunks in blobs that the index counts on
}

// dropped are rows that are not.
type dropped struct {
	files, attributed, contents, chunks bitset
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
