package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// At round trips of 40 ms a folder of 2,000 files is copied with a few large
// requests and not with 2,000 small ones.
func TestAFolderOfSmallFilesIsCopiedOverALongLine(t *testing.T) {
	c, store, env := overNetwork(t, &link{delay: 20 * time.Millisecond})
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	const files, size = 2000, 12_000
	must(t, os.MkdirAll(src, 0o700))
	for i := range files {
		random(t, filepath.Join(src, fmt.Sprintf("%04d", i)), size)
	}
	m.init(src)
	id := m.backup()
	c.forget()
	dir := m.mount(id)
	dst := filepath.Join(t.TempDir(), "copy")
	began := time.Now()
	tool(t, "cp", "-a", filepath.Join(dir, src), dst)
	took := time.Since(began)
	gets, bytes := c.fetched()
	t.Logf("%d files in %v, with %d requests for %d bytes", files, took, gets, bytes)
	if gets > 30 {
		t.Errorf("%d requests for parts of blobs", gets)
	}
	if bytes > files*size*5/4 {
		t.Errorf("%d bytes were fetched for %d", bytes, files*size)
	}
	same(t, "the copy", scan(t, src, Look{Root: true}), scan(t, dst, Look{Root: true}))
}

// A read in the middle of something large costs two round trips and little
// more than it has to.
func TestARandomReadOverALongLineTakesFewRequests(t *testing.T) {
	c, store, env := overNetwork(t, &link{delay: 20 * time.Millisecond})
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	const size, reads = 100_000_000, 10
	must(t, os.MkdirAll(src, 0o700))
	random(t, filepath.Join(src, "large"), size)
	m.init(src)
	id := m.backup()
	c.forget()
	f, err := os.Open(filepath.Join(m.mount(id), src, "large"))
	must(t, err)
	defer f.Close()
	random := rand.New(rand.NewPCG(1, 1))
	for range reads {
		_, err := f.ReadAt(make([]byte, 4096), random.Int64N(size-4096))
		must(t, err)
	}
	gets, bytes := c.fetched()
	t.Logf("%d requests for %d bytes in %d random reads", gets, bytes, reads)
	if gets > 4*reads { // the age header, the end and the frame at once, of one blob or two
		t.Errorf("%d requests", gets)
	}
	if bytes > reads*(12<<20) {
		t.Errorf("%d bytes", bytes)
	}
}

// A large file comes as fast as the line lets it: what is read ahead is enough
// to keep it full.
func TestALargeFileFillsALongLine(t *testing.T) {
	const size, rate = 200_000_000, 50_000_000
	l := &link{delay: 20 * time.Millisecond}
	c, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	must(t, os.MkdirAll(src, 0o700))
	random(t, filepath.Join(src, "large"), size)
	m.init(src)
	id := m.backup()
	dir := m.mount(id)
	l.limit(rate)
	c.forget()
	began := time.Now()
	tool(t, "cmp", filepath.Join(dir, src, "large"), filepath.Join(src, "large"))
	took := time.Since(began)
	gets, bytes := c.fetched()
	t.Logf("%v for %d bytes over a line of %d bytes a second: %.0f %% of it; %d requests for %d bytes",
		took, size, rate, 100*float64(size)/rate/took.Seconds(), gets, bytes)
	if bytes > size*11/10 {
		t.Errorf("%d bytes were fetched", bytes)
	}
}
