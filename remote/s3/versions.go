package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/minio/minio-go/v7"

	"git.eeqj.de/sneak/vaultik/remote"
)

var (
	_ remote.Versioned           = (*Store)(nil)
	_ remote.VersionFolderLister = (*Store)(nil)
)

// KeepsVersions implements remote.Versioned. A bucket whose versioning was
// suspended may hold versions, so it counts. A service that does not know what
// versions are keeps none. Where the credentials do not allow to ask, an object
// tells whether it is a version.
func (s *Store) KeepsVersions(ctx context.Context) (bool, error) {
	var c minio.BucketVersioningConfiguration
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) (err error) {
			c, err = s.core.GetBucketVersioning(ctx, s.opts.Bucket)
			return err
		})
	})
	switch status(err) {
	case http.StatusNotImplemented:
		return false, nil
	case http.StatusForbidden:
		return s.showsVersion(ctx)
	}
	return c.Enabled() || c.Suspended(), s.wrap(ctx, "ask for the versioning of", "", err)
}

// showsVersion looks whether the first object that is there is a version.
func (s *Store) showsVersion(ctx context.Context) (bool, error) {
	for o, err := range s.List(ctx, "") {
		if err != nil {
			return false, err
		}
		var info minio.ObjectInfo
		err := s.retry(ctx, s.opts.Attempts, func() error {
			return s.watched(ctx, func(ctx context.Context) (err error) {
				info, err = s.core.StatObject(ctx, s.opts.Bucket, s.prefix+o.Key, minio.StatObjectOptions{})
				return err
			})
		})
		return info.VersionID != "", s.wrap(ctx, "stat", o.Key, err)
	}
	return false, nil
}

// status is that of an answer which err is, or 0.
func status(err error) int {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

// Versions implements remote.Versioned. It holds two pages of 1,000 versions
// at most, unless one object has more.
func (s *Store) Versions(ctx context.Context, prefix string) iter.Seq2[remote.Version, error] {
	return func(yield func(remote.Version, error) bool) {
		l := versions{store: s, prefix: prefix, yield: yield}
		if err := s.resume(ctx, &l.yielding, l.from); err != nil {
			yield(remote.Version{}, s.wrap(ctx, "list the versions of", prefix, err))
		}
	}
}

// versions is a listing of versions. Services differ in how they order a page:
// Amazon by object, others the delete markers after all that are none.
type versions struct {
	yielding
	store  *Store
	prefix string
	yield  func(remote.Version, error) bool
	last   string // key of the last object of which all versions were yielded
}

// from yields what comes behind l.last.
func (l *versions) from(ctx context.Context) error {
	s := l.store
	full := s.prefix + l.prefix
	return s.watchedFor(ctx, s.opts.Stall, func(ctx context.Context, w *watch) error {
		var pages atomic.Int32
		ctx = context.WithValue(ctx, pagesKey{}, &pages)
		start := ""
		if l.last != "" {
			start = s.prefix + l.last
		}
		var page []remote.Version
		seen := int32(1)
		for o := range s.core.ListObjectsIter(ctx, s.opts.Bucket, minio.ListObjectsOptions{
			Prefix: full, Recursive: true, WithVersions: true, StartAfter: start,
		}) {
			switch n := pages.Load(); {
			case o.Err != nil:
				return o.Err
			case !strings.HasPrefix(o.Key, full):
				return fmt.Errorf("%w: a version of %q is listed below %q", errAnswer, o.Key, full)
			case n != seen:
				seen = n
				w.pause() // the caller takes its time
				var err error
				if page, err = l.hand(page, false); err != nil || l.stopped {
					return err
				}
				w.expect(s.opts.Stall)
			}
			if key := strings.TrimPrefix(o.Key, s.prefix); key > l.last || l.last == "" { // a service that ignores StartAfter begins anew
				page = append(page, remote.Version{
					Info: remote.Info{Key: key, Size: o.Size, Modified: o.LastModified},
					ID:   o.VersionID, Marker: o.IsDeleteMarker, Latest: o.IsLatest,
				})
			}
		}
		if err := ctx.Err(); err != nil { // an iteration that was cancelled just ends
			return err
		}
		w.pause()
		_, err := l.hand(page, true)
		return err
	})
}

// hand yields the versions of the objects of which all are there, and returns
// the others: those of the last object, unless this is the end.
func (l *versions) hand(page []remote.Version, end bool) (rest []remote.Version, err error) {
	slices.SortStableFunc(page, func(a, b remote.Version) int {
		onTop := 0 // of one second, perhaps, or the service's clock was set back
		if a.Latest != b.Latest {
			onTop = 1
			if a.Latest {
				onTop = -1
			}
		}
		return cmp.Or(strings.Compare(a.Key, b.Key), onTop, b.Modified.Compare(a.Modified))
	})
	for i, v := range page {
		switch {
		case !end && v.Key == page[len(page)-1].Key:
			return slices.Clone(page[i:]), nil
		case v.Key < l.last:
			return nil, fmt.Errorf("the service lists %q after %q and so not in byte order: %w", v.Key, l.last, remote.ErrUnsupported)
		case i > 0 && v.Key == page[i-1].Key && v.ID == page[i-1].ID:
			continue // pages that overlap
		}
		l.progress = true
		if !l.yield(v, nil) {
			l.stopped = true
			return nil, nil
		}
		if i+1 == len(page) || page[i+1].Key != v.Key {
			l.last = v.Key
		}
	}
	return nil, nil
}

// VersionFolders implements remote.VersionFolderLister.
func (s *Store) VersionFolders(ctx context.Context, prefix string) ([]string, error) {
	return s.folders(ctx, prefix, true)
}

// GetVersion implements remote.Versioned.
func (s *Store) GetVersion(ctx context.Context, key, id string, off, n int64) (io.ReadCloser, error) {
	r, err := s.get(ctx, key, id, off, n)
	return r, ofMarker(err)
}

// StatVersion implements remote.Versioned.
func (s *Store) StatVersion(ctx context.Context, key, id string) (remote.Info, error) {
	info, err := s.stat(ctx, key, id, s.opts.Attempts)
	return info, ofMarker(err)
}

// ofMarker recognises the answer to a request for a delete marker's content.
func ofMarker(err error) error {
	if e := (*remote.StoreError)(nil); errors.As(err, &e) && status(err) == http.StatusMethodNotAllowed {
		e.Err = fmt.Errorf("%w: %w", fs.ErrNotExist, e.Err)
	}
	return err
}

// DeleteVersion implements remote.Versioned.
func (s *Store) DeleteVersion(ctx context.Context, key, id string) error {
	err := s.retry(ctx, s.opts.Attempts, func() error {
		return s.watched(ctx, func(ctx context.Context) error {
			return s.core.RemoveObject(ctx, s.opts.Bucket, s.prefix+key, minio.RemoveObjectOptions{VersionID: id})
		})
	})
	if status(err) == http.StatusNotFound && minio.ToErrorResponse(err).Code != minio.NoSuchBucket {
		return nil
	}
	return s.wrap(ctx, "delete a version of", key, s.whetherLocked(ctx, key, id, err))
}
