// Package signing changes which keys sign a writer's runs: it makes a new key,
// certifies it with the root key and revokes it, and says how the keys stand, those
// in the store and those whose secret halves are on this machine.
//
// No step takes a key away that is still needed: a writer signs with the old key
// until the new one is in charge, and whatever a crash leaves, the same call goes on
// from. It decides nothing by itself: whose key is to be believed is the word of a
// person who has the root key. What a signature is worth, package remote says.
package signing

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/metastore/index"
	"git.eeqj.de/sneak/vaultik/remote"
)

// NextKeyFile holds the signing key that shall follow the one in use, from
// when it was made until it is in charge. Where both files are,
// state.SigningKeyFile signs: no run is ever signed with a key that readers do not accept.
const NextKeyFile = "signing.key.next"

// ReadKey reads a secret key file; fs.ErrNotExist if there is none.
func ReadKey(path string) (remote.SigningKey, error) {
	text, err := state.ReadFile(path, 4096)
	if err != nil {
		return remote.SigningKey{}, err
	}
	key, err := remote.ParseSigningKey(string(text))
	if err != nil {
		return key, fmt.Errorf("%q: %w", path, err)
	}
	return key, nil
}

// Adopt makes the next key in a writer's folder the one that signs.
func Adopt(dir string) error {
	if err := os.Rename(filepath.Join(dir, NextKeyFile), filepath.Join(dir, state.SigningKeyFile)); err != nil {
		return err
	}
	return state.SyncFolder(dir)
}

// NextRun is the number of the next run that is signed: an intent on file is
// signed already.
func NextRun(ctx context.Context, x *index.Index) (remote.Seq, error) {
	status, err := x.Status(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the index: %w", err)
	}
	last := status.LastSeq
	if status.Intent != nil {
		last = max(last, status.Intent.Seq)
	}
	return remote.Seq(last) + 1, nil
}

// CertifyCommand is the command line that certifies a key; from 0 leaves the run
// to it.
func CertifyCommand(writer string, key remote.PublicKey, from remote.Seq, store stores.URL) string {
	line := fmt.Sprintf("vaultik key certify %s --key %s", writer, key)
	if from > 0 {
		line += fmt.Sprintf(" --from %d", uint64(from))
	}
	return line + " --kit KIT --store " + ui.ShellQuote(store.String())
}

// RevokedHere says what to do about a revoked key on the machine that has it.
func RevokedHere(r *remote.Revoked) error {
	if through := r.Revocation.Through; r.Seq > through+1 {
		return fmt.Errorf("%w; but this machine's index knows run %d, which does not count any more, so it cannot go on as this writer: "+
			"move the config and the state folder away and start a new writer", r, r.Seq-1)
	}
	return fmt.Errorf("%w; make this machine a new one with \"vaultik key rotate\"", r)
}
