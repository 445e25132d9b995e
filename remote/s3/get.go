package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Get implements remote.Store. The reader goes on with a new request where a
// broken one stopped, and fails after Options.Attempts requests in a row that
// brought nothing.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return s.get(ctx, key, "", off, n)
}

// get is Get for one version, or the one on top if version is "".
func (s *Store) get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	past := func(size int64) error {
		return s.wrap(ctx, "get", key, fmt.Errorf("it has %d bytes, asked for %d from %d on: %w", size, n, off, remote.ErrCorrupt))
	}
	if off < 0 || n == 0 {
		info, err := s.stat(ctx, key, version, s.opts.Attempts)
		if err != nil {
			return nil, err
		}
		if off < 0 || off > info.Size {
			return nil, past(info.Size)
		}
		return http.NoBody, nil
	}
	d := &download{store: s, ctx: ctx, key: key, version: version, off: off, size: -1, end: -1, tries: s.tries(s.opts.Attempts)}
	if n > 0 {
		d.end = off + n
	}
	err := s.retry(ctx, s.opts.Attempts, d.request)
	if answer := (minio.ErrorResponse{}); errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		info, err := s.stat(ctx, key, version, s.opts.Attempts)
		switch {
		case err != nil:
			return nil, err
		case off == info.Size && n < 0:
			return http.NoBody, nil
		}
		return nil, past(info.Size)
	}
	if err != nil {
		return nil, s.wrap(ctx, "get", key, err)
	}
	if d.end > d.size {
		_ = d.Close() // nothing was written
		return nil, past(d.size)
	}
	return d, nil
}

// download is the body of a Get over as many requests as it takes.
type download struct {
	store    *Store
	ctx      context.Context
	key      string
	version  string // "": the one on top
	off, end int64  // what is left to read; end is -1 until it is known
	size     int64  // of the object; -1 until it is known
	tries    *tries // since the last byte
	closed   bool

	// The request that is under way, or nil.
	body  io.ReadCloser
	watch *watch
	wctx  context.Context
}

// request asks for what is left.
func (d *download) request() error {
	s := d.store
	opts := minio.GetObjectOptions{VersionID: d.version}
	ranged := d.off > 0 || d.end >= 0
	if ranged {
		last := ""
		if d.end >= 0 {
			last = strconv.FormatInt(d.end-1, 10)
		}
		opts.Set("Range", fmt.Sprintf("bytes=%d-%s", d.off, last))
	}
	// A service that has not begun to answer by then has most likely not got the
	// request: the connection died without a word. Whoever waits for a read has
	// less patience than an upload.
	wctx, w := s.newWatch(d.ctx, s.opts.Stall/4)
	body, info, header, err := s.core.GetObject(wctx, s.opts.Bucket, s.prefix+d.key, opts)
	if err != nil {
		w.end()
		return stalledOr(wctx, err)
	}
	w.pause()
	size := info.Size
	if ranged {
		size, err = d.checkRange(header.Get("Content-Range"))
	} else if size < 0 {
		err = fmt.Errorf("%w: no Content-Length", errAnswer)
	}
	if err == nil && d.size >= 0 && size != d.size {
		err = fmt.Errorf("%w: the object had %d bytes and now has %d", remote.ErrCorrupt, d.size, size)
	}
	if err != nil {
		w.end()
		_ = body.Close() // nothing was written
		return err
	}
	d.size = size
	if d.end < 0 {
		d.end = size
	}
	d.body, d.watch, d.wctx = body, w, wctx
	return nil
}

// checkRange returns the object's size if contentRange says that the answer
// is what d asked for, or as much of it as there is.
func (d *download) checkRange(contentRange string) (size int64, err error) {
	first, last, size, ok := parseContentRange(contentRange)
	if !ok || first != d.off || d.end >= 0 && last != min(d.end, size)-1 || d.end < 0 && last != size-1 {
		return 0, fmt.Errorf("%w: asked for the bytes from %d to %d (-1: the last) it answers with the range %q", errAnswer, d.off, max(d.end-1, -1), contentRange)
	}
	return size, nil
}

// parseContentRange reads "bytes 0-99/1234".
func parseContentRange(s string) (first, last, size int64, ok bool) {
	s, ok1 := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(s, "/")
	from, to, ok3 := strings.Cut(span, "-")
	numbers := [3]int64{}
	for i, text := range []string{from, to, total} {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return 0, 0, 0, false
		}
		numbers[i] = int64(n)
	}
	first, last, size = numbers[0], numbers[1], numbers[2]
	return first, last, size, ok1 && ok2 && ok3 && first <= last && last < size
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	if d.closed {
		return 0, fs.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	for d.off < d.end {
		if d.body == nil {
			if err := d.store.retry(d.ctx, d.store.opts.Attempts, d.request); err != nil {
				return 0, d.store.wrap(d.ctx, "get", d.key, err)
			}
		}
		d.watch.expect(d.store.opts.Stall)
		n, err := d.body.Read(p[:min(int64(len(p)), d.end-d.off)])
		d.watch.pause()
		if d.off += int64(n); n > 0 {
			d.tries.progress()
		}
		if err != nil && d.off < d.end {
			err = stalledOr(d.wctx, err)
			d.drop()
		}
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if !d.tries.again(d.ctx, err) {
			return 0, d.store.wrap(d.ctx, "get", d.key, fmt.Errorf("after %d attempts, %d bytes before the end: %w", d.tries.failures, d.end-d.off, err))
		}
	}
	return 0, io.EOF
}

// drop ends the request under way.
func (d *download) drop() {
	if d.body != nil {
		d.watch.end()
		_ = d.body.Close() // nothing was written
		d.body = nil
	}
}

// Close implements io.Closer.
func (d *download) Close() error {
	if d.body != nil && d.off == d.end {
		_, _ = d.body.Read(make([]byte, 1)) // sees the end, which frees the connection for the next request
	}
	d.drop()
	d.closed = true
	return nil
}
