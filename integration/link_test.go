package integration

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// link is a network between a program and a server, both on this machine: a
// TCP proxy that lets bytes arrive late, slowly, or not at all. Its fields are
// set before the first connection.
type link struct {
	to     string        // the server's host:port
	delay  time.Duration // each way; a round trip takes twice as long
	rate   int64         // bytes a second each way over all connections; 0: no limit
	cutAt  int64         // bytes up after which a connection breaks; 0: never
	cutNth int           // the connections that break: the first, and then every n-th; 0 is all
	onUp   func(n int)   // hears of n bytes that came from the program; nil: nobody; see watch

	listener net.Listener
	wait     sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool // both ends of every connection
	accepted int
	cuts     int
	isDown   bool
	held     chan struct{} // closed when bytes may pass again; nil: they may
	free     [2]time.Time  // when the last byte up, and down, has passed
}

// start opens the link until the test ends, and returns the address that
// leads to the server.
func (l *link) start(t *testing.T) string {
	t.Helper()
	var err error
	l.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	l.open = map[net.Conn]bool{}
	l.wait.Go(func() {
		for {
			c, err := l.listener.Accept()
			if err != nil {
				return
			}
			l.wait.Go(func() { l.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.listener.Close()
		l.release()
		l.down()
		l.wait.Wait()
	})
	return l.listener.Addr().String()
}

// down breaks all connections, and each new one until up.
func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isDown = true
	for c := range l.open {
		abort(c)
	}
}

func (l *link) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isDown = false
}

// limit changes how many bytes a second may pass.
func (l *link) limit(rate int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// hold lets no bytes pass until release, and breaks nothing.
func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = make(chan struct{})
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

// watch sets onUp while the link is in use.
func (l *link) watch(onUp func(n int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onUp = onUp
}

// pass waits as long as the link is held.
func (l *link) pass() {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held != nil {
		<-held
	}
}

// begin counts connections anew, so that the n-th one is the same each time.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = 0
}

// broken is how many connections were cut.
func (l *link) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

// abort closes a connection as a broken line does: with a reset, and without
// what was on its way.
func abort(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// carry is one connection.
func (l *link) carry(program net.Conn) {
	defer program.Close()
	fragile, ok := l.admit(program)
	if !ok {
		abort(program)
		return
	}
	time.Sleep(2 * l.delay) // the handshake
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		abort(program)
		return
	}
	defer server.Close()
	if _, ok := l.admit(server); !ok {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		left := int64(-1)
		if fragile {
			left = l.cutAt
		}
		if l.copy(0, server, program, left) {
			l.mu.Lock()
			l.cuts++
			l.mu.Unlock()
		}
		server.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		l.copy(1, program, server, -1)
		program.(*net.TCPConn).CloseWrite()
	})
	both.Wait()
	l.mu.Lock()
	delete(l.open, program)
	delete(l.open, server)
	l.mu.Unlock()
}

// admit counts a program's connection, and says whether it is one that breaks.
func (l *link) admit(c net.Conn) (fragile, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isDown {
		return false, false
	}
	l.open[c] = true
	if c.LocalAddr().String() == l.listener.Addr().String() {
		fragile = l.cutAt > 0 && (l.cutNth == 0 || l.accepted%l.cutNth == 0)
		l.accepted++
	}
	return fragile, true
}

// parcel is some bytes under way.
type parcel struct {
	bytes []byte
	due   time.Time
}

// copy carries bytes in one direction until an end closes or, if left is not
// negative, that many have passed: then it cuts the connection.
func (l *link) copy(direction int, to, from net.Conn, left int64) (cut bool) {
	// Room for what a fast and long link holds; a sender that is faster waits,
	// until shortly before its turn, for sleep takes longer than it is told.
	const slack = 10 * time.Millisecond
	under := make(chan parcel, 512)
	var deliver sync.WaitGroup
	deliver.Go(func() {
		for p := range under {
			time.Sleep(time.Until(p.due))
			l.pass()
			if _, err := to.Write(p.bytes); err != nil {
				abort(from) // nobody listens any more
			}
		}
	})
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if direction == 0 && n > 0 {
			l.mu.Lock()
			onUp := l.onUp
			l.mu.Unlock()
			if onUp != nil {
				onUp(n)
			}
		}
		if left >= 0 && int64(n) >= left {
			cut = true
			abort(from)
			abort(to)
			break
		}
		if left >= 0 {
			left -= int64(n)
		}
		if n > 0 {
			passed := l.passes(direction, n)
			under <- parcel{b[:n], passed.Add(l.delay)}
			time.Sleep(time.Until(passed) - slack)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				abort(to)
			}
			break
		}
	}
	close(under)
	deliver.Wait()
	return cut
}

// passes returns when n bytes have gone through, in turn with all others.
func (l *link) passes(direction, n int) time.Time {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return now
	}
	if l.free[direction].Before(now) {
		l.free[direction] = now
	}
	l.free[direction] = l.free[direction].Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	return l.free[direction]
}
