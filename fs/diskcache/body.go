package diskcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
)

// body reads the pieces of one Get in their order.
type body struct {
	cache     *Cache
	ctx       context.Context
	key, name string
	voided    uint64 // of the cache when it began

	file   *os.File // nil if no piece is in it
	pieces []piece  // to be read; the first perhaps in part
	source map[int64]io.ReadCloser

	data []byte // of a record, to be read next
	buf  *block // memory of data
	rec  recording
	err  error // that ended it
}

// fetch begins the requests for all missing pieces.
func (b *body) fetch() error {
	var missing []piece
	for _, p := range b.pieces {
		if !p.cached {
			missing = append(missing, p)
		}
	}
	sources, errs := make([]io.ReadCloser, len(missing)), make([]error, len(missing))
	get := func(i int) {
		sources[i], errs[i] = b.cache.Store.Get(b.ctx, b.key, missing[i].off, missing[i].n)
	}
	if len(missing) == 1 {
		get(0)
	} else {
		var g errgroup.Group // not one with a context, which would end the bodies
		for i := range missing {
			g.Go(func() error { get(i); return nil })
		}
		_ = g.Wait() // errors are in errs
	}
	b.source = make(map[int64]io.ReadCloser, len(missing))
	for i, p := range missing {
		if errs[i] == nil {
			b.source[p.end()] = sources[i]
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, b.err = b.read(p)
	return n, b.err
}

func (b *body) read(p []byte) (int, error) {
	for len(b.data) == 0 {
		if len(b.pieces) == 0 {
			return 0, io.EOF
		}
		if !b.pieces[0].cached {
			return b.fetched(p)
		}
		if err := b.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// load reads the next piece from the file, or begins to fetch it if the file
// turns out to be damaged.
func (b *body) load() error {
	if err := b.ctx.Err(); err != nil {
		return fmt.Errorf("get %q: %w", b.key, err)
	}
	if b.buf == nil {
		b.buf = memory.Get().(*block)
	}
	p := b.pieces[0]
	data, err := p.record.load(b.file, b.key, b.buf[:])
	if err == nil {
		b.data = data[p.off-p.record.off:][:p.n]
		b.pieces = b.pieces[1:]
		return nil
	}
	b.cache.discardThat(b.name, b.file)
	// Its neighbours may be damaged too: all up to the next request.
	end := 1
	for end < len(b.pieces) && b.pieces[end].cached {
		end++
	}
	p = piece{span: span{p.off, b.pieces[end-1].end() - p.off}}
	source, err := b.cache.Store.Get(b.ctx, b.key, p.off, p.n)
	if err != nil {
		return err
	}
	b.source[p.end()] = source
	b.pieces = append([]piece{p}, b.pieces[end:]...)
	return nil
}

// fetched reads from the store, and records.
func (b *body) fetched(p []byte) (int, error) {
	piece := &b.pieces[0]
	source := b.source[piece.end()]
	n, err := source.Read(p[:min(int64(len(p)), piece.n)])
	if err == nil || err == io.EOF {
		b.rec.keep(b, p[:n], piece.off, piece.n)
	}
	piece.off, piece.n = piece.off+int64(n), piece.n-int64(n)
	switch {
	case err != nil && err != io.EOF:
		return n, err
	case piece.n > 0 && err != nil:
		return n, fmt.Errorf("get %q: the store sent %d bytes less than it was asked for: %w", b.key, piece.n, io.ErrUnexpectedEOF)
	case piece.n > 0:
		return n, nil
	}
	delete(b.source, piece.end())
	b.pieces = b.pieces[1:]
	return n, source.Close()
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.rec.drop(b.cache)
	var errs []error
	for _, s := range b.source {
		errs = append(errs, s.Close())
	}
	if b.buf != nil {
		memory.Put(b.buf)
	}
	if b.file != nil {
		errs = append(errs, b.file.Close())
	}
	b.source, b.pieces, b.data, b.buf, b.file = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
