package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

var (
	// errStalled is why watch cancels an attempt.
	errStalled = errors.New("no answer or progress in time")
	// errAnswer is an answer that a sound service does not give. Proxies
	// do, in bad moments, so it is worth another attempt.
	errAnswer = errors.New("the service's answer makes no sense")
)

// retry calls attempt until it succeeds, fails for good, or was tried enough.
// It returns the last error as it is; see wrap.
func (s *Store) retry(ctx context.Context, attempts int, attempt func() error) error {
	tries := s.tries(attempts)
	for {
		if err := attempt(); err == nil || !tries.again(ctx, err) {
			return err
		}
	}
}

// retryable reports whether the same call may succeed a little later.
func (s *Store) retryable(err error) bool {
	if isExplained(err) {
		return false
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		switch answer.Code {
		case "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "RequestTimeout", "InternalError", "SlowDown":
			return true // the first three: what arrived is not what was sent
		case minio.AuthorizationHeaderMalformed, minio.InvalidRegion:
			return s.opts.Region == "" // minio now knows the region
		}
		switch answer.StatusCode {
		case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests, 499: // 499: nginx, connection closed
			return true
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
			return false
		}
		return answer.StatusCode >= 500
	}
	return !isTLS(err) // everything else happened on the network
}

// isExplained reports whether err comes from this package, which explained
// it, and not from minio or the network.
func isExplained(err error) bool {
	for _, e := range []error{remote.ErrCorrupt, remote.ErrUnsupported, remote.ErrDenied, remote.ErrExists, remote.ErrNoStore, remote.ErrNoLock, remote.ErrLocked, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isTLS reports whether err says that the other side is not who it should be
// or does not speak TLS, which no other attempt changes.
func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) ||
		errors.As(err, &invalid) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// watch cancels an attempt that makes no progress in time.
type watch struct {
	timer  *time.Timer
	silent *time.Timer // tells the person that there is no answer yet
	cancel context.CancelCauseFunc
}

// newWatch gives the attempt d until the first expect.
func (s *Store) newWatch(ctx context.Context, d time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{
		cancel: cancel,
		timer:  time.AfterFunc(d, func() { cancel(errStalled) }),
		silent: time.AfterFunc(slowAfter, func() { s.slow(errSilent) }),
	}
}

// expect asks for progress within d from now on.
func (w *watch) expect(d time.Duration) {
	w.silent.Stop()
	w.timer.Reset(d)
}

// pause asks for none until the next expect.
func (w *watch) pause() {
	w.silent.Stop()
	w.timer.Stop()
}

// end releases what belongs to the attempt.
func (w *watch) end() {
	w.pause()
	w.cancel(nil)
}

// watchedFor runs one attempt under a watch that first waits d for an answer.
func (s *Store) watchedFor(ctx context.Context, d time.Duration, attempt func(context.Context, *watch) error) error {
	ctx, w := s.newWatch(ctx, d)
	defer w.end()
	return stalledOr(ctx, attempt(ctx, w))
}

// watched is watchedFor for calls that carry no body.
func (s *Store) watched(ctx context.Context, attempt func(context.Context) error) error {
	return s.watchedFor(ctx, s.opts.Stall, func(ctx context.Context, _ *watch) error { return attempt(ctx) })
}

// stalledOr returns err, or why the watch cancelled ctx if it did.
func stalledOr(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled // without the context's own error: the caller did not cancel
	}
	return err
}

// wrap says what failed, where, and what to do, in errors of package remote.
func (s *Store) wrap(ctx context.Context, verb, key string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	} else {
		sealed := isWithheld(verb, err)
		if err = s.explain(err); sealed {
			err = fmt.Errorf("%w: %w", remote.ErrUnreadable, err)
		}
	}
	return &remote.StoreError{Op: verb, Key: key, Where: s.opts.URL(), Err: err}
}

// isWithheld reports whether the service has an object and does not give it out:
// it is in an archive, or was put with a customer's own key.
func isWithheld(verb string, err error) bool {
	var answer minio.ErrorResponse
	return verb == "get" && !isExplained(err) && errors.As(err, &answer) &&
		(answer.Code == "InvalidObjectState" || answer.Code == "InvalidRequest")
}

func (s *Store) explain(err error) error {
	if isExplained(err) {
		return err
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		var dns *net.DNSError
		switch {
		case errors.Is(err, errNoCredentials):
			return denied{err}
		case errors.Is(err, errNoService):
			return fmt.Errorf("%w: %w; check the endpoint", remote.ErrNoStore, brief(err))
		case errors.Is(err, errAnswer):
			return fmt.Errorf("%w: %w", remote.ErrCorrupt, err)
		case isTLS(err):
			return fmt.Errorf("%w: the service's certificate is not valid here (a private authority's certificate goes into the file that SSL_CERT_FILE names), or it does not speak TLS: %w", remote.ErrNoStore, err)
		case errors.As(err, &dns):
			return fmt.Errorf("%w: the endpoint's name was not found, check it and the network: %w", remote.ErrNoStore, err)
		}
		return fmt.Errorf("%w: the service cannot be reached, check the endpoint and the network: %w", remote.ErrNoStore, err)
	}
	detail := fmt.Errorf("%w (%s, HTTP %d)", answer, answer.Code, answer.StatusCode)
	switch answer.Code {
	case minio.NoSuchKey:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, detail)
	case minio.NoSuchBucket:
		return fmt.Errorf("%w: create bucket %q first, or check its name: %w", remote.ErrNoStore, s.opts.Bucket, detail)
	case "PermanentRedirect", "TemporaryRedirect", minio.InvalidRegion, minio.AuthorizationHeaderMalformed:
		return fmt.Errorf("%w: the bucket is in another region, set region=%s in the store's address: %w", remote.ErrNoStore, firstOf(answer.Region, "…"), detail)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: this machine's clock is wrong, set it: %w", remote.ErrDenied, detail)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken":
		return fmt.Errorf("%w: the service does not accept the credentials, check them: %w", remote.ErrDenied, detail)
	case "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded":
		return fmt.Errorf("the store is full, make room there or raise its quota: %w", detail)
	case "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody":
		return fmt.Errorf("%w: the service received other bytes than were sent: %w", remote.ErrCorrupt, detail)
	}
	switch answer.StatusCode {
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", remote.ErrExists, detail)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: the credentials' policy has to permit it: %w", remote.ErrDenied, detail)
	case http.StatusInsufficientStorage:
		return fmt.Errorf("the store is full, make room there or raise its quota: %w", detail)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, detail)
	}
	if s.retryable(err) {
		return fmt.Errorf("%w: the service is out of order or busy, try again later: %w", remote.ErrNoStore, detail)
	}
	return detail
}
