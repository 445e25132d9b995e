package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// journal is what undoing needs to know. It holds no secret.
type journal struct {
	Store   string                 `json:"store"`
	Objects map[string]remote.Hash `json:"objects"` // put into the store, or about to be
	Files   map[string]remote.Hash `json:"files"`   // written outside the state folder, or about to be
}

// fileLimit bounds everything that init writes, in bytes.
const fileLimit = 1 << 20

// put notes an object in the journal, then puts it.
func (s *Plan) put(ctx context.Context, key string, object []byte) error {
	s.journal.Objects[key] = remote.Sum(object)
	if err := s.note(); err != nil {
		return err
	}
	return s.store.Put(ctx, key, object)
}

// file notes a file outside the state folder in the journal, then writes it.
func (s *Plan) file(path string, content []byte) error {
	s.journal.Files[path] = remote.Sum(content)
	if err := s.note(); err != nil {
		return err
	}
	err := state.Create(path, content)
	if errors.Is(err, fs.ErrExist) { // somebody else's
		delete(s.journal.Files, path)
		return errors.Join(err, s.note())
	}
	return err
}

// note replaces the journal.
func (s *Plan) note() error {
	text, err := json.Marshal(s.journal)
	if err != nil {
		return err
	}
	next := filepath.Join(s.staging(), journalFile+".next")
	if err := errors.Join(state.IgnoreMissing(os.Remove(next)), state.Create(next, text)); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(s.staging(), journalFile)); err != nil {
		return err
	}
	return state.SyncFolder(s.staging())
}

// repair undoes an init that a crash interrupted. The lock says that it is
// not just at work.
func (s *Plan) repair(ctx context.Context) error {
	if _, err := os.Lstat(s.staging()); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	store, err := s.journalStore(ctx)
	if err != nil {
		return fmt.Errorf("clean up after an init that was interrupted (or give it up and remove the folder %q): %w", s.staging(), err)
	}
	if store != nil {
		defer store.Close()
	}
	if err := undo(ctx, s.staging(), store); err != nil {
		return fmt.Errorf("clean up after an init that was interrupted: %w", err)
	}
	s.UI.Note("an earlier init was interrupted; what it had made is removed")
	return nil
}

// journalStore opens the store that the journal names; nil if nothing was put
// into one.
func (s *Plan) journalStore(ctx context.Context) (stores.Store, error) {
	j, err := readJournal(s.staging())
	if err != nil || len(j.Objects) == 0 {
		return nil, err
	}
	u, err := stores.ParseURL(j.Store)
	if err != nil {
		return nil, err
	}
	return u.Open(ctx, s.Route)
}

func readJournal(staging string) (journal, error) {
	var j journal
	text, err := state.ReadFile(filepath.Join(staging, journalFile), fileLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil // interrupted before anything left the folder
	}
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return j, fmt.Errorf("the journal in %q is damaged: %w", staging, err)
	}
	return j, nil
}

// undo removes what the journal names, as far as it is what this init made,
// and the staging folder last. It can be repeated.
func undo(ctx context.Context, staging string, store remote.Store) error {
	j, err := readJournal(staging)
	if err != nil {
		return err
	}
	for path, sum := range j.Files {
		content, err := state.ReadFile(path, fileLimit)
		if err == nil && remote.Sum(content) == sum {
			err = os.Remove(path)
		}
		if state.IgnoreMissing(err) != nil {
			return err
		}
	}
	for key, sum := range j.Objects {
		object, err := stores.Fetch(ctx, store, key, fileLimit)
		if err == nil && remote.Sum(object) == sum {
			err = store.Delete(ctx, key)
		}
		if errors.Is(err, remote.ErrDenied) {
			continue // credentials that may only write: the name stays taken
		}
		if state.IgnoreMissing(err) != nil {
			return err
		}
	}
	return os.RemoveAll(staging)
}
