package fs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

// treeSet holds open trees by the hash of their manifest, each opened once,
// and closes those that nobody used for longest.
type treeSet struct {
	keep    int
	ctx     context.Context
	stop    context.CancelCauseFunc
	openers errgroup.Group
	closers errgroup.Group // of idle trees: who gives one up may be at work for another

	mu     sync.Mutex
	closed bool
	trees  map[remote.Hash]*openTree
	idle   list.List // of *openTree; the back was idle longest
}

type openTree struct {
	hash  remote.Hash
	ready chan struct{}
	tree  *Tree // set before ready is closed, as err is
	err   error
	users int
	idle  *list.Element
}

func (s *treeSet) init(keep int) {
	s.keep, s.trees = keep, make(map[remote.Hash]*openTree)
	s.ctx, s.stop = context.WithCancelCause(context.Background())
}

func (s *treeSet) get(ctx context.Context, h remote.Hash, open func(context.Context) (*Tree, error)) (*Tree, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	e := s.trees[h]
	if e == nil {
		e = &openTree{hash: h, ready: make(chan struct{})}
		s.trees[h] = e
		s.openers.Go(func() error {
			e.tree, e.err = open(s.ctx)
			if e.err != nil {
				s.forget(e) // the next one tries again
			}
			close(e.ready)
			return nil
		})
	}
	e.users++
	if e.idle != nil {
		s.idle.Remove(e.idle)
		e.idle = nil
	}
	s.mu.Unlock()

	var left <-chan struct{}
	select {
	case <-e.ready:
	default:
		left = ctx.Done() // asked for only when needed: it may start clocks
	}
	select {
	case <-e.ready:
	case <-left:
		s.put(e)
		return nil, fmt.Errorf("the snapshot is still being loaded: %w", context.Cause(ctx))
	}
	if e.err != nil {
		return nil, e.err
	}
	t := *e.tree
	t.release = sync.OnceValue(func() error { return s.put(e) })
	return &t, nil
}

// has reports whether a tree is open.
func (s *treeSet) has(h remote.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.trees[h]
	if e == nil {
		return false
	}
	select {
	case <-e.ready:
		return e.err == nil
	default:
		return false
	}
}

// forget drops a tree that could not be opened.
func (s *treeSet) forget(e *openTree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.trees, e.hash)
	if e.idle != nil {
		s.idle.Remove(e.idle)
		e.idle = nil
	}
}

// put takes one user off a tree.
func (s *treeSet) put(e *openTree) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.users--
	if e.users > 0 || s.trees[e.hash] != e {
		return nil
	}
	e.idle = s.idle.PushFront(e)
	s.shed(s.keep)
	return nil
}

// shed closes idle trees until at most keep are left. One that is still being
// opened is never closed: nobody waits for it now, somebody may soon.
func (s *treeSet) shed(keep int) {
	for el := s.idle.Back(); el != nil && s.idle.Len() > keep; {
		e, before := el.Value.(*openTree), el.Prev()
		select {
		case <-e.ready:
			s.idle.Remove(el)
			e.idle = nil
			delete(s.trees, e.hash)
			s.closers.Go(e.tree.Close)
		default:
		}
		el = before
	}
}

func (s *treeSet) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop(ErrClosed)
	_ = s.openers.Wait() // they report to their waiters
	s.mu.Lock()
	trees := s.trees
	s.trees = make(map[remote.Hash]*openTree)
	s.idle.Init()
	s.mu.Unlock() // reading ahead, which ends with its tree, may ask for another one
	var errs []error
	for _, e := range trees {
		errs = append(errs, e.tree.Close())
	}
	return errors.Join(append(errs, s.closers.Wait())...)
}
