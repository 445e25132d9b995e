package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Put implements remote.Store.
//
// If the key is taken at the second attempt or later, Put looks whether the
// object is its own, uploaded by an attempt whose answer got lost: it is if
// its bytes are the same. Credentials that may not look get an error that
// wraps both remote.ErrExists and remote.ErrDenied, and the caller has to
// decide.
//
// A service that does not record SHA-256 sums confirms an upload only by
// having accepted it, which includes the signed hash of the body.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	sum := remote.Sum(body)
	doubt := false // an attempt failed that may have had an effect
	var echo string
	err := s.retry(ctx, s.opts.Attempts, func() error {
		var err error
		echo, err = s.put(ctx, key, body, sum, sum)
		taken := isTaken(err)
		if taken && doubt {
			if err = s.compare(ctx, key, int64(len(body)), sum, s.opts.Attempts); err == nil {
				echo = base64.StdEncoding.EncodeToString(sum[:]) // compared already
			}
		}
		doubt = doubt || err != nil && !taken
		return err
	})
	if err != nil && doubt && ctx.Err() == nil && s.retryable(err) {
		// Every attempt failed without a clear answer. A server that
		// refuses a big body early often just breaks the connection.
		const attempts = 3 // enough was waited already
		if looked := s.compare(ctx, key, int64(len(body)), sum, attempts); looked == nil {
			return nil
		} else if errors.Is(looked, remote.ErrExists) && !errors.Is(looked, errUnseen) {
			err = looked
		}
	}
	if err == nil {
		err = s.confirm(ctx, key, echo, sum)
	}
	return s.wrap(ctx, "put", key, s.refusedLock(err))
}

// PutWithSum is Put with a sum that may be wrong. remote.Probe uses it to see
// that the service refuses damaged uploads: then it returns
// remote.ErrCorrupt, and nothing was stored.
func (s *Store) PutWithSum(ctx context.Context, key string, body []byte, sum remote.Hash) error {
	_, err := s.put(ctx, key, body, remote.Sum(body), sum)
	return s.wrap(ctx, "put", key, err)
}

// put tries once. payload goes into the signature, sum into the checksum
// header; it returns the sum that the service sends back, or "".
func (s *Store) put(ctx context.Context, key string, body []byte, payload, sum remote.Hash) (echo string, err error) {
	opts := minio.PutObjectOptions{
		UserMetadata:         map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(sum[:])},
		DisableContentSha256: true, // sign payload, not piece by piece
		DisableMultipart:     true,
	}
	opts.SetMatchETagExcept("*")
	if s.lock.For > 0 {
		r := s.lock.Retention(s.now())
		opts.Mode, opts.RetainUntilDate = minio.RetentionMode(r.Mode), r.Until
	}
	answer := 2 * s.opts.Stall // a server may have to write it all to a slow disk first
	err = s.watchedFor(ctx, answer, func(ctx context.Context, w *watch) error {
		upload := &upload{body: bytes.NewReader(body), limit: limit{ctx, s.opts.Limit, w.pause}, progress: func(left int) {
			if left > 0 {
				w.expect(s.opts.Stall)
			} else {
				w.expect(answer)
			}
		}}
		defer upload.release()
		info, err := s.core.PutObject(ctx, s.opts.Bucket, s.prefix+key, upload, int64(len(body)), "", payload.String(), opts)
		if err == nil && info.ETag == "" && info.ChecksumSHA256 == "" {
			return fmt.Errorf("%w: an upload is confirmed without an ETag", errNoService)
		}
		echo = info.ChecksumSHA256
		return err
	})
	return echo, err
}

func isTaken(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.StatusCode == http.StatusPreconditionFailed
}

// confirm checks that the service holds what was sent.
func (s *Store) confirm(ctx context.Context, key, echo string, sum remote.Hash) error {
	recorded, ok := parseSum(echo)
	if !ok {
		if s.noSums.Load() {
			return nil
		}
		info, err := s.Stat(ctx, key)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, remote.ErrDenied), err == nil && info.SHA256.IsZero():
			s.noSums.Store(true)
			return nil
		case err != nil:
			return nil // it took the object; only the question failed
		}
		recorded = info.SHA256
	}
	if recorded != sum {
		return fmt.Errorf("%w: the service recorded the SHA-256 %v for an upload with %v; the object is damaged, remove it", remote.ErrCorrupt, recorded, sum)
	}
	return nil
}

// errUnseen marks a remote.ErrExists of an object that could not be compared.
var errUnseen = errors.New("the object there could not be compared with what was sent")

// compare returns nil if key holds an object with this size and sum, and
// remote.ErrExists if it holds another or if nobody can say.
func (s *Store) compare(ctx context.Context, key string, size int64, sum remote.Hash, attempts int) error {
	unseen := func(err error) error {
		if e := (*remote.StoreError)(nil); errors.As(err, &e) {
			err = e.Err // the caller names the object
		}
		return fmt.Errorf("%w: an earlier attempt of this upload may have made it, but %w: %w", remote.ErrExists, errUnseen, err)
	}
	info, err := s.stat(ctx, key, "", attempts)
	switch {
	case err != nil:
		return unseen(err)
	case info.Size != size:
		return remote.ErrExists
	case info.SHA256.IsZero():
		r, err := s.Get(ctx, key, 0, -1)
		if err != nil {
			return unseen(err)
		}
		h := sha256.New()
		_, err = io.Copy(h, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return unseen(err)
		}
		h.Sum(info.SHA256[:0])
	}
	if info.SHA256 != sum {
		return remote.ErrExists
	}
	return nil
}

// upload is the body of a PUT. It has no other methods than these, or
// net/http would send it in one piece and without progress.
type upload struct {
	mu       sync.Mutex
	body     *bytes.Reader
	released bool
	limit    limit
	progress func(left int)
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	p, err := u.limit.wait(p, u.left()) // not under mu, which release needs
	if err != nil {
		return 0, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.released {
		return 0, context.Canceled
	}
	n, err := u.body.Read(p)
	u.progress(u.body.Len())
	return n, err
}

func (u *upload) left() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.body.Len()
}

// Seek implements io.Seeker.
func (u *upload) Seek(offset int64, whence int) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.body.Seek(offset, whence)
}

// release ends all reading. After an early answer net/http may go on to read
// in the background, when the bytes belong to the caller of Put again.
func (u *upload) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.released = true
}
