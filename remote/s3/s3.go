// Package s3 is a store in a bucket of an S3-compatible service.
//
// It keeps the contract of remote.Store with single requests only: every Put
// is one PUT with If-None-Match and the body's SHA-256, both as the signed
// payload hash and as x-amz-checksum-sha256, so that the service refuses what
// was damaged on the way and remembers the sum. Nothing is ever split into
// parts. The service's echo of the sum is compared with what was sent.
//
// Networks fail, so every call is tried several times, with growing random
// pauses, when the service is busy, answers nonsense, or cannot be reached. A
// transfer that makes no progress in either direction counts as failed; a
// download goes on where it stopped. The one hard case is a Put whose answer
// got lost: trying it again the service says that the key is taken, perhaps
// by the very same Put. Then the object is compared with what was sent.
//
// Not promised: that of several creators of a key at one time only one wins
// (some servers look first and write later; nothing in vaultik rests on it),
// and that objects stay intact (the sum that a service reports is the one of
// the upload, whatever its disk did since).
package s3

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Store is a remote.Store in a bucket. Use Open.
type Store struct {
	core      *minio.Core
	transport http.RoundTripper
	opts      Options
	prefix    string         // "" or with a "/" at the end
	jitter    func() float64 // in [0, 1)
	lock      remote.Lock    // of what is put
	now       func() time.Time

	// noSums is set once the service stored an object of ours without
	// recording its SHA-256, or would not say: then Put stops asking.
	noSums atomic.Bool

	mu       sync.Mutex
	slowTold time.Time // when Options.Slow was last called
}

// Open connects to a bucket. It finds credentials where the AWS tools find
// them: in the environment, in the profile AWS_PROFILE of the shared files,
// or from the container or machine it runs on. It lists the bucket once; one
// that is not there, a service that cannot be reached or does not get well in
// time, and whatever answers without being an S3 service, is
// remote.ErrNoStore. That the credentials allow nothing but PutObject is
// fine.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	creds, err := findCredentials(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.URL(), err)
	}
	host, secure := o.host()
	lookup := map[PathStyle]minio.BucketLookupType{
		PathStyleAuto: minio.BucketLookupAuto,
		PathStyleOn:   minio.BucketLookupPath,
		PathStyleOff:  minio.BucketLookupDNS,
	}[o.PathStyle]
	core, err := minio.NewCore(host, &minio.Options{
		Creds: creds, Secure: secure, Region: o.Region, Transport: listingsOnly{o.Transport}, BucketLookup: lookup,
		MaxRetries: 1, // retry.go does it, and knows which failures leave a Put in doubt
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.URL(), err)
	}
	s := &Store{core: core, transport: o.Transport, opts: o, jitter: rand.Float64, now: time.Now}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	if err := s.look(ctx); err != nil {
		s.closeIdle()
		return nil, err
	}
	return s, nil
}

// look fails if the bucket certainly does not exist or no S3 service answers.
// A person is waiting, so it gives up sooner than other calls where nothing
// answers at all: within a minute, with the usual Stall.
//
// It lists instead of asking for the bucket's HEAD, for a listing has a form:
// a captive portal, or a web server at a mistyped address, answers 200 to
// every HEAD.
func (s *Store) look(ctx context.Context) error {
	const attempts = 3 // that end without an answer
	silent := 0
	err := s.retry(ctx, s.opts.Attempts, func() error {
		err := s.watchedFor(ctx, s.opts.Stall/attempts, func(ctx context.Context, _ *watch) error {
			next, stop := iter.Pull(s.core.ListObjectsIter(ctx, s.opts.Bucket, minio.ListObjectsOptions{Prefix: s.prefix, MaxKeys: 1}))
			defer stop()
			if o, _ := next(); o.Err != nil {
				return o.Err
			}
			return ctx.Err() // an iteration that was cancelled just ends
		})
		if err == nil || errors.As(err, new(minio.ErrorResponse)) {
			return err
		}
		if silent++; silent == attempts {
			return s.explain(err) // is final
		}
		return err
	})
	if err = s.wrap(ctx, "open", "", err); errors.Is(err, remote.ErrNoStore) || ctx.Err() != nil {
		return err
	}
	return nil // what else may be wrong, the first real call says better
}

// Close closes idle connections. The store stays usable.
func (s *Store) Close() error {
	s.closeIdle()
	return nil
}

