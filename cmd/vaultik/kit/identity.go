package kit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// MaxSize bounds an identity file or a kit, in bytes.
const MaxSize = 1 << 20

// ErrNoIdentity says that there is none, or none that opens what it should.
var ErrNoIdentity = errors.New("no identity")

// Identity is what opens snapshots.
type Identity struct {
	Keys []age.Identity
	Kit  *Kit   // that it came from; nil: an ordinary age identity file
	From string // where it was found, for messages
}

// Sources are where an identity may be. The first that there is counts, in the
// order of the fields, VAULTIK_IDENTITY_FILE after VAULTIK_IDENTITY.
type Sources struct {
	Option  string                   // a file, or "-" for standard input
	Env     func(name string) string // VAULTIK_IDENTITY holds the key's text itself
	Command string                   // for /bin/sh

	Stdin  io.Reader // also the command's, which may ask for a password
	Stderr io.Writer // the command's
}

// Find finds the identity; nil, without an error, if it is nowhere. A recovery kit
// serves as well as a file of age's own. One that is no identity is ErrNoIdentity.
func (s Sources) Find(ctx context.Context) (*Identity, error) {
	var text []byte
	var from string
	var err error
	switch {
	case s.Option == "-":
		from = "standard input"
		text, err = state.ReadAll(s.Stdin, from, MaxSize)
	case s.Option != "":
		from = s.Option
		text, err = state.ReadFile(from, MaxSize)
	case s.Env("VAULTIK_IDENTITY") != "":
		from, text = "VAULTIK_IDENTITY", []byte(s.Env("VAULTIK_IDENTITY"))
	case s.Env("VAULTIK_IDENTITY_FILE") != "":
		from = s.Env("VAULTIK_IDENTITY_FILE")
		text, err = state.ReadFile(from, MaxSize)
	case s.Command != "":
		from = "identity_command"
		text, err = s.ask(ctx)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	id := &Identity{From: from}
	if Is(text) {
		if id.Kit, err = Parse(string(text)); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrNoIdentity, from, err)
		}
	}
	id.Keys, err = seal.ParseIdentities(bytes.NewReader(text), from)
	if err != nil || len(id.Keys) == 0 {
		if id.Kit != nil && id.Kit.Identity == "" {
			err = fmt.Errorf("the kit %s holds only the root key; its end says whose identities open the store", ui.Quote(from))
		} else if errors.Is(err, seal.ErrNoIdentity) {
			err = fmt.Errorf("%s holds no AGE-SECRET-KEY-… line", ui.Quote(from))
		}
		return nil, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return id, nil
}

// ask runs the command in the shell.
func (s Sources) ask(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", s.Command)
	cmd.Stdin, cmd.Stderr = s.Stdin, s.Stderr
	out := &bounded{limit: MaxSize}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("identity_command %q: %w", s.Command, err)
	}
	return out.Bytes(), nil
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

// Check looks whether the identity is among the recipients of any of these
// snapshots, so that the person learns of a wrong one before anything is
// fetched or mounted: ErrNoIdentity. Kinds of identity that it does not know may
// be right.
func (id *Identity) Check(snapshots ...fs.Snapshot) error {
	if len(snapshots) == 0 {
		return nil
	}
	prints := id.Fingerprints()
	if len(prints) < len(id.Keys) {
		return nil
	}
	for _, s := range snapshots {
		if slices.ContainsFunc(prints, func(p string) bool { return slices.Contains(s.Manifest.Recipients, p) }) {
			return nil
		}
	}
	newest := snapshots[len(snapshots)-1]
	return fmt.Errorf("%w for snapshot %s: the identity from %q is none of its recipients; give the kit that was made when this store was set up, or another recipient's identity",
		ErrNoIdentity, newest.ID, id.From)
}

// Fingerprints are those of the recipients that belong to the identity, as far
// as it is of a kind that is known here.
func (id *Identity) Fingerprints() (prints []string) {
	for _, k := range id.Keys {
		switch k := k.(type) {
		case *age.X25519Identity:
			prints = append(prints, seal.Fingerprint(k.Recipient().String()))
		case *age.HybridIdentity:
			prints = append(prints, seal.Fingerprint(k.Recipient().String()))
		}
	}
	return prints
}

// Is reports whether a text is a recovery kit.
func Is(text []byte) bool { return strings.HasPrefix(string(text), title) }
