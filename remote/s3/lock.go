package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

var _ remote.Locking = (*Store)(nil)

// Codes of answers about object lock.
const (
	noBucketLock = "ObjectLockConfigurationNotFoundError"
	noObjectLock = "NoSuchObjectLockConfiguration"
	badRequest   = "InvalidRequest" // Amazon's for every lock in a bucket without
)

// CheckLock implements remote.Locking.
func (s *Store) CheckLock(ctx context.Context) error {
	var enabled string
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) (err error) {
			enabled, _, _, _, err = s.core.GetObjectLockConfig(ctx, s.opts.Bucket)
			return err
		})
	})
	if code := minio.ToErrorResponse(err).Code; err == nil && enabled != "Enabled" || code == noBucketLock || status(err) == http.StatusNotImplemented {
		err = fmt.Errorf("%w: bucket %q was made without object lock, or the service has none; with most services it can only be chosen when a bucket is made", remote.ErrNoLock, s.opts.Bucket)
	}
	return s.wrap(ctx, "ask for the object lock of", "", err)
}

// LockPuts implements remote.Locking.
func (s *Store) LockPuts(l remote.Lock) { s.lock = l }

// refusedLock explains why a Put that was to lock was refused, if that was the
// reason.
func (s *Store) refusedLock(err error) error {
	if s.lock.For == 0 {
		return err
	}
	switch code := minio.ToErrorResponse(err).Code; {
	case code == badRequest || code == noBucketLock:
		return fmt.Errorf("%w: bucket %q was made without object lock: %w", remote.ErrNoLock, s.opts.Bucket, err)
	case status(err) == http.StatusNotImplemented:
		return fmt.Errorf("%w: the service has no object lock: %w", remote.ErrNoLock, err)
	}
	return err
}

// Retention implements remote.Versioned.
func (s *Store) Retention(ctx context.Context, key, id string) (remote.Retention, error) {
	var mode *minio.RetentionMode
	var until *time.Time
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) (err error) {
			mode, until, err = s.core.GetObjectRetention(ctx, s.opts.Bucket, s.prefix+key, id)
			return err
		})
	})
	switch code := minio.ToErrorResponse(err).Code; {
	case code == noObjectLock || code == noBucketLock || code == badRequest || status(err) == http.StatusNotImplemented:
		return remote.Retention{}, nil
	case err != nil:
		return remote.Retention{}, s.wrap(ctx, "ask for the lock of", key, err)
	case mode == nil || until == nil:
		return remote.Retention{}, nil
	}
	return remote.Retention{Mode: remote.LockMode(*mode), Until: until.UTC()}, nil
}

// held reports whether somebody put a legal hold, which has no end, on a
// version.
func (s *Store) held(ctx context.Context, key, id string) bool {
	var info minio.ObjectInfo
	err := s.watched(ctx, func(ctx context.Context) (err error) {
		info, err = s.core.StatObject(ctx, s.opts.Bucket, s.prefix+key, minio.StatObjectOptions{VersionID: id})
		return err
	})
	return err == nil && info.Metadata.Get("X-Amz-Object-Lock-Legal-Hold") == "ON"
}

// Retain implements remote.Versioned.
func (s *Store) Retain(ctx context.Context, key, id string, r remote.Retention) error {
	mode, until := minio.RetentionMode(r.Mode), r.Until
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) error {
			return s.core.PutObjectRetention(ctx, s.opts.Bucket, s.prefix+key, minio.PutObjectRetentionOptions{
				VersionID: id, Mode: &mode, RetainUntilDate: &until,
			})
		})
	})
	if code := minio.ToErrorResponse(err).Code; code == badRequest || code == noBucketLock {
		err = fmt.Errorf("%w: bucket %q was made without object lock: %w", remote.ErrNoLock, s.opts.Bucket, err)
	}
	return s.wrap(ctx, "lock", key, s.whetherLocked(ctx, key, id, err))
}

// whetherLocked makes err an ErrLocked if the service refused something
// because the version is locked. Services say so in different ways, Amazon in
// the same way as it denies.
func (s *Store) whetherLocked(ctx context.Context, key, id string, err error) error {
	if n := status(err); n < 400 || n > 499 || errors.Is(err, remote.ErrNoLock) {
		return err
	}
	r, asked := s.Retention(ctx, key, id)
	// The service watches the end by its own clock, and may have let it pass
	// while we ask.
	const skew = 15 * time.Minute
	switch {
	case asked == nil && r.Mode != "" && r.Until.After(s.now().Add(-skew)):
	case s.held(ctx, key, id):
		return fmt.Errorf("%w by a legal hold, which somebody has to take off: %w", remote.ErrLocked, err)
	default:
		return err
	}
	return fmt.Errorf("%w in mode %s until %s: %w", remote.ErrLocked, r.Mode, r.Until.UTC().Format(time.RFC3339), err)
}
