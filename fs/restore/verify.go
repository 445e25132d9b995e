package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/metastore/view"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/blob"
)

// verifyAtOnce is how many files are open at a time for each worker.
const verifyAtOnce = 64

// verify reads back what was written, and what was there and looked the same,
// and compares it with the chunks' hashes.
func (r *run) verify(ctx context.Context) error {
	if !r.Verify {
		return nil
	}
	// What is still to be written cannot be dropped from memory, and what is in
	// memory says nothing about the disk.
	if err := unix.Syncfs(r.target.root); err != nil {
		return fmt.Errorf("write the target to disk: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var batch []entry
	send := func() {
		files := batch
		batch = nil
		g.Go(func() error { return r.verifyFiles(ctx, files) })
	}
	for e, err := range r.checks.all() {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		if r.failed.has(e.slot) {
			continue
		}
		if batch = append(batch, *e); len(batch) == verifyAtOnce {
			send()
		}
		if ctx.Err() != nil {
			break
		}
	}
	send()
	return g.Wait()
}

// verified is an open file that is compared.
type verified struct {
	entry
	node *view.Node
	fd   int
	err  error
}

func (r *run) verifyFiles(ctx context.Context, entries []entry) error {
	var files []*verified
	defer func() {
		for _, f := range files {
			if f.fd >= 0 {
				_ = unix.Close(f.fd) // it was only read
			}
		}
	}()
	byContent := make(map[int64][]*verified)
	var contents []int64
	for _, e := range entries {
		f := &verified{entry: e, fd: -1}
		if f.node, f.err = r.node(ctx, e.dir, e.slot); f.err != nil {
			return f.err
		}
		f.fd, f.err = r.openToVerify(ctx, f)
		files = append(files, f)
		if c := f.node.Content; c != 0 && f.err == nil {
			if byContent[c] == nil {
				contents = append(contents, c)
			}
			byContent[c] = append(byContent[c], f)
		}
	}
	slices.Sort(contents)
	var buf []byte
	err := r.Tree.Pieces(ctx, contents, func(p view.Piece) error {
		for _, f := range byContent[p.Content] {
			if f.err == nil {
				buf, f.err = r.comparePiece(f.fd, &p, buf)
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.err != nil {
			r.problem(KindVerify, r.pathOf(f.dir, f.slot), f.err)
		}
		r.tally.verified.Add(1)
	}
	r.progress("verify")
	return nil
}

func (r *run) openToVerify(ctx context.Context, f *verified) (int, error) {
	d, err := r.target.get(ctx, f.dir)
	if err != nil {
		return -1, err
	}
	defer r.target.put(d)
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, f.node.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, fmt.Errorf("read it back: %w", err)
	}
	var st unix.Stat_t
	switch err = unix.Fstat(fd, &st); {
	case err != nil:
		err = fmt.Errorf("read it back: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("it is no regular file")
	case st.Size != f.node.Size:
		err = fmt.Errorf("it has %d bytes instead of %d", st.Size, f.node.Size)
	}
	if err != nil {
		return fd, err
	}
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) // advice: some file systems are memory
	return fd, nil
}

// comparePiece reads a piece of a file and compares it. buf is reused.
func (r *run) comparePiece(fd int, p *view.Piece, buf []byte) ([]byte, error) {
	if p.Hole {
		return buf, zeros(fd, p.Offset, p.Offset+p.Length)
	}
	if p.Length > remote.MaxChunk {
		return buf, fmt.Errorf("a chunk of %d bytes: %w", p.Length, remote.ErrCorrupt)
	}
	buf = slices.Grow(buf[:0], int(p.Length))[:p.Length]
	if err := readAt(fd, buf, p.Offset); err != nil {
		return buf, err
	}
	r.tally.verifyRead.Add(p.Length)
	if err := blob.CheckChunk(p.Chunk, buf); err != nil {
		return buf, fmt.Errorf("bytes %d to %d are not what was backed up: %w", p.Offset, p.Offset+p.Length, err)
	}
	return buf, nil
}

// zeros makes sure that nothing but zeros is in a range, and does not read what
// is a hole.
func zeros(fd int, off, end int64) error {
	buf := make([]byte, 64<<10)
	for off < end {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			data = off // a file system without holes
		}
		if off = data; off >= end {
			return nil
		}
		b := buf[:min(int64(len(buf)), end-off)]
		if err := readAt(fd, b, off); err != nil {
			return err
		}
		for i, c := range b {
			if c != 0 {
				return fmt.Errorf("byte %d is in a hole, and is %#02x", off+int64(i), c)
			}
		}
		off += int64(len(b))
	}
	return nil
}

func readAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := retry(func() (int, error) { return unix.Pread(fd, b, off) })
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read it back: %w", err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
