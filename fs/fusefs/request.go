package fusefs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// patience is how long an interrupted request still tries. The Go runtime
// alone interrupts its own programs many times a second.
const patience = time.Second

var errInterrupted = errors.New("interrupted by a signal")

// request is the context of one FUSE request. It ends at its deadline, or
// patience after the kernel passed on a signal. Clocks and goroutines start
// only when somebody waits for it, since most requests are answered at once.
type request struct {
	cancel  <-chan struct{}
	timeout time.Duration
	began   time.Time

	once    sync.Once
	wait    context.Context
	stop    context.CancelFunc
	stopped chan struct{}
}

// begin starts a request; the caller calls end when it is answered.
func (f *fileSystem) begin(cancel <-chan struct{}) *request {
	return &request{cancel: cancel, timeout: f.timeout, began: time.Now()}
}

// allow moves the deadline away, if the clocks are not running yet.
func (r *request) allow(d time.Duration) { r.timeout = max(r.timeout, d) }

func (r *request) start() {
	r.once.Do(func() {
		interruptible, interrupt := context.WithCancelCause(context.Background())
		r.wait, r.stop = context.WithDeadlineCause(interruptible, r.began.Add(r.timeout),
			fmt.Errorf("no answer within %v: %w", r.timeout, context.DeadlineExceeded))
		r.stopped = make(chan struct{})
		go func() {
			defer close(r.stopped)
			defer interrupt(nil)
			select {
			case <-r.wait.Done():
				return
			case <-r.cancel:
			}
			t := time.NewTimer(patience)
			defer t.Stop()
			select {
			case <-r.wait.Done():
			case <-t.C:
				interrupt(errInterrupted)
			}
		}()
	})
}

// end stops the clocks and waits until they have stopped.
func (r *request) end() {
	unused := false
	r.once.Do(func() { unused = true })
	if !unused {
		r.stop()
		<-r.stopped
	}
}

// Deadline implements context.Context.
func (r *request) Deadline() (time.Time, bool) { return r.began.Add(r.timeout), true }

// Done implements context.Context and starts the clocks.
func (r *request) Done() <-chan struct{} { r.start(); return r.wait.Done() }

// Err implements context.Context.
func (r *request) Err() error { r.start(); return r.wait.Err() }

// Value implements context.Context. It leads context.Cause to the reason.
func (r *request) Value(key any) any { r.start(); return r.wait.Value(key) }

// status is the one table of what errors look like to programs. All that is
// wrong with a store or its content is EIO, and the mount's owner is told why.
// A name that is not there is no error: Lookup answers it.
func (f *fileSystem) status(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, errInterrupted):
		return fuse.EINTR
	case errors.Is(err, view.ErrNotDirectory):
		return fuse.ENOTDIR
	case errors.Is(err, fs.ErrIsDirectory):
		return fuse.EISDIR
	case errors.Is(err, fs.ErrNotRegular):
		return fuse.EINVAL
	}
	f.warn(err)
	return fuse.EIO
}
