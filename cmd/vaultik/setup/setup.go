// Package setup makes this machine a writer of a store: anew, which is a Plan, or
// once more, with what a store still has of a writer that lost its files, which is a
// Revival.
//
// A Plan is carried out or leaves nothing behind, also where a crash interrupts it:
// the next one cleans up first. A Revival never goes on from less than the whole of
// what the store should have, deletes nothing that might still be of use, and can be
// repeated after every step. Neither asks anybody anything: words and options are
// checked before they come here.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Machine is what setting a machine up takes from its surroundings.
type Machine struct {
	UI      *ui.Printer
	Now     func() time.Time
	Random  io.Reader // of keys and secrets
	Route   stores.Route
	Version string // of vaultik, for the kit
}

// Plan is what init does. Everything is made in a folder of its own below the state
// folder, with a journal of what was put elsewhere; renaming that folder to the
// writer's is the moment when the machine is set up. Whatever fails before is undone
// at once, and what a crash left is undone by the next init, which finds the journal.
type Plan struct {
	Machine

	Where      state.Folders
	URL        stores.URL
	Paths      []string // to back up, absolute
	Writer     string
	Named      bool             // by a person: no number is appended
	Further    bool             // another machine has the kit
	Classic    bool             // the age identity is an X25519 one
	Recipients []string         // beside the identity's own
	RootKey    remote.PublicKey // of the machine with the kit; a first one makes its own
	LockTime   config.LockTime
	LockMode   config.LockMode
	Kit        string // path, chosen by Run if it is ""; none on a further machine

	sets      []config.TemplateSet // of a config that is brought back, instead of Paths
	kitFolder string
	store     stores.Store
	root      remote.SigningKey // of a first machine
	signer    remote.SigningKey
	identity  string
	journal   journal

	before func(step string) error // tests make a step fail
}

// unfinished and journalFile are names in the state folder. No writer's name
// begins with a dot.
const (
	unfinished  = ".init"
	journalFile = "journal.json"
)

func (s *Plan) stateDir() string { return filepath.Join(s.Where.State, s.Writer) }
func (s *Plan) staging() string  { return filepath.Join(s.Where.State, unfinished) }

// Run sets the machine up, and says what was made and what to do now. It takes the
// lock of the state folder.
func (s *Plan) Run(ctx context.Context) (err error) {
	_, missing := os.Lstat(s.Where.State)
	unlock, err := state.Lock(s.Where.State)
	if err != nil {
		return err
	}
	defer unlock()
	if errors.Is(missing, fs.ErrNotExist) {
		defer func() {
			if err != nil { // nobody can work with this folder yet; it stays if anything is in it
				os.Remove(filepath.Join(s.Where.State, state.LockFile))
				os.Remove(s.Where.State)
			}
		}()
	}
	if err := s.repair(ctx); err != nil {
		return err
	}
	if err := s.RefuseExisting(); err != nil {
		return err
	}
	var made bool
	if s.store, made, err = s.URL.Create(ctx, s.Route); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	if made {
		defer func() {
			if err != nil {
				os.Remove(s.URL.Folder()) // stays if anything is in it
			}
		}()
	}
	if err := s.refuseSecondRoot(ctx); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	if err := stores.LockUploads(ctx, s.store, config.LockOf(s.LockTime, s.LockMode, s.Now)); err != nil {
		return err
	}
	if err := s.keys(); err != nil {
		return err
	}
	if err := s.steps(ctx); err != nil {
		if undone := undo(context.WithoutCancel(ctx), s.staging(), s.store); undone != nil {
			return fmt.Errorf("%w; cleaning up failed as well, run init again to repeat it: %w", err, undone)
		}
		return err
	}
	s.farewell()
	return nil
}

// steps makes everything, in the order in which it can be undone.
func (s *Plan) steps(ctx context.Context) error {
	s.journal = journal{Store: s.URL.String(), Objects: map[string]remote.Hash{}, Files: map[string]remote.Hash{}}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"make the writer's files", s.makeFiles},
		{"claim the writer's name in the store", s.claim},
		{"make the writer's index", s.makeIndex},
		{"certify the signing key", s.certify},
		{"write the recovery kit", s.writeKit},
		{"write the config", s.writeConfig},
		{"finish", s.finish},
	} {
		if s.before != nil {
			if err := s.before(step.name); err != nil {
				return err
			}
		}
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}
