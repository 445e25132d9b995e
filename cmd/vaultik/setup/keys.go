package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// WriteSecret puts the chunker's secret back that the newest snapshot was made
// with: with another one everything would be cut, and stored, anew.
func (r *Revival) WriteSecret() error {
	there, err := state.ReadSecret(r.file(state.SecretFile))
	switch {
	case err == nil && (r.secret == nil || bytes.Equal(there, r.secret)):
		return nil
	case r.secret == nil: // there is no snapshot to deduplicate against
		r.secret = make([]byte, state.SecretSize)
		if _, err := io.ReadFull(r.Random, r.secret); err != nil {
			return err
		}
	case err == nil:
		r.UI.Warn("the chunker secret is not the one that snapshots were made with, and is replaced")
	}
	if err := r.moveAway(state.SecretFile); err != nil {
		return err
	}
	if err := state.Create(r.file(state.SecretFile), fmt.Appendf(nil, "%x\n", r.secret)); err != nil {
		return fmt.Errorf("write the chunker secret: %w", err)
	}
	r.UI.Note("the chunker secret is there again")
	return nil
}

// NewKey is a signing key in a lost one's place; zero if none was lost.
type NewKey struct {
	public  remote.PublicKey
	Certify string // the command line that certifies it, for where the kit is; "" if nothing is left to do
}

// String is the public key, "" if none was lost.
func (k NewKey) String() string {
	if k.public.IsZero() {
		return ""
	}
	return k.public.String()
}

// MakeKey gives the writer a new signing key if its own is lost. With the kit
// it is certified from the next run on.
func (r *Revival) MakeKey(ctx context.Context) (made NewKey, err error) {
	_, err = signing.ReadKey(r.file(state.SigningKeyFile))
	if err == nil {
		return made, nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		r.UI.Warn("%v", err)
		if err := r.moveAway(state.SigningKeyFile); err != nil {
			return made, err
		}
	}
	next := signing.Rotation{Store: r.store, Root: r.Root, Writer: r.Writer, Dir: r.file(""), Random: r.Random, From: r.firstFree()}
	if r.ID.Kit != nil {
		c, err := next.Rotate(ctx, r.ID.Kit.Root)
		if err != nil {
			return made, fmt.Errorf("make a new signing key: %w", err)
		}
		return NewKey{public: c.Key}, nil
	}
	_, key, err := next.Propose(ctx)
	if err != nil {
		return made, fmt.Errorf("make a new signing key: %w", err)
	}
	return NewKey{key.Public(), signing.CertifyCommand(r.Writer, key.Public(), r.firstFree(), r.URL)}, nil
}

// moveAway renames one of the writer's files, if it is there, and what SQLite
// keeps beside it: nothing that might still be of use is deleted.
func (r *Revival) moveAway(name string) error {
	path := r.file(name)
	if _, err := os.Lstat(path); errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	base := path + ".replaced-" + r.Now().UTC().Format("20060102-150405Z")
	to := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, iofs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = fmt.Sprintf("%s-%d", base, n)
	}
	for _, beside := range []string{"", "-wal", "-shm", "-journal"} {
		if err := state.IgnoreMissing(os.Rename(path+beside, to+beside)); err != nil {
			return err
		}
	}
	r.UI.Note("what was there is kept as %s", ui.Quote(to))
	return nil
}
