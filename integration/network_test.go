package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// counter stands before an S3 server and counts the blobs that are put.
type counter struct {
	server *httputil.ReverseProxy
	hold   func(n int) // called before the n-th PUT of a blob is passed on; may be nil

	mu       sync.Mutex
	gets     int   // of blobs, begun
	bytes    int64 // that they brought
	puts     int   // of blobs, begun
	inFlight int
	most     int              // in flight at once
	stored   map[string]int64 // bytes by path of the blobs that the server confirmed
	again    []string         // paths that it confirmed more than once
}

// overNetwork returns the URL of a store on a real S3 server behind l, with
// the environment for it, and who counts there.
func overNetwork(t *testing.T, l *link) (c *counter, store string, env []string) {
	t.Helper()
	g := storetest.StartGateway(t, false)
	c = &counter{stored: map[string]int64{}}
	behind, err := url.Parse(g.Endpoint)
	must(t, err)
	c.server = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(behind)
			r.Out.Host = r.In.Host // is signed
		},
		ModifyResponse: c.answered,
		ErrorLog:       log.New(io.Discard, "", 0), // connections break here
	}
	front := httptest.NewServer(c)
	t.Cleanup(front.Close)
	l.to = strings.TrimPrefix(front.URL, "http://")
	return c, "s3://" + g.Bucket + "/home?endpoint=http://" + l.start(t) + "&region=" + g.Region + "&path_style=on",
		[]string{"AWS_ACCESS_KEY_ID=" + g.AccessKey, "AWS_SECRET_ACCESS_KEY=" + g.SecretKey}
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/")
}

func readsBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isBlob(r) {
		c.mu.Lock()
		c.puts++
		c.inFlight++
		c.most = max(c.most, c.inFlight)
		n, hold := c.puts, c.hold
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.inFlight--
			c.mu.Unlock()
		}()
		if hold != nil {
			hold(n)
		}
	}
	c.server.ServeHTTP(w, r)
}

func (c *counter) answered(resp *http.Response) error {
	if readsBlob(resp.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gets++
		c.bytes += resp.ContentLength
	}
	if r := resp.Request; isBlob(r) && resp.StatusCode == http.StatusOK {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, before := c.stored[r.URL.Path]; before {
			c.again = append(c.again, r.URL.Path)
		}
		c.stored[r.URL.Path] = r.ContentLength
	}
	return nil
}

// confirmed is how many blobs the server stored, and their bytes.
func (c *counter) confirmed() (blobs int, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.stored {
		total += n
	}
	return len(c.stored), total
}

// fetched is how many requests for parts of blobs were answered, and their bytes.
func (c *counter) fetched() (gets int, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets, c.bytes
}

// forget begins to count anew, and holds nothing.
func (c *counter) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gets, c.bytes = 0, 0
	c.hold, c.puts, c.most, c.stored, c.again = nil, 0, 0, map[string]int64{}, nil
}

// eventually waits for something that another program does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(50 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s: not within 50 s", what)
			return
		}
	}
}

// noise fills a folder with n files of 10 MB that cannot be compressed.
func noise(t *testing.T, folder string, n int) (size int64) {
	t.Helper()
	for i := range n {
		random(t, filepath.Join(folder, fmt.Sprintf("%02d", i)), 10_000_000)
	}
	return int64(n) * 10_000_000
}

// At round trips of 40 ms, uploads go on side by side, and reading goes on
// behind them: while the first blob is held back, later ones arrive whole.
func TestUploadsOverlapWithReading(t *testing.T) {
	c, store, env := overNetwork(t, &link{delay: 20 * time.Millisecond})
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	noise(t, src, 14) // four blobs and more
	m.init(src)
	c.hold = func(n int) {
		if n == 1 {
			eventually(t, "blobs stored while the first is held back", func() bool { blobs, _ := c.confirmed(); return blobs >= 2 })
		}
	}
	began := time.Now()
	id := m.backup()
	t.Logf("%v with round trips of 40 ms", time.Since(began))
	if c.most < 2 {
		t.Errorf("%d blobs at most were on their way at once", c.most)
	}
	if blobs, _ := c.confirmed(); blobs < 4 || len(c.again) > 0 {
		t.Errorf("%d blobs are stored; twice: %q", blobs, c.again)
	}

	near := newMachine(t, "file://"+filepath.Join(t.TempDir(), "store"))
	near.init(src)
	began = time.Now()
	near.backup()
	t.Logf("%v into a local folder", time.Since(began))

	same(t, "the snapshot", scan(t, src, Look{Root: true}), scan(t, filepath.Join(m.mount(id), src), Look{Root: true}))
}

