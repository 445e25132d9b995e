package build

import (
	"bufio"
	"context"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/dump"
	"git.eeqj.de/sneak/vaultik/metastore/view/internal/layout"
)

// loader is the Sink of all parts: it checks each row by itself.
type loader struct {
	ctx        context.Context
	full, free chan *changeBatch
	batch      *changeBatch

	kind dump.PartKind // of the part loaded last
	n    int           // its number; 0 before the first

	file   metastore.File // scratch
	packed []byte         // scratch
	// The pieces of a content must come one after the other: the next one of
	// this content begins at end.
	content, end int64
}

// part reads one part, which must be the next one.
func (l *loader) part(p Part, t *partText) error {
	r := bufio.NewReaderSize(t, dump.StatementBytes)
	follows := func(kind dump.PartKind, n int) bool {
		header := dump.Header(kind, n)
		start, _ := r.Peek(len(header)) // an error comes back with the first read
		return string(start) == header && (p.N == 0 || p.Kind == kind && p.N == n)
	}
	switch {
	case l.kind == dump.Full && l.n > 0 && follows(dump.Differential, 1):
		l.kind, l.n = dump.Differential, 1
	default:
		l.n++
		if p.N != 0 && !follows(l.kind, l.n) {
			return dump.Errorf("%s part %d is not where %s part %d belongs", p.Kind, p.N, l.kind, l.n)
		}
	}
	return dump.Parse(r, l.kind, l.n, l)
}

// add adds a change with a copy of bytes.
func (l *loader) add(c change, bytes ...[]byte) error {
	size := 0
	for _, b := range bytes {
		size += len(b)
	}
	if l.batch != nil && (len(l.batch.changes) == handedRows || len(l.batch.data)+size > cap(l.batch.data)) {
		if err := l.hand(); err != nil {
			return err
		}
	}
	if l.batch == nil {
		select {
		case l.batch = <-l.free:
			l.batch.changes, l.batch.data = l.batch.changes[:0], l.batch.data[:0]
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	start := len(l.batch.data)
	for _, b := range bytes {
		l.batch.data = append(l.batch.data, b...)
	}
	c.bytes = l.batch.data[start:len(l.batch.data):len(l.batch.data)]
	l.batch.changes = append(l.batch.changes, c)
	return nil
}

// hand passes on what there is.
func (l *loader) hand() error {
	if l.batch == nil {
		return nil
	}
	select {
	case l.full <- l.batch:
		l.batch = nil
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// Insert takes a row of the dump.
func (l *loader) Insert(t dump.Table, row []dump.Value) error {
	c := change{table: t}
	if t == dump.TableFiles {
		if err := dump.FileOf(row, &l.file); err != nil {
			return dump.Errorf("%s: %v", dump.RowName(t, row), err)
		}
		c.n = [6]int64{row[0].Int, row[1].Int}
		if l.file.Type == metastore.Directory {
			c.n[2] = 1
		}
		l.packed = layout.AppendFile(l.packed[:0], &l.file)
		return l.add(c, l.packed)
	}
	if err := dump.Check(t, row); err != nil {
		return dump.Errorf("%s: %v", dump.RowName(t, row), err)
	}
	switch t {
	case dump.TableSnapshots:
		c.n[0], c.row = row[0].Int, slices.Clone(row)
		for i := range c.row {
			c.row[i].Bytes = slices.Clone(row[i].Bytes)
		}
	case dump.TableVolumes:
		c.n = [6]int64{row[0].Int, row[2].Int, int64(len(row[1].Bytes))}
		return l.add(c, row[1].Bytes, row[3].Bytes)
	case dump.TablePaths:
		c.n[0], c.n[1] = row[0].Int, row[1].Int
		return l.add(c, row[2].Bytes)
	case dump.TableXattrs:
		c.n[0], c.n[1] = row[0].Int, int64(len(row[1].Bytes))
		return l.add(c, row[1].Bytes, row[2].Bytes)
	case dump.TableFileChunks:
		if err := l.tile(row); err != nil {
			return dump.Errorf("%s: %v", dump.RowName(t, row), err)
		}
		c.n = [6]int64{row[0].Int, row[1].Int, row[2].Int, row[3].Int}
		if row[3].Kind == dump.Null {
			c.n[3] = 0
		}
	case dump.TableChunks:
		c.n[0], c.n[1] = row[0].Int, row[2].Int
		return l.add(c, row[1].Bytes)
	case dump.TableBlobs:
		c.n = [6]int64{row[0].Int, row[2].Int, row[3].Int, row[4].Int, row[6].Int, row[7].Int}
		return l.add(c, row[1].Bytes, row[5].Bytes)
	default: // numbers only, or only they count
		for i := range min(len(row), len(c.n)) {
			c.n[i] = row[i].Int
		}
	}
	return l.add(c)
}

// tile makes sure that the pieces of a content follow one another without a
// gap. A content cannot be taken up again later, since it has a piece at 0.
func (l *loader) tile(row []dump.Value) error {
	content, offset, length := row[0].Int, row[1].Int, row[2].Int
	if content != l.content {
		l.content, l.end = content, 0
	}
	if offset != l.end {
		return fmt.Errorf("a piece at %d where one at %d belongs", offset, l.end)
	}
	l.end += length
	return nil
}

// Delete takes rows away that a differential dump replaces or leaves out.
func (l *loader) Delete(t dump.Table, keys []int64) error {
	if t == dump.TableFileChunks {
		l.content = 0
	}
	for _, key := range keys {
		if err := l.add(change{table: t, delete: true, n: [6]int64{key}}); err != nil {
			return err
		}
	}
	return nil
}
