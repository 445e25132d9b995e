package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrReadOnly: what was asked for would change a store that only shows how it
// once was.
var ErrReadOnly = errors.New("the store as it was cannot be changed")

// VersionFolderLister is what a Versioned store may offer beyond the
// interface: FolderLister over all versions, delete markers included.
type VersionFolderLister interface {
	VersionFolders(ctx context.Context, prefix string) ([]string, error)
}

// AsOf returns the store as it was at a moment, by the store's own clock: of
// every object the newest version that is not later. What was deleted or
// written over since then is there again, as long as the store has kept it.
func AsOf(s Versioned, at time.Time) Store {
	return &asOf{store: s, at: at, found: make(map[string]Version)}
}

// asOf is a store at a moment. It does not change, except that a version may
// be deleted for good, so what was found once need not be asked for again.
type asOf struct {
	store Versioned
	at    time.Time

	mu    sync.Mutex
	found map[string]Version
}

// maxFound bounds the memory for what was found, which takes some 300 bytes
// an object.
const maxFound = 1 << 16

func (s *asOf) remember(v Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) >= maxFound {
		clear(s.found)
	}
	s.found[v.Key] = v
}

// version finds the version of one object.
func (s *asOf) version(ctx context.Context, verb, key string) (Version, error) {
	s.mu.Lock()
	v, ok := s.found[key]
	s.mu.Unlock()
	if ok {
		return v, nil
	}
	for v, err := range s.live(ctx, key) {
		switch {
		case err != nil:
			return Version{}, err
		case v.Key == key:
			s.remember(v)
			return v, nil
		}
		break // those that follow are longer
	}
	return Version{}, fmt.Errorf("%s %q as of %s: %w", verb, key, s.at.UTC().Format(time.RFC3339), fs.ErrNotExist)
}

// live yields the version of each object that was on top at the moment.
func (s *asOf) live(ctx context.Context, prefix string) iter.Seq2[Version, error] {
	return func(yield func(Version, error) bool) {
		decided := ""
		for v, err := range s.store.Versions(ctx, prefix) {
			if err != nil {
				yield(Version{}, err)
				return
			}
			if v.Key == decided || v.Modified.After(s.at) {
				continue
			}
			decided = v.Key
			if !v.Marker && !yield(v, nil) {
				return
			}
		}
	}
}

// Get implements Store.
func (s *asOf) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	v, err := s.version(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	return s.store.GetVersion(ctx, key, v.ID, off, n)
}

// Stat implements Store.
func (s *asOf) Stat(ctx context.Context, key string) (Info, error) {
	v, err := s.version(ctx, "stat", key)
	if err != nil {
		return Info{}, err
	}
	return s.store.StatVersion(ctx, key, v.ID)
}

// List implements Store.
func (s *asOf) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for v, err := range s.live(ctx, prefix) {
			if err == nil {
				s.remember(v)
			}
			if !yield(v.Info, err) {
				return
			}
		}
	}
}

// Folders implements FolderLister.
func (s *asOf) Folders(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	lister, ok := s.store.(VersionFolderLister)
	if !ok {
		for info, err := range s.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			if name, _, below := strings.Cut(strings.TrimPrefix(info.Key, prefix), "/"); below {
				names = append(names, name)
			}
		}
		return slices.Compact(names), nil
	}
	all, err := lister.VersionFolders(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		for _, err := range s.live(ctx, prefix+name+"/") {
			if err != nil {
				return nil, err
			}
			names = append(names, name)
			break
		}
	}
	return names, nil
}

// Put implements Store: ErrReadOnly.
func (s *asOf) Put(_ context.Context, key string, _ []byte) error {
	return fmt.Errorf("put %q: %w", key, ErrReadOnly)
}

// Delete implements Store: ErrReadOnly.
func (s *asOf) Delete(_ context.Context, key string) error {
	return fmt.Errorf("delete %q: %w", key, ErrReadOnly)
}