// Connections that break again and again, in the middle of a blob, cost time
// and nothing else.
func TestAFlakyLinkIsOvercome(t *testing.T) {
	for name, l := range map[string]*link{
		// A blob has 16 MiB and a bit, and there are more of them than connections.
		"every connection breaks in its second blob": {delay: 2 * time.Millisecond, cutAt: 24 << 20},
		"every other connection breaks at once":      {delay: 2 * time.Millisecond, cutAt: 1 << 20, cutNth: 2},
	} {
		t.Run(name, func(t *testing.T) {
			c, store, env := overNetwork(t, l)
			m := newMachine(t, store, env...)
			src := filepath.Join(m.dir, "source")
			noise(t, src, 14)
			m.init(src)
			l.begin()
			id := m.backup()
			blobs, _ := c.confirmed()
			t.Logf("%d connections were cut; %d PUTs made %d blobs", l.broken(), c.puts, blobs)
			if l.broken() == 0 {
				t.Error("no connection was cut")
			}
			if len(c.again) > 0 {
				t.Errorf("stored twice: %q", c.again)
			}
			same(t, "the snapshot", scan(t, src, Look{Root: true}), scan(t, filepath.Join(m.mount(id), src), Look{Root: true}))
		})
	}
}

// When the link goes away for good, the run says what it waits for, and may be
// interrupted. The next one does not send again what was confirmed.
func TestWhatWasConfirmedIsNotSentAgain(t *testing.T) {
	l := &link{delay: 2 * time.Millisecond}
	c, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	size := noise(t, src, 14)
	m.init(src)
	recorded := func() int64 {
		out, err := exec.Command("sqlite3", m.state("index.db"), "SELECT ifnull(sum(size), 0) FROM blobs").Output()
		if err != nil {
			return 0 // busy
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		must(t, err)
		return n
	}

	gone := make(chan struct{})
	c.hold = func(n int) {
		if n > 2 {
			<-gone
			panic(http.ErrAbortHandler)
		}
	}
	cmd := m.command("backup")
	stderr := &says{want: "the store does not answer"}
	cmd.Stderr = stderr
	must(t, cmd.Start())
	eventually(t, "two blobs in the index", func() bool { return recorded() > 30<<20 })
	l.down()
	close(gone)
	eventually(t, "a word about the store", stderr.said.Load)
	must(t, cmd.Process.Signal(os.Interrupt))
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Fatalf("the interrupted backup: %v\n%s", err, &stderr.text)
	}
	if !strings.Contains(stderr.text.String(), "), trying again") {
		t.Errorf("it said\n%s", &stderr.text)
	}
	before := recorded()

	l.up()
	c.forget()
	id := m.backup()
	blobs, sent := c.confirmed()
	t.Logf("%d bytes were confirmed, then %d more in %d blobs", before, sent, blobs)
	if most := size + size/100; before+sent > most || c.puts != blobs {
		t.Errorf("%d bytes were confirmed, and %d more sent in %d PUTs; want %d at most altogether", before, sent, c.puts, most)
	}
	same(t, "the snapshot", scan(t, src, Look{Root: true}), scan(t, filepath.Join(m.mount(id), src), Look{Root: true}))
}

// says is an output that notices when a text appears in it.
type says struct {
	want string
	text bytes.Buffer
	said atomic.Bool
}

func (s *says) Write(p []byte) (int, error) {
	s.text.Write(p)
	if strings.Contains(s.text.String(), s.want) {
		s.said.Store(true)
	}
	return len(p), nil
}

// A limit of uploads holds at every moment on the wire, over all connections.
func TestTheUploadLimitHoldsOnTheWire(t *testing.T) {
	const (
		limit   = 2_000_000 // bytes a second
		burst   = 256 << 10
		headers = 128 << 10 // of some dozens of requests, which are not limited
	)
	var (
		mu    sync.Mutex
		began time.Time // zero: init, which is not limited
		sent  int64
		over  string
	)
	l := &link{onUp: func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if began.IsZero() {
			return
		}
		sent += int64(n)
		elapsed := time.Since(began)
		if most := int64(limit*elapsed.Seconds()) + burst + headers; sent > most && over == "" {
			over = fmt.Sprintf("%d bytes within %v, want %d at most", sent, elapsed, most)
		}
	}}
	_, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	size := noise(t, src, 1)
	m.init(src)
	mu.Lock()
	began = time.Now()
	mu.Unlock()
	m.backup("--limit-upload", "2MB/s")
	t.Logf("%v for %d bytes", time.Since(began), sent)
	if over != "" || sent < size {
		t.Errorf("%s; %d bytes altogether, want %d at least", over, sent, size)
	}
}
