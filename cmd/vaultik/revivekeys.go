package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
)

// writeSecret puts the chunker's secret back that the newest snapshot was made
// with: with another one everything would be cut, and stored, anew.
func (r *revival) writeSecret() error {
	there, err := state.ReadSecret(r.file(state.SecretFile))
	switch {
	case err == nil && (r.secret == nil || bytes.Equal(there, r.secret)):
		return nil
	case r.secret == nil: // there is no snapshot to deduplicate against
		r.secret = make([]byte, state.SecretSize)
		if _, err := io.ReadFull(r.app.random, r.secret); err != nil {
			return err
		}
	case err == nil:
		r.app.ui.Warn("the chunker secret is not the one that snapshots were made with, and is replaced")
	}
	if err := r.moveAway(state.SecretFile); err != nil {
		return err
	}
	if err := state.Create(r.file(state.SecretFile), fmt.Appendf(nil, "%x\n", r.secret)); err != nil {
		return fmt.Errorf("write the chunker secret: %w", err)
	}
	r.app.ui.Note("the chunker secret is there again")
	return nil
}

// makeKey gives the writer a new signing key if its own is lost. With the kit
// it is certified from the next run on; without, certify is the command that
// does it where the kit is.
func (r *revival) makeKey(ctx context.Context) (made remote.PublicKey, certify string, err error) {
	_, err = signing.ReadKey(r.file(state.SigningKeyFile))
	if err == nil {
		return made, "", nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		r.app.ui.Warn("%v", err)
		if err := r.moveAway(state.SigningKeyFile); err != nil {
			return made, "", err
		}
	}
	next := signing.Rotation{Store: r.store, Root: r.root, Writer: r.writer, Dir: r.file(""), Random: r.app.random, From: r.firstFree()}
	if r.id.Kit != nil {
		c, err := next.Rotate(ctx, r.id.Kit.Root)
		if err != nil {
			return made, "", fmt.Errorf("make a new signing key: %w", err)
		}
		return c.Key, "", nil
	}
	_, key, err := next.Propose(ctx)
	if err != nil {
		return made, "", fmt.Errorf("make a new signing key: %w", err)
	}
	return key.Public(), signing.CertifyCommand(r.writer, key.Public(), r.firstFree(), r.url), nil
}
