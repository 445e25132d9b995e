package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// identityLimit bounds an identity file or a kit.
const identityLimit = 1 << 20

// identity is what opens snapshots, and the kit it came from, if it was one.
type identity struct {
	keys []age.Identity
	kit  *kit // nil: an ordinary age identity file
	from string
}

// identity finds the identity: --identity, VAULTIK_IDENTITY (the key's text
// itself), VAULTIK_IDENTITY_FILE, identity_command of the config. Without any
// of them it is nil. A recovery kit serves as well as a file of age's own.
func (a *app) identity(ctx context.Context, option string, c *config.Config) (*identity, error) {
	var text []byte
	var from string
	var err error
	switch {
	case option == "-":
		from = "standard input"
		text, err = state.ReadAll(a.stdin, from, identityLimit)
	case option != "":
		from = option
		text, err = state.ReadFile(option, identityLimit)
	case a.env("VAULTIK_IDENTITY") != "":
		from, text = "VAULTIK_IDENTITY", []byte(a.env("VAULTIK_IDENTITY"))
	case a.env("VAULTIK_IDENTITY_FILE") != "":
		from = a.env("VAULTIK_IDENTITY_FILE")
		text, err = state.ReadFile(from, identityLimit)
	case c != nil && c.IdentityCommand != "":
		from = "identity_command"
		text, err = a.ask(ctx, c.IdentityCommand)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoIdentity, err)
	}
	id := &identity{from: from}
	if isKit(text) {
		if id.kit, err = parseKit(string(text)); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", errNoIdentity, from, err)
		}
	}
	id.keys, err = seal.ParseIdentities(bytes.NewReader(text), from)
	if err != nil || len(id.keys) == 0 {
		if id.kit != nil && id.kit.Identity == "" {
			err = fmt.Errorf("the kit %s holds only the root key; its end says whose identities open the store", ui.Quote(from))
		} else if errors.Is(err, seal.ErrNoIdentity) {
			err = fmt.Errorf("%s holds no AGE-SECRET-KEY-… line", ui.Quote(from))
		}
		return nil, fmt.Errorf("%w: %w", errNoIdentity, err)
	}
	return id, nil
}

// ask runs the identity command in the shell; it may ask for a password on
// the terminal.
func (a *app) ask(ctx context.Context, command string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdin, cmd.Stderr = a.stdin, a.stderr
	out := &bounded{limit: identityLimit}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("identity_command %q: %w", command, err)
	}
	return out.Bytes(), nil
}

// errMissingIdentity tells how to give one.
func errMissingIdentity() error {
	return fmt.Errorf("%w: give the recovery kit, or another file with the age identity, as --identity FILE "+
		"(or VAULTIK_IDENTITY_FILE, VAULTIK_IDENTITY, identity_command in the config)", errNoIdentity)
}

// bounded is a buffer that refuses to grow past its limit.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, fmt.Errorf("more than %d bytes", b.limit)
	}
	return b.Buffer.Write(p)
}

// check looks whether the identity is among the recipients of any of these
// snapshots, so that the person learns of a wrong one before anything is
// fetched or mounted. Kinds of identity that it does not know may be right.
func (id *identity) check(snapshots ...fs.Snapshot) error {
	if len(snapshots) == 0 {
		return nil
	}
	prints := id.fingerprints()
	if len(prints) < len(id.keys) {
		return nil
	}
	for _, s := range snapshots {
		if slices.ContainsFunc(prints, func(p string) bool { return slices.Contains(s.Manifest.Recipients, p) }) {
			return nil
		}
	}
	newest := snapshots[len(snapshots)-1]
	return fmt.Errorf("%w for snapshot %s: the identity from %q is none of its recipients; give the kit that was made when this store was set up, or another recipient's identity",
		errNoIdentity, newest.ID, id.from)
}

// fingerprints are those of the recipients that belong to the identity, as far
// as it is of a kind that is known here.
func (id *identity) fingerprints() (prints []string) {
	for _, k := range id.keys {
		switch k := k.(type) {
		case *age.X25519Identity:
			prints = append(prints, seal.Fingerprint(k.Recipient().String()))
		case *age.HybridIdentity:
			prints = append(prints, seal.Fingerprint(k.Recipient().String()))
		}
	}
	return prints
}

// isKit reports whether a text is a recovery kit.
func isKit(text []byte) bool { return strings.HasPrefix(string(text), kitTitle) }
