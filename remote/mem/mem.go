// Package mem is a store in memory, for tests and for dry runs. It keeps
// every promise of remote.Store except durability: the objects are gone when
// the process ends. It is also the shortest statement of what a store does.
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
	"strings"
	"sync"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Store is a remote.Store in memory. Use New.
type Store struct {
	now func() time.Time

	mu      sync.RWMutex
	objects map[string]object
}

type object struct {
	body []byte // never changed once it is in the map
	info remote.Info
}

// New returns an empty store. now is the store's clock and only fills
// remote.Info.Modified; nil means time.Now.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, objects: make(map[string]object)}
}

// Put implements remote.Store. It keeps a copy of body.
func (s *Store) Put(ctx context.Context, key string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %q: %w", key, err)
	}
	if key == "" {
		return fmt.Errorf("put %q: a key is never empty", key)
	}
	o := object{body: bytes.Clone(body), info: remote.Info{
		Key: key, Size: int64(len(body)), Modified: s.now(), SHA256: remote.Sum(body),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken {
		return fmt.Errorf("put %q: %w", key, remote.ErrExists)
	}
	s.objects[key] = o
	return nil
}

// Get implements remote.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, err := s.object(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		n = o.info.Size - off
	}
	if off < 0 || n < 0 || off > o.info.Size || n > o.info.Size-off {
		return nil, fmt.Errorf("get %d bytes from %d on of %q, which has %d: %w", n, off, key, o.info.Size, remote.ErrCorrupt)
	}
	return &reader{ctx: ctx, body: bytes.NewReader(o.body[off : off+n])}, nil
}

// Stat implements remote.Store. SHA256 is always set.
func (s *Store) Stat(ctx context.Context, key string) (remote.Info, error) {
	o, err := s.object(ctx, "stat", key)
	return o.info, err
}

// List implements remote.Store. It shows the store as it was when the
// iteration began.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[remote.Info, error] {
	return func(yield func(remote.Info, error) bool) {
		s.mu.RLock()
		objects := maps.Clone(s.objects)
		s.mu.RUnlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(remote.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			info := objects[key].info
			info.SHA256 = remote.Hash{} // a listing has no sums in any store
			if !yield(info, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(remote.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// Delete implements remote.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

func (s *Store) object(ctx context.Context, verb, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, fmt.Errorf("%s %q: %w", verb, key, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %q: %w", verb, key, fs.ErrNotExist)
	}
	return o, nil
}

// reader ends with the context, as a reader over a network does.
type reader struct {
	ctx  context.Context
	body *bytes.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

func (r *reader) Close() error { return nil }
