package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Memory remembers how far the objects of stores were read on this machine. It
// is a small JSON file; without it the rotation begins anew, and nothing worse.
type Memory struct {
	path   string
	stores map[string]Coverage
}

// Coverage says what of a store was read on this machine. A round goes through
// the objects by hash, from the first to the last.
type Coverage struct {
	Cursor remote.Hash `json:"cursor"` // the last one that was read in this round; zero: none yet
	Began  time.Time   `json:"began"`  // this round; zero if it has not
	Round  *Round      `json:"round"`  // the last whole one, nil if there was none

	Read, All Tally `json:"-"` // read in this round, of all there are
}

// Round is a time in which every object was read that was there all the time.
type Round struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
}

// OpenMemory reads the memory; a file that does not exist remembers nothing.
func OpenMemory(path string) (*Memory, error) {
	m := &Memory{path: path, stores: make(map[string]Coverage)}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was audited before: %w", err)
	}
	var f struct {
		Format int                 `json:"format"`
		Stores map[string]Coverage `json:"stores"`
	}
	if err := json.Unmarshal(data, &f); err != nil || f.Stores == nil {
		return nil, fmt.Errorf("%q, which says what was audited before, is damaged: %w; remove it, and the rotation begins anew", path, errors.Join(remote.ErrCorrupt, err))
	}
	if f.Format != remote.FormatVersion {
		return nil, fmt.Errorf("%q: %w: format %d", path, remote.ErrUnsupported, f.Format)
	}
	m.stores = f.Stores
	return m, nil
}

// advance notes that read, the first of the objects that were chosen, were read
// between began and now. all are those there are, by hash; whole says that
// nothing which was read before counts.
func (m *Memory) advance(scope string, all, read []object, whole bool, began, now time.Time) error {
	if len(read) == 0 {
		return nil
	}
	c, end, last := m.stores[scope], all[len(all)-1].name.SHA256, read[len(read)-1].name.SHA256
	ended := slices.ContainsFunc(read, func(o object) bool { return o.name.SHA256 == end })
	switch {
	case whole && !ended && bytes.Compare(last[:], c.Cursor[:]) <= 0:
		return nil // it was stopped before it came to where the rotation is
	case whole || c.Began.IsZero():
		c.Began = began
	}
	c.Cursor = last
	if ended {
		c.Round = &Round{Began: c.Began, Ended: now}
		c.Began = began
	}
	if last == end {
		c.Cursor, c.Began = remote.Hash{}, time.Time{}
	}
	m.stores[scope] = c
	return m.save()
}

// coverage is what is known of the objects that there are now.
func (m *Memory) coverage(scope string, all []object) *Coverage {
	c := m.stores[scope]
	for _, o := range all {
		c.All.add(o.size)
		if bytes.Compare(o.name.SHA256[:], c.Cursor[:]) <= 0 {
			c.Read.add(o.size)
		}
	}
	return &c
}

// save replaces the file as a whole.
func (m *Memory) save() (err error) {
	data, err := json.MarshalIndent(map[string]any{"format": remote.FormatVersion, "stores": m.stores}, "", "\t")
	if err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(m.path), fmt.Sprintf(".%s-%d", filepath.Base(m.path), os.Getpid()))
	if err = os.WriteFile(temp, append(data, '\n'), 0o600); err == nil {
		err = os.Rename(temp, m.path)
	}
	if err != nil {
		_ = os.Remove(temp) // it may not even be there
		return fmt.Errorf("remember what was read: %w", err)
	}
	return nil
}
