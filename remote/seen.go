package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Seen remembers, outside of the stores, the newest manifest that each writer
// of each store has shown here. A chain of signatures cannot tell a store that
// hides its newest snapshots from one where they were not made yet; this
// memory can, as far as it reaches.
//
// It is a small JSON file that is replaced as a whole. Two processes that
// write it at the same moment may lose the later of two memories, never gain
// a wrong one. It is safe for concurrent use within one process.
type Seen struct {
	path string

	mu     sync.Mutex
	stores map[string]map[string]sighting
}

// sighting is the newest manifest of a writer and when it was seen first.
type sighting struct {
	Seq  Seq    `json:"seq"`
	Hash Hash   `json:"sha256"`
	When string `json:"when"` // RFC 3339, UTC
	// Signer is the public key that signed it, "" where that was not noted:
	// if the root key has revoked it since, the memory may be a thief's.
	Signer string `json:"signer,omitempty"`
}

// Rollback says that a store shows less of a writer than it did before. It is
// an ErrNotTrusted.
type Rollback struct {
	Store, Writer string
	Shown         Seq // 0 if the store shows no manifest at all
	Remembered    Seq
	When          string // when the remembered one was first seen here, RFC 3339
}

// Error says what happened, and what it may mean.
func (r *Rollback) Error() string {
	shown := "shows none now"
	if r.Shown > 0 {
		shown = fmt.Sprintf("shows nothing after run %d now", r.Shown)
	}
	return fmt.Sprintf("store %s %s of writer %q, but showed run %d on %s: newer snapshots were removed or hidden, or this is an old copy of the store",
		r.Store, shown, r.Writer, r.Remembered, r.When)
}

// Unwrap makes a Rollback an ErrNotTrusted.
func (r *Rollback) Unwrap() error { return ErrNotTrusted }

// OpenSeen reads the memory. If there is no file it remembers nothing yet; the
// first Check that has something to remember makes it, in a folder that must
// exist.
func OpenSeen(path string) (*Seen, error) {
	s := &Seen{path: path}
	var err error
	s.stores, err = s.load()
	return s, err
}

func (s *Seen) load() (map[string]map[string]sighting, error) {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return make(map[string]map[string]sighting), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which snapshots were seen before: %w", err)
	}
	var f struct {
		Format int                            `json:"format"`
		Stores map[string]map[string]sighting `json:"stores"`
	}
	if err := json.Unmarshal(data, &f); err != nil || f.Stores == nil {
		return nil, fmt.Errorf("%q, which says which snapshots were seen before, is damaged: %w; "+
			"without the file, no store that hides its newest snapshots is noticed until it is remembered anew", s.path, errors.Join(ErrCorrupt, err))
	}
	if f.Format != FormatVersion {
		return nil, fmt.Errorf("%q: %w: format %d", s.path, ErrUnsupported, f.Format)
	}
	return f.Stores, nil
}

// Check compares the newest manifest of a writer with what the store showed
// before, and remembers it if it is newer. seq is 0 and hash zero if the store
// shows none. An older one is a *Rollback, another one of the same run an
// ErrNotTrusted; then the memory stays as it was.
func (s *Seen) Check(store, writer string, seq Seq, hash Hash, now time.Time) error {
	return s.check(store, writer, sighting{Seq: seq, Hash: hash}, Signers{}, now)
}

// check is Check for a manifest whose signer is known, and forgets what the
// revocations among signers say does not count.
func (s *Seen) check(store, writer string, shown sighting, signers Signers, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	forget := func(stores map[string]map[string]sighting) {
		if old, ok := stores[store][writer]; ok && signers.withdrawn(old) {
			delete(stores[store], writer)
		}
	}
	forget(s.stores)
	if newer, err := s.compare(store, writer, shown.Seq, shown.Hash); err != nil || !newer {
		return err
	}
	// Another process may have learnt something since the file was read.
	stores, err := s.load()
	if err != nil {
		return err
	}
	forget(stores)
	for store, writers := range s.stores {
		for writer, w := range writers {
			keep(stores, store, writer, w)
		}
	}
	s.stores = stores
	if newer, err := s.compare(store, writer, shown.Seq, shown.Hash); err != nil || !newer {
		return err
	}
	shown.When = now.UTC().Format(time.RFC3339)
	keep(s.stores, store, writer, shown)
	if err := s.save(); err != nil {
		return fmt.Errorf("remember which snapshots were seen: %w", err)
	}
	return nil
}

// compare holds a sighting against the memory and says whether it is newer.
func (s *Seen) compare(store, writer string, seq Seq, hash Hash) (newer bool, err error) {
	old := s.stores[store][writer]
	switch {
	case seq < old.Seq:
		return false, &Rollback{Store: store, Writer: writer, Shown: seq, Remembered: old.Seq, When: old.When}
	case seq == old.Seq && hash != old.Hash:
		return false, fmt.Errorf("%w: store %s shows another manifest of run %d of writer %q than on %s: it was replaced, or two machines write with one writer's key",
			ErrNotTrusted, store, seq, writer, old.When)
	}
	return seq > old.Seq, nil
}

// Writers returns the names of the writers that a store has shown, sorted, so
// that one which vanished as a whole is noticed too.
func (s *Seen) Writers(store string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.stores[store]))
}

// keep puts a sighting unless there is a newer one.
func keep(stores map[string]map[string]sighting, store, writer string, w sighting) {
	if stores[store] == nil {
		stores[store] = make(map[string]sighting)
	}
	if old, ok := stores[store][writer]; !ok || old.Seq < w.Seq {
		stores[store][writer] = w
	}
}

func (s *Seen) save() (err error) {
	data, err := json.MarshalIndent(map[string]any{"format": FormatVersion, "stores": s.stores}, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".tmp-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path)
}
