package restore

import (
	"bufio"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sort"
	"sync"
)

// spool is a list of records that grows out of memory into a file that has no
// name. With an order it is sorted: pieces of it are when they leave memory, and
// reading merges them. Adding is safe for concurrent use; reading begins when
// all is in.
type spool[T any] struct {
	limit int // records in memory
	dir   string
	size  int // of a record in the file, bytes
	put   func(b []byte, v *T)
	get   func(b []byte, v *T)
	order func(a, b *T) int // nil: in the order of adding

	mu     sync.Mutex
	memory []T
	sorted bool // memory is
	file   *os.File
	runs   []int64 // where each begins, in records
	filed  int64   // records in the file
}

// init takes over what the records are like.
func (s *spool[T]) init(o *spool[T]) {
	s.limit, s.dir, s.size, s.put, s.get, s.order = o.limit, o.dir, o.size, o.put, o.get, o.order
}

// add appends a few records.
func (s *spool[T]) add(records ...T) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.memory)+len(records) > s.limit && len(s.memory) > 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.memory, s.sorted = append(s.memory, records...), false
	return nil
}

// count is how many records there are.
func (s *spool[T]) count() int64 { return s.filed + int64(len(s.memory)) }

func (s *spool[T]) flush() (err error) {
	if s.file == nil {
		if s.file, err = unnamed(s.dir); err != nil {
			return err
		}
	}
	s.sort()
	w := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.filed*int64(s.size)), 1<<20)
	b := make([]byte, s.size)
	for i := range s.memory {
		s.put(b, &s.memory[i])
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write the plan: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	s.runs = append(s.runs, s.filed)
	s.filed += int64(len(s.memory))
	s.memory = s.memory[:0]
	return nil
}

func (s *spool[T]) sort() {
	if s.order != nil && !s.sorted {
		sort.Sort(byOrder[T]{s})
		s.sorted = true
	}
}

// byOrder sorts what is in memory. The records are too large to be handed over
// by value for each comparison.
type byOrder[T any] struct{ *spool[T] }

func (s byOrder[T]) Len() int           { return len(s.memory) }
func (s byOrder[T]) Less(i, j int) bool { return s.order(&s.memory[i], &s.memory[j]) < 0 }
func (s byOrder[T]) Swap(i, j int)      { s.memory[i], s.memory[j] = s.memory[j], s.memory[i] }

// all yields the records in order. The pointer is good until the next one.
func (s *spool[T]) all() iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		if s.file == nil {
			s.sort()
			for i := range s.memory {
				if !yield(&s.memory[i], nil) {
					return
				}
			}
			return
		}
		if len(s.memory) > 0 {
			if err := s.flush(); err != nil {
				yield(nil, err)
				return
			}
		}
		m := merger[T]{order: s.order}
		for i, start := range s.runs {
			end := s.filed
			if i+1 < len(s.runs) {
				end = s.runs[i+1]
			}
			r := &runReader[T]{spool: s, in: s.reader(start, end), left: end - start, at: i}
			if !r.next() {
				yield(nil, r.err)
				return
			}
			m.runs = append(m.runs, r)
		}
		m.merge(yield)
	}
}

// backwards yields the records in the reverse order of adding.
func (s *spool[T]) backwards() iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for i := len(s.memory) - 1; i >= 0; i-- {
			if !yield(&s.memory[i], nil) {
				return
			}
		}
		const batch = 4096
		var v T
		for end := s.filed; end > 0; {
			start := max(0, end-batch)
			b := make([]byte, (end-start)*int64(s.size))
			if _, err := s.file.ReadAt(b, start*int64(s.size)); err != nil {
				yield(nil, fmt.Errorf("read the plan: %w", err))
				return
			}
			for i := int(end-start) - 1; i >= 0; i-- {
				s.get(b[i*s.size:(i+1)*s.size], &v)
				if !yield(&v, nil) {
					return
				}
			}
			end = start
		}
	}
}

// stepwise yields records as well, and every so often reports progress and looks
// whether to go on.
func stepwise[T any](ctx context.Context, records iter.Seq2[*T, error], progress func()) iter.Seq2[*T, error] {
	const often = 1024
	return func(yield func(*T, error) bool) {
		n := 0
		for v, err := range records {
			if n++; n%often == 0 {
				progress()
				err = errors.Join(err, ctx.Err())
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

func (s *spool[T]) reader(start, end int64) *bufio.Reader {
	size := int64(s.size)
	return bufio.NewReaderSize(io.NewSectionReader(s.file, start*size, (end-start)*size), 64<<10)
}

func (s *spool[T]) close() error {
	s.memory = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// runReader reads one sorted run of a spool.
type runReader[T any] struct {
	spool *spool[T]
	in    *bufio.Reader
	left  int64
	at    int // which one
	v     T
	err   error
}

func (r *runReader[T]) next() bool {
	if r.left == 0 {
		return false
	}
	b, err := r.in.Peek(r.spool.size)
	if err != nil {
		r.err = fmt.Errorf("read the plan: %w", err)
		return false
	}
	r.spool.get(b, &r.v)
	r.left--
	_, err = r.in.Discard(r.spool.size)
	return err == nil
}

// merger is a heap of runs, by the record that each is at.
type merger[T any] struct {
	runs  []*runReader[T]
	order func(a, b *T) int
}

func (m *merger[T]) Len() int      { return len(m.runs) }
func (m *merger[T]) Swap(i, j int) { m.runs[i], m.runs[j] = m.runs[j], m.runs[i] }
func (m *merger[T]) Push(any)      { panic("restore: internal error: a run is added to a merge") }

func (m *merger[T]) Less(i, j int) bool {
	if m.order != nil {
		if c := m.order(&m.runs[i].v, &m.runs[j].v); c != 0 {
			return c < 0
		}
	}
	return m.runs[i].at < m.runs[j].at
}

func (m *merger[T]) Pop() any {
	last := m.runs[len(m.runs)-1]
	m.runs = m.runs[:len(m.runs)-1]
	return last
}

func (m *merger[T]) merge(yield func(*T, error) bool) {
	heap.Init(m)
	for len(m.runs) > 0 {
		first := m.runs[0]
		if !yield(&first.v, nil) {
			return
		}
		switch {
		case first.next():
			heap.Fix(m, 0)
		case first.err != nil:
			yield(nil, first.err)
			return
		default:
			heap.Pop(m)
		}
	}
}

// unnamed makes a file that is gone when it is closed, or when the program ends
// in whatever way.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "restore-plan-")
	if err != nil {
		return nil, fmt.Errorf("make a file for the plan: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a file for the plan: %w", err), f.Close())
	}
	return f, nil
}
