package s3

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newTransport returns a transport like minio's own, with more connections to
// the one host that matters and without a limit for the whole answer, which
// watch has. If uploads are limited, their first bytes must not gather in a
// large buffer meanwhile.
func newTransport(limited bool) *http.Transport {
	const timeout = 15 * time.Second // of the steps to a connection
	buffer := 64 << 10
	if limited {
		buffer = 4 << 10
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: shortQueue}).DialContext,
		TLSHandshakeTimeout:   timeout,
		ExpectContinueTimeout: timeout,
		MaxIdleConns:          128,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       time.Minute,
		WriteBufferSize:       buffer,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // bodies are exactly what was stored
	}
}

// shortQueue lets the kernel take bytes only shortly before it can send them.
// Otherwise it buffers megabytes, which on a slow link take longer to go out
// than watch waits for the answer. What is on the way is not bounded by this,
// so a fast and long link stays full.
func shortQueue(_, _ string, c syscall.RawConn) error {
	const unsent = 128 << 10 // bytes
	return c.Control(func(fd uintptr) {
		// A kernel without this option just buffers more.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
}

// errNoService: something answers, but not as an S3 service does.
var errNoService = errors.New("what answers is no S3 service")

// listingsOnly refuses an answer to a listing that is none. minio takes any
// XML, a web page for example, for a listing of nothing; but a store that
// seems to be empty is the one answer that nobody would doubt.
type listingsOnly struct{ next http.RoundTripper }

// pagesKey leads to the *atomic.Int32 in a request's context that counts the
// pages of a listing. minio does not tell where one ends.
type pagesKey struct{}

// RoundTrip implements http.RoundTripper.
func (t listingsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	query, element := r.URL.Query(), "<ListBucketResult"
	switch {
	case query.Has("retention") && r.Method == http.MethodGet:
		return renamed(resp, err)
	case query.Has("versions"):
		element = "<ListVersionsResult"
	case query.Get("list-type") == "":
		return resp, err
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	const room = 1 << 10 // for what XML allows before its first element
	body := bufio.NewReaderSize(resp.Body, room)
	head, err := body.Peek(room)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if !bytes.Contains(head, []byte(element)) {
		err := fmt.Errorf("%w: it answers a listing with HTTP 200 and the content type %q", errNoService, resp.Header.Get("Content-Type"))
		return nil, errors.Join(err, resp.Body.Close())
	}
	if pages, ok := r.Context().Value(pagesKey{}).(*atomic.Int32); ok {
		pages.Add(1)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return resp, nil
}

// renamed makes what versitygw answers to the question for an object's lock
// what Amazon and minio call it.
func renamed(resp *http.Response, err error) (*http.Response, error) {
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	const longest = 4 << 10
	text, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(text, []byte("ObjectLockRetention"), []byte("Retention"))))
	return resp, nil
}
