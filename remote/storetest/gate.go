package storetest

import (
	"sync"
	"testing"
	"time"
)

// Gate holds calls back until it is opened, such as those that Faulty.OnCall
// hears of. Use NewGate.
type Gate struct {
	reached, open     chan struct{}
	reachOnce, toOpen sync.Once
}

// NewGate makes a gate that is closed until Open is called or the test ends.
func NewGate(t testing.TB) *Gate {
	g := &Gate{reached: make(chan struct{}), open: make(chan struct{})}
	t.Cleanup(g.Open)
	return g
}

// Pass returns once the gate is open.
func (g *Gate) Pass() {
	g.reachOnce.Do(func() { close(g.reached) })
	<-g.open
}

// Reached is closed as soon as somebody wants to pass.
func (g *Gate) Reached() <-chan struct{} { return g.reached }

// Await waits until somebody wants to pass.
func (g *Gate) Await(t testing.TB) {
	t.Helper()
	Within(t, g.reached)
}

// Open lets all pass, now and later. It may be called again.
func (g *Gate) Open() { g.toOpen.Do(func() { close(g.open) }) }

// Within receives from c. It ends the test if there is nothing to be had within a
// minute, which is longer than anything here takes a busy machine.
func Within[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatal("what the test waits for does not happen")
	}
	return v
}
