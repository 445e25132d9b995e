package build

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/metastore/dump"
)

// Loading goes through three goroutines: one takes the parts' text from their
// readers, which decrypt and decompress it, one parses and checks rows, and one
// puts them into SQLite. What one of them is ahead of the next is bounded.
const (
	textBytes   = 256 << 10 // handed over at once
	textPieces  = 4         // ahead of the parser
	handedRows  = 512       // handed over at once, a multiple of sqlite.BulkRows
	handedBytes = 256 << 10 // or fewer, if they have as many bytes
	handedAhead = 8         // ahead of SQLite
)

// change is a row to insert, or the key of one to delete.
type change struct {
	table  dump.Table
	delete bool
	n      [6]int64     // numbers, of which the table has so many
	bytes  []byte       // in its batch
	row    []dump.Value // of snapshots only
}

// changeBatch is as many changes as are handed over at once.
type changeBatch struct {
	changes []change
	data    []byte
}

// load reads all parts.
func (b *builder) load(ctx context.Context, parts []Part) error {
	g, ctx := errgroup.WithContext(ctx)
	texts := make(chan *partText, 1)
	full, free := make(chan *changeBatch, handedAhead), make(chan *changeBatch, handedAhead+2)
	for range cap(free) {
		free <- &changeBatch{data: make([]byte, 0, handedBytes)}
	}
	g.Go(func() error {
		defer close(texts)
		return readTexts(ctx, parts, texts)
	})
	g.Go(func() error {
		defer close(full)
		l := loader{ctx: ctx, full: full, free: free}
		for i := range parts {
			var t *partText
			select {
			case t = <-texts:
			case <-ctx.Done():
			}
			if t == nil {
				return ctx.Err() // the reader of texts says why
			}
			if err := l.part(parts[i], t); err != nil {
				return err
			}
		}
		return l.hand()
	})
	g.Go(func() error {
		for changes := range full {
			if err := b.apply(changes); err != nil {
				return err
			}
			free <- changes // has room for all
		}
		return ctx.Err()
	})
	return g.Wait()
}

// readTexts opens one part after the other and passes their text on.
func readTexts(ctx context.Context, parts []Part, texts chan<- *partText) error {
	// Never more are in use than wait, are written and are read.
	free := make(chan []byte, textPieces+2)
	for range cap(free) {
		free <- make([]byte, textBytes)
	}
	for _, p := range parts {
		r, err := p.Open(ctx)
		if err != nil {
			return fmt.Errorf("open a part of the dump: %w", err)
		}
		t := &partText{ctx: ctx, pieces: make(chan textPiece, textPieces), free: free}
		select {
		case texts <- t:
			err = t.fill(r)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// partText is a part's text on its way from one goroutine to another.
type partText struct {
	ctx    context.Context
	pieces chan textPiece
	free   chan []byte

	piece textPiece // being read
	rest  []byte    // of it
}

type textPiece struct {
	data []byte
	err  error // that comes behind data
}

// fill passes on what r has, and its error.
func (t *partText) fill(r io.Reader) error {
	for {
		var p textPiece
		select {
		case p.data = <-t.free:
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
		n := 0
		for p.data = p.data[:textBytes]; n < len(p.data) && p.err == nil; {
			var more int
			more, p.err = r.Read(p.data[n:])
			n += more
		}
		p.data = p.data[:n]
		select {
		case t.pieces <- p:
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
		if p.err != nil {
			return nil // whoever parses meets it
		}
	}
}

// Read implements io.Reader.
func (t *partText) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.piece.data != nil {
			t.free <- t.piece.data // has room for all
			t.piece.data = nil
		}
		if t.piece.err != nil {
			return 0, t.piece.err
		}
		select {
		case t.piece = <-t.pieces:
			t.rest = t.piece.data
		case <-t.ctx.Done():
			return 0, t.ctx.Err()
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}
