package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"

	"git.eeqj.de/sneak/vaultik/remote"
)

// The methods of a store, as Fault, Faulty.OnCall and Counting name them.
const (
	OpPut    = "put"
	OpGet    = "get"
	OpStat   = "stat"
	OpList   = "list"
	OpDelete = "delete"
)

// ErrInjected is what a fault fails with unless its Err says otherwise.
var ErrInjected = errors.New("injected fault")

// A Kind is a way to fail.
type Kind int

// The kinds of faults. One that makes no sense for a method, as a truncated
// body for Delete, lets the call pass.
const (
	// Fail returns the error; the call has no effect.
	Fail Kind = iota + 1
	// LostAnswer lets the call do its work and then returns the error.
	LostAnswer
	// Truncate ends the body of a Get after At bytes as if it were complete.
	Truncate
	// Flip inverts one bit of the byte At of the body of a Get, counted from
	// the offset that the call asked for.
	Flip
	// Break returns the error from the body of a Get after At bytes.
	Break
	// Stall makes the body of a Get wait after At bytes, and the other
	// methods at once, until the context ends.
	Stall
	// StaleList makes List hide the newest objects that were put through this
	// Faulty: as many as Hide says, one if it says 0.
	StaleList
)

// A Fault says which calls fail and how.
type Fault struct {
	Op    string // one method, "" for all
	Key   string // regular expression that matches the key (of List: the prefix) somewhere; "" for all
	Call  int    // the how-many-th of those calls fails, from 1; 0 means 1
	Every bool   // that call and every later one
	Kind  Kind   // how
	Err   error  // of Fail, LostAnswer and Break; ErrInjected if nil
	At    int64  // of Truncate, Flip, Break and Stall: bytes into the body
	Hide  int    // of StaleList: objects
}

// Faulty is a store whose calls fail by script. Use NewFaulty.
type Faulty struct {
	remote.Store

	// OnCall, unless nil, is called right before and right after every call,
	// with n = 1, 2, 3 … and op the method's name, followed by " done" after
	// the call. Crash tests kill the process there: for n = 1, 2, … until a
	// run gets through. Set it before the first call. It must be safe for
	// concurrent use.
	OnCall func(n int, op, key string)

	mu       sync.Mutex
	faults   []*fault
	points   int      // calls of OnCall
	put      []string // keys in the order in which they were put
	injected int
}

type fault struct {
	Fault
	key  *regexp.Regexp
	seen int
}

// NewFaulty wraps s. It panics if a Fault's Key is no regular expression.
func NewFaulty(s remote.Store, script ...Fault) *Faulty {
	f := &Faulty{Store: s}
	f.Script(script...)
	return f
}

// Script replaces the faults and starts counting calls anew.
func (f *Faulty) Script(script ...Fault) {
	faults := make([]*fault, len(script))
	for i, s := range script {
		faults[i] = &fault{Fault: s, key: regexp.MustCompile(s.Key)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// Injected returns how many faults struck so far: a test that expects one
// should see that there was one.
func (f *Faulty) Injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected
}

// Put implements remote.Store.
func (f *Faulty) Put(ctx context.Context, key string, body []byte) error {
	return f.call(ctx, OpPut, key, func() error {
		err := f.Store.Put(ctx, key, body)
		if err == nil {
			f.mu.Lock()
			f.put = append(f.put, key)
			f.mu.Unlock()
		}
		return err
	})
}

// Get implements remote.Store.
func (f *Faulty) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f.point(OpGet, key)
	defer f.point(OpGet+" done", key)
	hit := f.strike(OpGet, key, Fail, LostAnswer, Truncate, Flip, Break, Stall)
	if hit != nil && (hit.Kind == Fail || hit.Kind == LostAnswer) {
		return nil, hit.error(OpGet, key)
	}
	r, err := f.Store.Get(ctx, key, off, n)
	if err != nil || hit == nil {
		return r, err
	}
	return &faultyBody{ReadCloser: r, ctx: ctx, fault: *hit, err: hit.error(OpGet, key)}, nil
}

// Stat implements remote.Store.
func (f *Faulty) Stat(ctx context.Context, key string) (info remote.Info, err error) {
	err = f.call(ctx, OpStat, key, func() error {
		info, err = f.Store.Stat(ctx, key)
		return err
	})
	if err != nil {
		return remote.Info{}, err
	}
	return info, nil
}

// List implements remote.Store. A fault of kind LostAnswer strikes after the
// last object.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		f.point(OpList, prefix)
		defer f.point(OpList+" done", prefix)
		hit := f.strike(OpList, prefix, Fail, LostAnswer, Stall, StaleList)
		var hidden []string
		switch {
		case hit == nil:
			hit = &Fault{}
		case hit.Kind == Stall:
			<-ctx.Done()
			yield(remote.Info{}, ctx.Err())
			return
		case hit.Kind == Fail:
			yield(remote.Info{}, hit.error(OpList, prefix))
			return
		case hit.Kind == StaleList:
			hidden = f.newest(prefix, max(hit.Hide, 1))
		}
		for info, err := range f.Store.List(ctx, prefix) {
			if err == nil && slices.Contains(hidden, info.Key) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
		if hit.Kind == LostAnswer {
			yield(remote.Info{}, hit.error(OpList, prefix))
		}
	}
}

