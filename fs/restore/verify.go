package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/fs/restore/disk"
	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// verifyAtOnce is how many files are open at a time for each worker.
const verifyAtOnce = 64

// verify reads back what was written, and what was there and looked the same,
// and compares it with the chunks' hashes.
func (r *run) verify(ctx context.Context) error {
	if !r.Verify {
		return nil
	}
	// What is still to be written cannot be dropped from memory, and what is in
	// memory says nothing about the disk.
	if err := r.target.Sync(); err != nil {
		return fmt.Errorf("write the target to disk: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var batch []entry
	send := func() {
		files := batch
		batch = nil
		g.Go(func() error { return r.verifyFiles(ctx, files) })
	}
	for e, err := range r.checks.All() {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if r.failed.Has(e.slot) {
			continue
		}
		if batch = append(batch, *e); len(batch) == verifyAtOnce {
			send()
		}
		if ctx.Err() != nil {
			break
		}
	}
	send()
	return g.Wait()
}

// verified is an open file that is compared.
type verified struct {
	entry
	node *view.Node
	file *disk.File // nil if it could not be opened
	err  error
}

func (r *run) verifyFiles(ctx context.Context, entries []entry) error {
	var files []*verified
	defer func() {
		for _, f := range files {
			if f.file != nil {
				f.file.Close()
			}
		}
	}()
	byContent := make(map[int64][]*verified)
	var contents []int64
	for _, e := range entries {
		f := &verified{entry: e}
		if f.node, f.err = r.node(ctx, e.dir, e.slot); f.err != nil {
			return f.err
		}
		f.file, f.err = r.openToVerify(ctx, f)
		files = append(files, f)
		if c := f.node.Content; c != 0 && f.err == nil {
			if byContent[c] == nil {
				contents = append(contents, c)
			}
			byContent[c] = append(byContent[c], f)
		}
	}
	slices.Sort(contents)
	var buf []byte
	err := r.Tree.Pieces(ctx, contents, func(p view.Piece) error {
		for _, f := range byContent[p.Content] {
			if f.err == nil {
				buf, f.err = r.comparePiece(f.file, &p, buf)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.err != nil {
			r.problem(KindVerify, r.pathOf(f.dir, f.slot), f.err)
		}
		r.tally.verified.Add(1)
	}
	r.progress("verify")
	return nil
}

func (r *run) openToVerify(ctx context.Context, f *verified) (*disk.File, error) {
	d, err := r.target.Get(ctx, f.dir)
	if err != nil {
		return nil, err
	}
	defer r.target.Put(d)
	return d.OpenFile(f.node)
}

// comparePiece reads a piece of a file and compares it. buf is reused.
func (r *run) comparePiece(f *disk.File, p *view.Piece, buf []byte) ([]byte, error) {
	if p.Hole {
		return buf, f.Zeros(p.Offset, p.Offset+p.Length)
	}
	if p.Length > remote.MaxChunk {
		return buf, fmt.Errorf("a chunk of %d bytes: %w", p.Length, remote.ErrCorrupt)
	}
	buf = slices.Grow(buf[:0], int(p.Length))[:p.Length]
	if err := f.ReadAt(buf, p.Offset); err != nil {
		return buf, err
	}
	r.tally.verifyRead.Add(p.Length)
	if err := blob.CheckChunk(p.Chunk, buf); err != nil {
		return buf, fmt.Errorf("bytes %d to %d are not what was backed up: %w", p.Offset, p.Offset+p.Length, err)
	}
	return buf, nil
}
