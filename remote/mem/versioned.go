package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Versioned is a remote.Versioned in memory that can lock what it is given,
// as a bucket with object lock does. Use NewVersioned.
type Versioned struct {
	now func() time.Time

	mu      sync.Mutex
	lock    remote.Lock
	made    int                   // versions, ever
	objects map[string][]*version // the newest first
}

type version struct {
	body      []byte // never changed
	info      remote.Version
	sum       remote.Hash
	retention remote.Retention
}

var (
	_ remote.Versioned = (*Versioned)(nil)
	_ remote.Locking   = (*Versioned)(nil)
)

// NewVersioned returns an empty store. now is the store's clock, by which
// locks end; nil means time.Now.
func NewVersioned(now func() time.Time) *Versioned {
	if now == nil {
		now = time.Now
	}
	return &Versioned{now: now, objects: make(map[string][]*version)}
}

// CheckLock implements remote.Locking.
func (s *Versioned) CheckLock(ctx context.Context) error { return ctx.Err() }

// LockPuts implements remote.Locking.
func (s *Versioned) LockPuts(l remote.Lock) { s.lock = l }

// KeepsVersions implements remote.Versioned.
func (s *Versioned) KeepsVersions(ctx context.Context) (bool, error) { return true, ctx.Err() }

// Put implements remote.Store. An object below a delete marker is no obstacle.
func (s *Versioned) Put(ctx context.Context, key string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %q: %w", key, err)
	}
	if key == "" {
		return fmt.Errorf("put %q: a key is never empty", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.objects[key]; len(v) > 0 && !v[0].info.Marker {
		return fmt.Errorf("put %q: %w", key, remote.ErrExists)
	}
	s.top(key, body, false)
	return nil
}

// Overwrite puts a new version on top of whatever is there: what somebody with
// the credentials can do who does not keep to the rules.
func (s *Versioned) Overwrite(key string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.top(key, body, false)
}

func (s *Versioned) top(key string, body []byte, marker bool) {
	now := s.now()
	s.made++
	v := &version{body: bytes.Clone(body), sum: remote.Sum(body), info: remote.Version{
		Info: remote.Info{Key: key, Size: int64(len(body)), Modified: now}, ID: strconv.Itoa(s.made), Marker: marker,
	}}
	if s.lock.For > 0 && !marker {
		v.retention = s.lock.Retention(now)
	}
	s.objects[key] = slices.Insert(s.objects[key], 0, v)
}

// Delete implements remote.Store: it puts a delete marker on top.
func (s *Versioned) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.objects[key]; len(v) > 0 && !v[0].info.Marker {
		s.top(key, nil, true)
	}
	return nil
}

// Get implements remote.Store.
func (s *Versioned) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return s.GetVersion(ctx, key, "", off, n)
}

// GetVersion implements remote.Versioned.
func (s *Versioned) GetVersion(ctx context.Context, key, id string, off, n int64) (io.ReadCloser, error) {
	v, err := s.find(ctx, "get", key, id)
	if err != nil {
		return nil, err
	}
	size := v.info.Size
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return nil, fmt.Errorf("get %d bytes from %d on of %q, which has %d: %w", n, off, key, size, remote.ErrCorrupt)
	}
	return &reader{ctx: ctx, body: bytes.NewReader(v.body[off : off+n])}, nil
}

// Stat implements remote.Store.
func (s *Versioned) Stat(ctx context.Context, key string) (remote.Info, error) {
	return s.StatVersion(ctx, key, "")
}

// StatVersion implements remote.Versioned.
func (s *Versioned) StatVersion(ctx context.Context, key, id string) (remote.Info, error) {
	v, err := s.find(ctx, "stat", key, id)
	if err != nil {
		return remote.Info{}, err
	}
	info := v.info.Info
	info.SHA256 = v.sum
	return info, nil
}

// find returns a version, or the one on top if id is "".
func (s *Versioned) find(ctx context.Context, verb, key, id string) (*version, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s %q: %w", verb, key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.objects[key]
	i := slices.IndexFunc(all, func(v *version) bool { return id == "" || v.info.ID == id })
	if i < 0 || all[i].info.Marker {
		return nil, fmt.Errorf("%s %q: %w", verb, key, fs.ErrNotExist)
	}
	return all[i], nil
}

// List implements remote.Store.
func (s *Versioned) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		for v, err := range s.Versions(ctx, prefix) {
			if err == nil && (!v.Latest || v.Marker) {
				continue
			}
			if !yield(v.Info, err) {
				return
			}
		}
	}
}

// Versions implements remote.Versioned. It shows the store as it was when the
// iteration began.
func (s *Versioned) Versions(ctx context.Context, prefix string) iter.Seq2[remote.Version, error] {
	return func(yield func(remote.Version, error) bool) {
		s.mu.Lock()
		var all []remote.Version
		for _, key := range slices.Sorted(maps.Keys(s.objects)) {
			for i, v := range s.objects[key] {
				if strings.HasPrefix(key, prefix) {
					info := v.info
					info.Latest = i == 0
					all = append(all, info)
				}
			}
		}
		s.mu.Unlock()
		for _, v := range all {
			if ctx.Err() != nil {
				break
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(remote.Version{}, fmt.Errorf("list versions of %q: %w", prefix, err))
		}
	}
}

// DeleteVersion implements remote.Versioned.
func (s *Versioned) DeleteVersion(ctx context.Context, key, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete a version of %q: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.objects[key]
	i := slices.IndexFunc(all, func(v *version) bool { return v.info.ID == id })
	if i < 0 {
		return nil
	}
	if s.locked(all[i]) {
		return fmt.Errorf("delete a version of %q: %w until %v", key, remote.ErrLocked, all[i].retention.Until)
	}
	if s.objects[key] = slices.Delete(all, i, i+1); len(s.objects[key]) == 0 {
		delete(s.objects, key)
	}
	return nil
}

func (s *Versioned) locked(v *version) bool {
	return v.retention.Mode != "" && s.now().Before(v.retention.Until)
}

// Retention implements remote.Versioned.
func (s *Versioned) Retention(ctx context.Context, key, id string) (remote.Retention, error) {
	v, err := s.find(ctx, "ask for the lock of", key, id)
	if err != nil {
		return remote.Retention{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return v.retention, nil
}

// Retain implements remote.Versioned. A lock that holds can only become
// longer.
func (s *Versioned) Retain(ctx context.Context, key, id string, r remote.Retention) error {
	v, err := s.find(ctx, "lock", key, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old := v.retention; {
	case !s.now().Before(r.Until):
		return fmt.Errorf("lock %q until %v, which is not in the future", key, r.Until)
	case s.locked(v) && (r.Mode != old.Mode || r.Until.Before(old.Until)):
		return fmt.Errorf("lock %q: %w in mode %s until %v", key, remote.ErrLocked, old.Mode, old.Until)
	}
	v.retention = r
	return nil
}
