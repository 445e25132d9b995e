package seal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Fingerprint names a recipient in a manifest: the SHA-256 of its text as 64
// hexadecimal digits. A post-quantum recipient has some 2,000 characters.
func Fingerprint(recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return hex.EncodeToString(sum[:])
}

// RecipientSet names a set of recipients, whatever their order: the SHA-256
// of their texts, sorted by byte and joined by newlines.
func RecipientSet(recipients []string) remote.Hash {
	return remote.Sum([]byte(strings.Join(slices.Sorted(slices.Values(recipients)), "\n")))
}

// ParseRecipients reads age1pq1… and age1… public keys. They must be able to
// share one file: post-quantum recipients cannot be mixed with classic ones,
// none may appear twice, and their header must stay below MaxHeader.
func ParseRecipients(recipients []string) ([]age.Recipient, error) {
	if len(recipients) == 0 {
		return nil, errors.New("no recipients: name at least one age1… public key")
	}
	parsed := make([]age.Recipient, len(recipients))
	for i, s := range recipients {
		if slices.Contains(recipients[:i], s) {
			return nil, fmt.Errorf("recipient %d is there twice", i+1)
		}
		var err error
		if parsed[i], err = parseRecipient(s); err != nil {
			return nil, fmt.Errorf("recipient %d: %w", i+1, err)
		}
	}
	// Only a try shows that they go together.
	if _, _, err := Encrypt(io.Discard, parsed); err != nil {
		return nil, err
	}
	return parsed, nil
}

// parseRecipient never repeats s in an error: people paste the wrong key.
func parseRecipient(s string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(s, "age1pq1"):
		return age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1"):
		return age.ParseX25519Recipient(s)
	case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"):
		return nil, errors.New("this is a secret key; give the public key, age1…, that `age-keygen -y` prints for it")
	default:
		return nil, errors.New("not an age public key (age1pq1… or age1…)")
	}
}

// maxIdentities bounds an identity file, in bytes. A recovery kit is a few
// kilobytes.
const maxIdentities = 1 << 20

// ParseIdentities reads a recovery kit or any other age identity file: one
// AGE-SECRET-KEY-… a line, empty lines and lines that begin with # are
// ignored. Errors give name and line, never a part of a key.
func ParseIdentities(r io.Reader, name string) ([]age.Identity, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxIdentities+1))
	if err != nil {
		return nil, fmt.Errorf("read identity file %q: %w", name, err)
	}
	if len(text) > maxIdentities {
		return nil, fmt.Errorf("identity file %q is longer than %d bytes: this is something else", name, maxIdentities)
	}
	if bytes.HasPrefix(text, []byte(intro)) || bytes.HasPrefix(text, []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
		return nil, fmt.Errorf("identity file %q is itself encrypted: decrypt it with `age -d` first", name)
	}
	var identities []age.Identity
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxIdentities)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		identity, err := parseIdentity(line)
		if err != nil {
			return nil, fmt.Errorf("identity file %q, line %d: %w", name, n, err)
		}
		identities = append(identities, identity)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read identity file %q: %w", name, err)
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("identity file %q holds no AGE-SECRET-KEY-… line: %w", name, ErrNoIdentity)
	}
	return identities, nil
}

// parseIdentity replaces age's reasons, which may quote characters of the key.
func parseIdentity(line string) (age.Identity, error) {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		if identity, err := age.ParseHybridIdentity(line); err == nil {
			return identity, nil
		}
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		if identity, err := age.ParseX25519Identity(line); err == nil {
			return identity, nil
		}
	default:
		return nil, errors.New("neither a comment nor an age identity (AGE-SECRET-KEY-…)")
	}
	return nil, errors.New("not a whole age identity: a character is wrong or missing")
}
