package integration

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Readers of all kinds, for an hour in the long form, over a line that fails
// again and again and on a machine that is short of memory: not one wrong byte,
// nobody hangs, and the mount does not grow.
func TestReadersOverABadLineNeverGetAWrongByte(t *testing.T) {
	l := &link{delay: 2 * time.Millisecond}
	_, store, env := overNetwork(t, l)
	m := newMachine(t, store, env...)
	src := filepath.Join(m.dir, "source")
	const large, folders, files = 40 << 20, 20, 100
	must(t, os.MkdirAll(src, 0o700))
	random(t, filepath.Join(src, "large"), large)
	for d := range folders {
		dir := filepath.Join(src, fmt.Sprintf("%02d", d))
		must(t, os.Mkdir(dir, 0o700))
		for f := range files {
			random(t, filepath.Join(dir, fmt.Sprintf("%03d", f)), 100+137*f)
		}
	}
	m.init(src)
	dir := filepath.Join(m.mount(m.backup()), src)

	r := &readers{src: src, dir: dir, large: large, folders: folders}
	r.content, _ = os.ReadFile(filepath.Join(src, "large"))
	round := func(d time.Duration) {
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		var g errgroup.Group
		for i := range 4 {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			g.Go(func() error { return r.until(ctx, func() error { return r.pread(random) }) })
			g.Go(func() error { return r.until(ctx, func() error { return r.folder(random) }) })
		}
		g.Go(func() error { return r.until(ctx, r.whole) })
		g.Go(func() error { return r.until(ctx, r.mapped) })
		g.Go(func() error { return disturb(ctx, l) })
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	round(10 * time.Second) // until everything is as large as it gets
	before := usageOf(t, m.serving)
	round(time.Duration(scale(10, 3600)) * time.Second)
	after := usageOf(t, m.serving)
	t.Logf("before %+v, after %+v; %d reads failed, %d were right", before, after, r.failed.Load(), r.right.Load())
	if after.descriptors > before.descriptors+10 || after.threads > before.threads+30 || after.memory > before.memory+100<<20 {
		t.Errorf("the mount grows: before %+v, after %+v", before, after)
	}
	if r.right.Load() == 0 {
		t.Error("nothing could be read")
	}
}

// disturb takes the line down and the kernel's memory away every now and then.
func disturb(ctx context.Context, l *link) error {
	random := rand.New(rand.NewPCG(3, 3))
	defer l.up()
	for ctx.Err() == nil {
		time.Sleep(time.Duration(2000+random.IntN(2000)) * time.Millisecond)
		l.down()
		time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond)
		l.up()
		// Only root may, and in a container not even root.
		_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	}
	return nil
}

type readers struct {
	src, dir      string
	large         int64
	folders       int
	content       []byte       // of the large file
	right, failed atomic.Int64 // reads
}

// until repeats a read. It may fail, as a read of a store that is gone does, but
// not with anything else, and not be wrong.
func (r *readers) until(ctx context.Context, read func() error) error {
	for ctx.Err() == nil {
		switch err := read(); {
		case err == nil:
			r.right.Add(1)
		case errors.Is(err, syscall.EIO):
			r.failed.Add(1)
		default:
			return err
		}
	}
	return nil
}

func (r *readers) pread(random *rand.Rand) error {
	f, err := os.Open(filepath.Join(r.dir, "large"))
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, 1+random.IntN(300_000))
	off := random.Int64N(r.large - int64(len(p)))
	if _, err := f.ReadAt(p, off); err != nil {
		return err
	}
	return r.compare("large", p, off)
}

func (r *readers) compare(name string, p []byte, off int64) error {
	if !bytes.Equal(p, r.content[off:off+int64(len(p))]) {
		return fmt.Errorf("%s: %d bytes at %d are wrong", name, len(p), off)
	}
	return nil
}

func (r *readers) folder(random *rand.Rand) error {
	folder := fmt.Sprintf("%02d", random.IntN(r.folders))
	entries, err := os.ReadDir(filepath.Join(r.dir, folder))
	if err != nil {
		return err
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(r.dir, folder, e.Name()))
		if err != nil {
			return err
		}
		want, err := os.ReadFile(filepath.Join(r.src, folder, e.Name()))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s/%s has %d wrong bytes", folder, e.Name(), len(got))
		}
	}
	return nil
}

func (r *readers) whole() error {
	got, err := os.ReadFile(filepath.Join(r.dir, "large"))
	if err != nil {
		return err
	}
	if int64(len(got)) != r.large {
		return fmt.Errorf("the large file has %d bytes", len(got))
	}
	return r.compare("large, whole", got, 0)
}

// mapped reads through a mapping, as git does, where what cannot be had is a
// signal. It is another process because the line is in this one, which would
// stand still with every thread that waits for a page.
func (r *readers) mapped() error {
	out, err := exec.Command("git", "hash-object", "--no-filters", filepath.Join(r.dir, "large")).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return syscall.EIO // killed by the signal, or told that it cannot open the file
	}
	if err != nil {
		return err
	}
	want := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", r.large), r.content...))
	if got := strings.TrimSpace(string(out)); got != hex.EncodeToString(want[:]) {
		return fmt.Errorf("a mapping of the large file has the hash %s", got)
	}
	return nil
}

// usage is what a process holds.
type usage struct {
	memory               int64 // resident bytes
	threads, descriptors int64
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		for key, to := range map[string]*int64{"VmRSS:": &u.memory, "Threads:": &u.threads} {
			if rest, ok := strings.CutPrefix(line, key); ok {
				*to, err = strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				must(t, err)
			}
		}
	}
	u.memory <<= 10 // from KiB
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	u.descriptors = int64(len(open))
	return u
}
