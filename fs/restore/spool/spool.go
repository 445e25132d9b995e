// Package spool keeps the lists of a restore's plan: records of a fixed size,
// sorted if need be, paths, and sets of numbers.
//
// A list of records is held in memory up to a limit and then written to a file,
// one of paths always; so memory is bounded however long they grow. The files
// have no names: they are gone when they are closed, or when the program ends in
// whatever way. Nothing in them outlives a run, and nothing checks them for
// damage.
package spool

import (
	"bufio"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sort"
	"sync"
)

// Format is what records are like in a file.
type Format[T any] struct {
	Size int // of a record, bytes
	Put  func(b []byte, v *T)
	Get  func(b []byte, v *T)
	// Order sorts the records; nil leaves them in the order of adding.
	Order func(a, b *T) int
}

// Records is a list of records that grows out of memory into a file that has no
// name. With an order it is sorted: pieces of it are when they leave memory, and
// reading merges them. Adding is safe for concurrent use; reading begins when
// all is in.
type Records[T any] struct {
	Format[T]
	limit int // records in memory
	dir   string

	mu     sync.Mutex
	memory []T
	sorted bool // memory is
	file   *os.File
	runs   []int64 // where each begins, in records
	filed  int64   // records in the file
}

// New makes an empty list that holds at most limit records in memory, and files
// the others in the folder dir; "" is the system's for temporary files.
func New[T any](dir string, limit int, f Format[T]) *Records[T] {
	return &Records[T]{Format: f, dir: dir, limit: limit}
}

// Add appends a few records.
func (s *Records[T]) Add(records ...T) error {
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

// Count is how many records there are.
func (s *Records[T]) Count() int64 { return s.filed + int64(len(s.memory)) }

func (s *Records[T]) flush() (err error) {
	if s.file == nil {
		if s.file, err = unnamed(s.dir); err != nil {
			return err
		}
	}
	s.sort()
	w := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.filed*int64(s.Size)), 1<<20)
	b := make([]byte, s.Size)
	for i := range s.memory {
		s.Put(b, &s.memory[i])
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

func (s *Records[T]) sort() {
	if s.Order != nil && !s.sorted {
		sort.Sort(byOrder[T]{s})
		s.sorted = true
	}
}

// byOrder sorts what is in memory. The records are too large to be handed over
// by value for each comparison.
type byOrder[T any] struct{ *Records[T] }

func (s byOrder[T]) Len() int           { return len(s.memory) }
func (s byOrder[T]) Less(i, j int) bool { return s.Order(&s.memory[i], &s.memory[j]) < 0 }
func (s byOrder[T]) Swap(i, j int)      { s.memory[i], s.memory[j] = s.memory[j], s.memory[i] }

// All yields the records in order. The pointer is good until the next one.
func (s *Records[T]) All() iter.Seq2[*T, error] {
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
		m := merger[T]{order: s.Order}
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

// Backwards yields the records in the reverse order of adding.
func (s *Records[T]) Backwards() iter.Seq2[*T, error] {
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
			b := make([]byte, (end-start)*int64(s.Size))
			if _, err := s.file.ReadAt(b, start*int64(s.Size)); err != nil {
				yield(nil, fmt.Errorf("read the plan: %w", err))
				return
			}
			for i := int(end-start) - 1; i >= 0; i-- {
				s.Get(b[i*s.Size:(i+1)*s.Size], &v)
				if !yield(&v, nil) {
					return
				}
			}
			end = start
		}
	}
}

func (s *Records[T]) reader(start, end int64) *bufio.Reader {
	size := int64(s.Size)
	return bufio.NewReaderSize(io.NewSectionReader(s.file, start*size, (end-start)*size), 64<<10)
}

// Close drops the records.
func (s *Records[T]) Close() error {
	s.memory = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// runReader reads one sorted run of a spool.
type runReader[T any] struct {
	spool *Records[T]
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
	b, err := r.in.Peek(r.spool.Size)
	if err != nil {
		r.err = fmt.Errorf("read the plan: %w", err)
		return false
	}
	r.spool.Get(b, &r.v)
	r.left--
	_, err = r.in.Discard(r.spool.Size)
	return err == nil
}

// merger is a heap of runs, by the record that each is at.
type merger[T any] struct {
	runs  []*runReader[T]
	order func(a, b *T) int
}

func (m *merger[T]) Len() int      { return len(m.runs) }
func (m *merger[T]) Swap(i, j int) { m.runs[i], m.runs[j] = m.runs[j], m.runs[i] }
func (m *merger[T]) Push(any)      { panic("spool: internal error: a run is added to a merge") }

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