// Delete implements remote.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.call(ctx, OpDelete, key, func() error { return f.Store.Delete(ctx, key) })
}

// call does work in the shape that Put, Stat and Delete share.
func (f *Faulty) call(ctx context.Context, op, key string, work func() error) error {
	f.point(op, key)
	defer f.point(op+" done", key)
	hit := f.strike(op, key, Fail, LostAnswer, Stall)
	switch {
	case hit == nil:
		return work()
	case hit.Kind == Stall:
		<-ctx.Done()
		return fmt.Errorf("%s %q: %w", op, key, ctx.Err())
	case hit.Kind == LostAnswer:
		if err := work(); err != nil {
			return err
		}
	}
	return hit.error(op, key)
}

func (f *Faulty) point(op, key string) {
	if f.OnCall == nil {
		return
	}
	f.mu.Lock()
	f.points++
	n := f.points
	f.mu.Unlock()
	f.OnCall(n, op, key)
}

// strike counts a call and returns the first fault that hits it, if any.
// Faults of kinds that the method cannot have do not count it.
func (f *Faulty) strike(op, key string, kinds ...Kind) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var hit *Fault
	for _, c := range f.faults {
		if c.Op != "" && c.Op != op || !slices.Contains(kinds, c.Kind) || !c.key.MatchString(key) {
			continue
		}
		c.seen++
		first := max(c.Call, 1)
		if hit == nil && (c.seen == first || c.Every && c.seen > first) {
			hit = &c.Fault
			f.injected++
		}
	}
	return hit
}

// newest returns the last n keys below prefix that were put.
func (f *Faulty) newest(prefix string, n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for _, key := range slices.Backward(f.put) {
		if strings.HasPrefix(key, prefix) && len(keys) < n && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (f *Fault) error(op, key string) error {
	err := f.Err
	if err == nil {
		err = ErrInjected
	}
	return fmt.Errorf("%s %q: %w", op, key, err)
}

// faultyBody is the body of a Get that a fault struck.
type faultyBody struct {
	io.ReadCloser
	ctx   context.Context
	fault Fault
	err   error
	off   int64
}

func (b *faultyBody) Read(p []byte) (int, error) {
	if left := b.fault.At - b.off; b.fault.Kind != Flip && int64(len(p)) > left {
		if left == 0 {
			switch b.fault.Kind {
			case Truncate:
				return 0, io.EOF
			case Stall:
				<-b.ctx.Done()
				return 0, b.ctx.Err()
			default:
				return 0, b.err
			}
		}
		p = p[:left]
	}
	n, err := b.ReadCloser.Read(p)
	if i := b.fault.At - b.off; b.fault.Kind == Flip && 0 <= i && i < int64(n) {
		p[i] ^= 1
	}
	b.off += int64(n)
	return n, err
}
