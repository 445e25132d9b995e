package state

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/remote"
)

// SecretSize is the size of a chunker secret, in bytes.
const SecretSize = 32

// ReadSecret reads the chunker secret in the file at path; fs.ErrNotExist if there
// is none.
func ReadSecret(path string) ([]byte, error) {
	text, err := ReadFile(path, 4096)
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(secret) != SecretSize {
		return nil, fmt.Errorf("%q does not hold a chunker secret of %d hexadecimal digits", path, 2*SecretSize)
	}
	return secret, nil
}

// OpenSeen opens the freshness memory in a state folder; nil, with an error, if
// there is no place for it.
func OpenSeen(state string) (*remote.Seen, error) {
	if err := MakePrivate(state); err != nil {
		return nil, err
	}
	seen, err := remote.OpenSeen(filepath.Join(state, seenFile))
	if err != nil {
		return nil, err
	}
	return seen, nil
}
