package metastore

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// load reads one part, which must be the next one.
func (b *builder) load(ctx context.Context, p Part) error {
	r, err := p.Open(ctx)
	if err != nil {
		return fmt.Errorf("open a part of the dump: %w", err)
	}
	return errors.Join(b.loadPart(p, bufio.NewReaderSize(r, statementBytes)), r.Close())
}

func (b *builder) loadPart(p Part, r *bufio.Reader) error {
	follows := func(kind PartKind, n int) bool {
		header := partHeader(kind, n)
		start, _ := r.Peek(len(header)) // an error comes back with the first read
		return string(start) == header && (p.N == 0 || p.Kind == kind && p.N == n)
	}
	switch {
	case b.kind == Full && b.part > 0 && follows(Differential, 1):
		b.kind, b.part = Differential, 1
	default:
		b.part++
		if p.N != 0 && !follows(b.kind, b.part) {
			return bad("%s part %d is not where %s part %d belongs", p.Kind, p.N, b.kind, b.part)
		}
	}
	return ParseDump(r, b.kind, b.part, b)
}

// Insert takes a row of the dump.
func (b *builder) Insert(t Table, row []Value) error {
	if b.seen++; b.seen%1024 == 0 {
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	s := b.insert[t]
	if t == TableFiles {
		if err := fileOf(row, &b.file); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
		b.packed = appendFile(b.packed[:0], &b.file)
		s.args[0].Value, s.args[1].Value = row[1].Int, row[0].Int
		s.args[2].Value, s.args[3].Value, s.args[4].Value = b.file.Type == Directory, nil, b.packed
		if b.file.Content != 0 {
			s.args[3].Value = b.file.Content
		}
	} else {
		if err := checks[t](row); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
		for i := range s.args {
			switch v := &row[i]; v.Kind {
			case Null:
				s.args[i].Value = nil
			case Integer:
				s.args[i].Value = v.Int
			case Text:
				s.args[i].Value = string(v.Bytes)
			case Bytes:
				s.args[i].Value = v.Bytes
			}
		}
	}
	if t == TableFileChunks {
		if err := b.tile(row); err != nil {
			return bad("%s: %v", rowName(t, row), err)
		}
	}
	b.rows[t]++
	if err := s.put(); err != nil {
		if failed := (sqlite3.Error{}); errors.As(err, &failed) && failed.Code == sqlite3.ErrConstraint {
			return bad("%s: there is another such row (%v)", rowName(t, row), err)
		}
		return err
	}
	return nil
}

// tile makes sure that the pieces of a content follow one another without a
// gap. A content cannot be taken up again later, since it has a piece at 0.
func (b *builder) tile(row []Value) error {
	content, offset, length := row[0].Int, row[1].Int, row[2].Int
	if content != b.content {
		b.content, b.end = content, 0
	}
	if offset != b.end {
		return fmt.Errorf("a piece at %d where one at %d belongs", offset, b.end)
	}
	b.end += length
	return nil
}

// Delete takes rows away that a differential dump replaces or leaves out.
func (b *builder) Delete(t Table, keys []int64) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if t == TableFileChunks {
		b.content = 0
	}
	for _, key := range keys {
		_, n, err := b.remove[t].exec(key)
		if err != nil {
			return err
		}
		b.rows[t] -= n
	}
	return nil
}