func (s *Store) closeIdle() {
	if t, ok := s.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Stat implements remote.Store. SHA256 is set if the service recorded it.
// With credentials that may not list the bucket a missing object is
// remote.ErrDenied, because the service will not say more.
func (s *Store) Stat(ctx context.Context, key string) (remote.Info, error) {
	return s.stat(ctx, key, "", s.opts.Attempts)
}

// stat is Stat for one version, or the one on top if version is "".
func (s *Store) stat(ctx context.Context, key, version string, attempts int) (remote.Info, error) {
	var info minio.ObjectInfo
	err := s.retry(ctx, attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) (err error) {
			info, err = s.core.StatObject(ctx, s.opts.Bucket, s.prefix+key, minio.StatObjectOptions{Checksum: true, VersionID: version})
			if err == nil && info.Size < 0 {
				err = fmt.Errorf("%w: no Content-Length", errAnswer)
			}
			return err
		})
	})
	if err != nil {
		return remote.Info{}, s.wrap(ctx, "stat", key, err)
	}
	sum, _ := parseSum(info.ChecksumSHA256)
	return remote.Info{Key: key, Size: info.Size, Modified: info.LastModified, SHA256: sum}, nil
}

// Delete implements remote.Store. In a bucket with versions the service keeps
// the object below a delete marker; see DeleteVersion.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) error {
			return s.core.RemoveObject(ctx, s.opts.Bucket, s.prefix+key, minio.RemoveObjectOptions{})
		})
	})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil
	}
	return s.wrap(ctx, "delete", key, err)
}

var _ remote.FolderLister = (*Store)(nil)

// List implements remote.Store, a page of 1,000 objects at a time. After a
// failure it goes on behind the last object that it yielded.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		l := listing{store: s, prefix: prefix, yield: yield}
		if err := s.resume(ctx, &l.yielding, l.from); err != nil {
			yield(remote.Info{}, s.wrap(ctx, "list", prefix, err))
		}
	}
}

// yielding is how a listing that may be taken up again stands.
type yielding struct {
	progress bool // something was yielded since this was set to false
	stopped  bool // by the caller
}

// resume calls from, which goes on where it was, until all was yielded or the
// caller has had enough. A failure counts only while nothing comes.
func (s *Store) resume(ctx context.Context, y *yielding, from func(context.Context) error) error {
	tries := s.tries(s.opts.Attempts)
	for {
		err := from(ctx)
		if err == nil || y.stopped {
			return nil
		}
		if y.progress {
			tries.progress()
			y.progress = false
		}
		if !tries.again(ctx, err) {
			return err
		}
	}
}

type listing struct {
	yielding
	store  *Store
	prefix string
	yield  func(remote.Info, error) bool
	last   string // full key of the last object that was yielded
}

// from yields what comes behind l.last.
func (l *listing) from(ctx context.Context) error {
	s := l.store
	full := s.prefix + l.prefix
	return s.watchedFor(ctx, s.opts.Stall, func(ctx context.Context, w *watch) error {
		start := l.last
		for o := range s.core.ListObjectsIter(ctx, s.opts.Bucket, minio.ListObjectsOptions{Prefix: full, Recursive: true, StartAfter: start}) {
			w.pause() // the caller takes its time
			switch {
			case o.Err != nil:
				return o.Err
			case !strings.HasPrefix(o.Key, full):
				return fmt.Errorf("%w: %q is listed below %q", errAnswer, o.Key, full)
			case start != "" && o.Key <= start:
				continue // a service that ignores StartAfter begins anew
			case o.Key <= l.last:
				return fmt.Errorf("the service lists %q after %q and so not in byte order, as S3 Express directory buckets do: %w", o.Key, l.last, remote.ErrUnsupported)
			}
			l.last, l.progress = o.Key, true
			if !l.yield(remote.Info{Key: strings.TrimPrefix(o.Key, s.prefix), Size: o.Size, Modified: o.LastModified}, nil) {
				l.stopped = true
				return nil
			}
			w.expect(s.opts.Stall)
		}
		return ctx.Err() // an iteration that was cancelled just ends
	})
}

// Folders implements remote.FolderLister with a listing by delimiter, which
// does not depend on how much is in the folders.
func (s *Store) Folders(ctx context.Context, prefix string) ([]string, error) {
	return s.folders(ctx, prefix, false)
}

func (s *Store) folders(ctx context.Context, prefix string, versions bool) ([]string, error) {
	full := s.prefix + prefix
	var folders []string
	err := s.retry(ctx, s.opts.Attempts, func() error {
		folders = nil
		return s.watched(ctx, func(ctx context.Context) error {
			for o := range s.core.ListObjectsIter(ctx, s.opts.Bucket, minio.ListObjectsOptions{Prefix: full, WithVersions: versions}) {
				if o.Err != nil {
					return o.Err
				}
				if name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, full), "/"); ok {
					folders = append(folders, name)
				}
			}
			return ctx.Err() // an iteration that was cancelled just ends
		})
	})
	if err != nil {
		return nil, s.wrap(ctx, "list the folders in", prefix, err)
	}
	return folders, nil
}

func parseSum(base64Sum string) (remote.Hash, bool) {
	var h remote.Hash
	b, err := base64.StdEncoding.DecodeString(base64Sum)
	if err != nil || len(b) != len(h) {
		return remote.Hash{}, false // none, or the composite sum of a multipart upload by others
	}
	copy(h[:], b)
	return h, true
}
