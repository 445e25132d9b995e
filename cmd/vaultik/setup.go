package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// setup is what init does. Everything is made in a folder of its own below
// the state folder, with a journal of what was put elsewhere; renaming that
// folder to the writer's is the moment when the machine is set up. Whatever
// fails before is undone at once, and what a crash left is undone by the next
// init, which finds the journal.
type setup struct {
	app        *app
	where      folders
	url        storeURL
	paths      []string     // absolute
	sets       []revivedSet // of a config that is brought back, instead of paths
	writer     string
	named      bool // by --writer: no number is appended
	further    bool // another machine has the kit
	classic    bool
	recipients []string
	rootPublic remote.PublicKey
	lockTime   lockTime
	lockMode   lockMode
	kit        string // path; "" on a further machine
	kitFolder  string

	store    openedStore
	root     remote.SigningKey // of a first machine
	signer   remote.SigningKey
	identity string
	journal  journal

	before func(step string) error // tests make a step fail
}

// journal is what undoing needs to know. It holds no secret.
type journal struct {
	Store   string                 `json:"store"`
	Objects map[string]remote.Hash `json:"objects"` // put into the store, or about to be
	Files   map[string]remote.Hash `json:"files"`   // written outside the state folder, or about to be
}

// unfinished and journalFile are names in the state folder. No writer's name
// begins with a dot.
const (
	unfinished  = ".init"
	journalFile = "journal.json"
)

func (s *setup) stateDir() string { return filepath.Join(s.where.state, s.writer) }
func (s *setup) staging() string  { return filepath.Join(s.where.state, unfinished) }

// run sets the machine up.
func (s *setup) run(ctx context.Context) (err error) {
	_, missing := os.Lstat(s.where.state)
	unlock, err := lock(s.where.state)
	if err != nil {
		return err
	}
	defer unlock()
	if errors.Is(missing, fs.ErrNotExist) {
		defer func() {
			if err != nil { // nobody can work with this folder yet; it stays if anything is in it
				os.Remove(filepath.Join(s.where.state, lockFile))
				os.Remove(s.where.state)
			}
		}()
	}
	if err := s.repair(ctx); err != nil {
		return err
	}
	if err := s.refuseExisting(); err != nil {
		return err
	}
	var made bool
	if s.store, made, err = s.url.create(ctx, s.app.route()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	if made {
		defer func() {
			if err != nil {
				os.Remove(s.url.folder) // stays if anything is in it
			}
		}()
	}
	if err := s.refuseSecondRoot(ctx); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	if err := lockUploads(ctx, s.store, lockOf(s.lockTime, s.lockMode, s.app.now)); err != nil {
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
func (s *setup) steps(ctx context.Context) error {
	s.journal = journal{Store: s.url.String(), Objects: map[string]remote.Hash{}, Files: map[string]remote.Hash{}}
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

// makeFiles writes the secrets. The index waits for the writer's name.
func (s *setup) makeFiles(context.Context) error {
	if err := os.Mkdir(s.staging(), 0o700); err != nil {
		return err
	}
	secret := make([]byte, secretSize)
	if _, err := io.ReadFull(s.app.random, secret); err != nil {
		return err
	}
	if err := create(filepath.Join(s.staging(), secretFile), fmt.Appendf(nil, "%x\n", secret)); err != nil {
		return err
	}
	return create(filepath.Join(s.staging(), signingKeyFile), []byte(s.signer.Text()))
}

// claim takes the writer's name by creating its first signer object. Of two
// machines that try, the store lets one succeed; stores are known whose
// promise is weaker, so what is there is read back.
func (s *setup) claim(ctx context.Context) error {
	taken := map[string]bool{}
	names, err := remote.ListWriters(ctx, s.store)
	if err != nil && !errors.Is(err, remote.ErrDenied) {
		return err
	}
	for _, n := range names {
		taken[n] = true
	}
	object := s.signer.Public().File()
	base := s.writer
	for n := 2; ; n++ {
		_, err := os.Lstat(s.stateDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) && !taken[s.writer] {
			key := remote.SignerKey(s.writer, 1)
			if err := s.put(ctx, key, object); err == nil {
				mine, err := s.mine(ctx, key, object)
				if mine || err != nil {
					return err
				}
			} else if !errors.Is(err, remote.ErrExists) {
				return err
			}
			delete(s.journal.Objects, key)
		}
		if s.named {
			return fmt.Errorf("writer %q is taken, in the store or in the state folder %q; choose another --writer NAME", s.writer, s.where.state)
		}
		s.writer = fmt.Sprintf("%s-%d", base, n)
	}
}

// mine reports whether an object just put is the one that is there.
func (s *setup) mine(ctx context.Context, key string, object []byte) (bool, error) {
	there, err := fetch(ctx, s.store, key, int64(len(object))+1)
	if errors.Is(err, remote.ErrDenied) {
		return true, nil // credentials that may only write
	}
	return bytes.Equal(there, object), err
}

// put notes an object in the journal, then puts it.
func (s *setup) put(ctx context.Context, key string, object []byte) error {
	s.journal.Objects[key] = remote.Sum(object)
	if err := s.note(); err != nil {
		return err
	}
	return s.store.Put(ctx, key, object)
}

// file notes a file outside the state folder in the journal, then writes it.
func (s *setup) file(path string, content []byte) error {
	s.journal.Files[path] = remote.Sum(content)
	if err := s.note(); err != nil {
		return err
	}
	err := create(path, content)
	if errors.Is(err, fs.ErrExist) { // somebody else's
		delete(s.journal.Files, path)
		return errors.Join(err, s.note())
	}
	return err
}

// note replaces the journal.
func (s *setup) note() error {
	text, err := json.Marshal(s.journal)
	if err != nil {
		return err
	}
	next := filepath.Join(s.staging(), journalFile+".next")
	if err := errors.Join(ignoreMissing(os.Remove(next)), create(next, text)); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(s.staging(), journalFile)); err != nil {
		return err
	}
	return syncFolder(s.staging())
}

func (s *setup) makeIndex(ctx context.Context) error {
	x, err := index.Create(ctx, filepath.Join(s.staging(), indexFile), s.writer, index.Options{})
	if err != nil {
		return err
	}
	return x.Close()
}

// certify signs the signing key with the root key, where there is one.
func (s *setup) certify(ctx context.Context) error {
	if s.further {
		return nil
	}
	signature := remote.SignCertificate(s.root, remote.Certificate{
		N: 1, Key: s.signer.Public(), Role: remote.RoleWriter, Writer: s.writer, From: 1,
	})
	return s.put(ctx, remote.SignatureKey(remote.SignerKey(s.writer, 1)), signature)
}

func (s *setup) writeKit(context.Context) error {
	if s.further {
		return nil
	}
	if s.kit == "" {
		path, err := filepath.Abs("vaultik-recovery-kit-" + s.writer + ".txt")
		if err != nil {
			return err
		}
		s.kit = path
	}
	err := s.file(s.kit, []byte(s.kitText()))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; a kit is never overwritten, choose another --kit FILE", err)
	}
	return err
}

func (s *setup) writeConfig(context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.where.config), 0o755); err != nil {
		return err
	}
	return s.file(s.where.config, []byte(s.configText()))
}

// finish is the moment from which the machine is set up. The journal goes
// last: with the folder renamed nobody looks for it any more.
func (s *setup) finish(context.Context) error {
	if err := os.Rename(s.staging(), s.stateDir()); err != nil {
		return err
	}
	return errors.Join(syncFolder(s.where.state), os.Remove(filepath.Join(s.stateDir(), journalFile)))
}
