package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Read says which bytes to read.
type Read struct {
	Subset Subset
	// Delete removes what is rotten, if its writer's next backup replaces it.
	// An object that merely could not be read stays.
	Delete bool
}

var errRotten = errors.New("its bytes are not those of its name")

// read reads and hashes objects of all writers. What was read counts even if
// it does not come to the end.
func (a *auditor) read(ctx context.Context) error {
	sortByHash(a.there)
	s := a.Read.Subset
	var after remote.Hash
	if a.Memory != nil {
		after = a.Memory.stores[a.Scope].Cursor
	}
	began := a.Now()
	chosen := s.choose(a.there, after)
	found, done, err := a.hashAll(ctx, chosen)
	if a.Memory != nil && (s.All() || s.rotates()) {
		err = errors.Join(err, a.Memory.advance(a.Scope, a.there, chosen[:done], s.All(), began, a.Now()))
	}
	for _, writer := range a.Writers {
		var of []Finding
		for _, f := range found {
			if f.Writer == writer {
				of = append(of, f)
			}
		}
		err = errors.Join(err, a.settle(ctx, writer, of))
	}
	return err
}

// hashAll reads objects side by side. It returns what is wrong with them, and
// how many of the first ones it is done with.
func (a *auditor) hashAll(ctx context.Context, objects []object) (found []Finding, done int, err error) {
	var total, read Tally
	for _, o := range objects {
		total.add(o.size)
	}
	var mu sync.Mutex
	ready := make([]bool, len(objects))
	progress := func(objects, bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		read.Objects, read.Bytes = read.Objects+objects, read.Bytes+bytes
		a.Progress(Progress{Done: read, Total: total})
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(reads)
	for i, o := range objects {
		g.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			f, err := a.examine(gctx, o, func(n int64) { progress(0, n) })
			if err != nil {
				return err
			}
			progress(1, 0)
			mu.Lock()
			defer mu.Unlock()
			ready[i] = true
			if f != nil {
				found = append(found, *f)
			}
			return nil
		})
	}
	err = g.Wait()
	for i, o := range objects {
		if ready[i] {
			a.result.Read.add(o.size)
		}
	}
	for done < len(ready) && ready[done] {
		done++
	}
	return found, done, err
}

// examine reads an object. Before it condemns one it reads it again: what comes
// out differently the second time says nothing about what is stored. The error
// is of a store that is gone, or of a context that has ended.
func (a *auditor) examine(ctx context.Context, o object, progress func(int64)) (*Finding, error) {
	var wrong []remote.Hash
	var failed error
	for range 2 {
		sum, err := a.hash(ctx, o, progress)
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, remote.ErrNoStore)):
			return nil, err
		case err != nil:
			failed = err
		case sum == o.name.SHA256 && len(wrong) == 0:
			return nil, nil
		default:
			wrong = append(wrong, sum)
		}
	}
	f := about(Unreadable, o.writer, o.place, "it could not be read: %w", failed)
	switch {
	case errors.Is(failed, fs.ErrNotExist):
		f = about(Missing, o.writer, o.place, "%w, though it is listed", errMissing)
	case failed != nil:
	case wrong[0] == wrong[1]:
		f = about(Rotten, o.writer, o.place, "%w: it was read twice, and is %s", errRotten, wrong[0])
	default:
		f = about(Unsteady, o.writer, o.place, "it was read twice and came out differently; the line, the store or this machine's memory cannot be relied on")
	}
	return &f, nil
}

// hash reads all of an object, a piece at a time, as far as any may reach. What
// size it should have does not matter: its name decides.
func (a *auditor) hash(ctx context.Context, o object, progress func(int64)) (sum remote.Hash, err error) {
	r, err := a.Store.Get(ctx, o.key(o.writer), 0, -1)
	if err != nil {
		return sum, err
	}
	return sumOf(r, progress)
}

func sumOf(r io.ReadCloser, progress func(int64)) (sum remote.Hash, err error) {
	h := sha256.New()
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	_, err = io.CopyBuffer(counted{h, progress}, io.LimitReader(r, remote.MaxBlob+1), *buf)
	if err = errors.Join(err, r.Close()); err != nil {
		return sum, err
	}
	return remote.Hash(h.Sum(nil)), nil
}

var pieces = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// counted tells how much is written.
type counted struct {
	io.Writer
	wrote func(int64)
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.wrote(int64(n))
	return n, err
}
