package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// makeFiles writes the secrets. The index waits for the writer's name.
func (s *Plan) makeFiles(context.Context) error {
	if err := os.Mkdir(s.staging(), 0o700); err != nil {
		return err
	}
	secret := make([]byte, state.SecretSize)
	if _, err := io.ReadFull(s.Random, secret); err != nil {
		return err
	}
	if err := state.Create(filepath.Join(s.staging(), state.SecretFile), fmt.Appendf(nil, "%x\n", secret)); err != nil {
		return err
	}
	return state.Create(filepath.Join(s.staging(), state.SigningKeyFile), []byte(s.signer.Text()))
}

// claim takes the writer's name by creating its first signer object. Of two
// machines that try, the store lets one succeed; stores are known whose
// promise is weaker, so what is there is read back.
func (s *Plan) claim(ctx context.Context) error {
	taken := map[string]bool{}
	names, err := remote.ListWriters(ctx, s.store)
	if err != nil && !errors.Is(err, remote.ErrDenied) {
		return err
	}
	for _, n := range names {
		taken[n] = true
	}
	object := s.signer.Public().File()
	base := s.Writer
	for n := 2; ; n++ {
		_, err := os.Lstat(s.stateDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) && !taken[s.Writer] {
			key := remote.SignerKey(s.Writer, 1)
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
		if s.Named {
			return fmt.Errorf("writer %q is taken, in the store or in the state folder %q; choose another --writer NAME", s.Writer, s.Where.State)
		}
		s.Writer = fmt.Sprintf("%s-%d", base, n)
	}
}

// mine reports whether an object just put is the one that is there.
func (s *Plan) mine(ctx context.Context, key string, object []byte) (bool, error) {
	there, err := stores.Fetch(ctx, s.store, key, int64(len(object))+1)
	if errors.Is(err, remote.ErrDenied) {
		return true, nil // credentials that may only write
	}
	return bytes.Equal(there, object), err
}

func (s *Plan) makeIndex(ctx context.Context) error {
	x, err := index.Create(ctx, filepath.Join(s.staging(), state.IndexFile), s.Writer, index.Options{})
	if err != nil {
		return err
	}
	return x.Close()
}

// certify signs the signing key with the root key, where there is one.
func (s *Plan) certify(ctx context.Context) error {
	if s.Further {
		return nil
	}
	signature := remote.SignCertificate(s.root, remote.Certificate{
		N: 1, Key: s.signer.Public(), Role: remote.RoleWriter, Writer: s.Writer, From: 1,
	})
	return s.put(ctx, remote.SignatureKey(remote.SignerKey(s.Writer, 1)), signature)
}

func (s *Plan) writeKit(context.Context) error {
	if s.Further {
		return nil
	}
	if s.Kit == "" {
		path, err := filepath.Abs("vaultik-recovery-kit-" + s.Writer + ".txt")
		if err != nil {
			return err
		}
		s.Kit = path
	}
	err := s.file(s.Kit, []byte(s.kitText()))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; a kit is never overwritten, choose another --kit FILE", err)
	}
	return err
}

func (s *Plan) writeConfig(context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.Where.Config), 0o755); err != nil {
		return err
	}
	return s.file(s.Where.Config, []byte(s.configText()))
}

// finish is the moment from which the machine is set up. The journal goes
// last: with the folder renamed nobody looks for it any more.
func (s *Plan) finish(context.Context) error {
	if err := os.Rename(s.staging(), s.stateDir()); err != nil {
		return err
	}
	return errors.Join(state.SyncFolder(s.Where.State), os.Remove(filepath.Join(s.stateDir(), journalFile)))
}

// configText is the config, with one set of the paths unless there are others.
func (s *Plan) configText() string {
	t := config.Template{
		Store: s.URL.String(), Writer: s.Writer, StateDir: s.Where.State, RootKey: s.RootKey.String(),
		Recipients: s.Recipients, LockTime: s.LockTime, LockMode: s.LockMode, Sets: s.sets,
	}
	if len(t.Sets) == 0 {
		t.Sets = []config.TemplateSet{{Name: "default", Paths: s.Paths}}
	}
	return t.Text()
}

// kitText is the recovery kit.
func (s *Plan) kitText() string {
	k := kit.Kit{
		Store: s.URL.String(), Writer: s.Writer, Made: s.Now().UTC().Truncate(time.Second), By: s.Version,
		Root: s.root, Identity: s.identity, Recipients: s.Recipients,
	}
	return k.Text()
}

// keys makes the secrets: the age identity and the root key of a first
// machine, and everybody's signing key and chunker secret.
func (s *Plan) keys() (err error) {
	if s.signer, err = remote.GenerateSigningKey(s.Random); err != nil {
		return fmt.Errorf("make the signing key: %w", err)
	}
	if s.Further {
		return nil
	}
	if s.root, err = remote.GenerateSigningKey(s.Random); err != nil {
		return fmt.Errorf("make the root key: %w", err)
	}
	s.RootKey = s.root.Public()
	var own string
	if s.Classic {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return fmt.Errorf("make the age identity: %w", err)
		}
		s.identity, own = id.String(), id.Recipient().String()
	} else {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return fmt.Errorf("make the age identity: %w", err)
		}
		s.identity, own = id.String(), id.Recipient().String()
	}
	s.Recipients = append([]string{own}, s.Recipients...)
	if _, err := seal.ParseRecipients(s.Recipients); err != nil {
		hint := "if they are classic age1… keys, add --x25519, so that they can share a file with this machine's own"
		if s.Classic {
			hint = "post-quantum age1pq1… keys cannot share a file with the classic one that --x25519 makes"
		}
		return fmt.Errorf("--recipient: %w (%s)", err, hint)
	}
	return nil
}
