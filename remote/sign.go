package remote

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"aead.dev/minisign"
)

// Keys and signatures are those of the minisign program, read and written
// byte for byte as it does, with two restrictions: secret keys carry no
// password (a machine that backs up by itself has nobody to type one), and
// signatures have the prehashed form "ED", because the old form "Ed" signs
// another message with the same key and no writer ever needs it.

const commentPrefix = "untrusted comment: "

// SigningKey is a minisign secret key. Its text must stay secret.
type SigningKey struct{ key minisign.PrivateKey }

// GenerateSigningKey makes a key from 32 bytes of random. The same bytes make
// the same key.
func GenerateSigningKey(random io.Reader) (SigningKey, error) {
	_, key, err := minisign.GenerateKey(random)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make a signing key: %w", err)
	}
	return SigningKey{key}, nil
}

// ParseSigningKey reads a minisign secret key file or only its key line. A
// key with a password is refused: `minisign -C -W` takes the password off.
// The error never shows the text.
func ParseSigningKey(text string) (SigningKey, error) {
	line, err := keyLine(text)
	if err != nil {
		return SigningKey{}, fmt.Errorf("read a minisign secret key: %w", err)
	}
	if minisign.IsEncrypted([]byte(line)) {
		return SigningKey{}, errors.New("read a minisign secret key: it has a password; take it off with \"minisign -C -W -s FILE\"")
	}
	var k SigningKey
	if err := k.key.UnmarshalText([]byte(line)); err != nil {
		return SigningKey{}, errors.New("read a minisign secret key: the key line is damaged")
	}
	// The second half of an Ed25519 secret key is the public key. A pair that
	// does not match would sign what nobody can verify, and can be made to
	// leak the secret.
	if !k.consistent() {
		return SigningKey{}, errors.New("read a minisign secret key: its public half does not belong to its secret half")
	}
	return k, nil
}

// Text returns the secret key as a file that `minisign -S -W` reads.
func (k SigningKey) Text() string {
	return commentPrefix + "minisign encrypted secret key\n" + k.Base64() + "\n"
}

// Base64 returns the key line of Text.
func (k SigningKey) Base64() string {
	text, err := k.key.MarshalText()
	if err != nil {
		panic("internal error: " + err.Error()) // it has no way to fail
	}
	return string(text[bytes.IndexByte(text, '\n')+1:])
}

// Public returns the public half.
func (k SigningKey) Public() PublicKey {
	return PublicKey{k.key.Public().(minisign.PublicKey)}
}

// Sign returns a minisign signature file for message. The trusted comment is
// signed with it and must be one line.
func (k SigningKey) Sign(message []byte, trustedComment string) []byte {
	r := minisign.NewReader(bytes.NewReader(message))
	if _, err := io.Copy(io.Discard, r); err != nil {
		panic("internal error: " + err.Error()) // memory does not fail to read
	}
	return r.SignWithComments(k.key, trustedComment, "signature from vaultik key "+k.Public().KeyID())
}

func (k SigningKey) consistent() bool {
	const message = "vaultik: do both halves of this key belong together?"
	_, err := k.Public().Verify([]byte(message), k.Sign([]byte(message), ""))
	return err == nil
}

// PublicKey is a minisign public key.
type PublicKey struct{ key minisign.PublicKey }

// ParsePublicKey reads a minisign public key file or only its key line, which
// begins with "RW".
func ParsePublicKey(s string) (PublicKey, error) {
	line, err := keyLine(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("read a minisign public key: %w", err)
	}
	var p PublicKey
	if err := p.key.UnmarshalText([]byte(line)); err != nil || p.String() != line {
		return PublicKey{}, fmt.Errorf("read a minisign public key: %q is none: 56 characters that begin with RW", line)
	}
	return p, nil
}

// String returns the key line: 56 characters beginning with "RW".
func (p PublicKey) String() string { return p.key.String() }

// File returns the key as a file of the minisign program.
func (p PublicKey) File() []byte {
	return []byte(commentPrefix + "minisign public key " + p.KeyID() + "\n" + p.String() + "\n")
}

// KeyID returns the hexadecimal digits, 16 at most, that the minisign program
// shows. It is a hint for people, not an identity: anybody can make a key with
// the same id.
func (p PublicKey) KeyID() string { return fmt.Sprintf("%X", p.key.ID()) }

// Equal reports whether p and q are the same key.
func (p PublicKey) Equal(q PublicKey) bool { return p.key.Equal(q.key) }

// IsZero reports whether p is the zero PublicKey, which verifies nothing.
func (p PublicKey) IsZero() bool { return p.Equal(PublicKey{}) }

// Verify checks a minisign signature file and returns its trusted comment.
// Every error wraps ErrNotTrusted.
func (p PublicKey) Verify(message, signature []byte) (trustedComment string, err error) {
	refuse := func(why string) (string, error) { return "", fmt.Errorf("%w: %s", ErrNotTrusted, why) }
	var s minisign.Signature
	if len(signature) > MaxSignature {
		return refuse("the signature is too long to be one of minisign")
	}
	// Another spelling of the same signature, say with blanks or another line
	// end, is no signature that anybody's program wrote.
	if err := s.UnmarshalText(signature); err != nil || s.String() != string(signature) {
		return refuse("it has no well-formed minisign signature")
	}
	switch {
	case s.Algorithm != minisign.HashEdDSA:
		return refuse("its signature has the old form without prehashing; sign with \"minisign -S\" and without -l")
	case p.IsZero():
		return refuse("there is no public key to check its signature with")
	case s.KeyID != p.key.ID():
		return refuse(fmt.Sprintf("its signature is by key %X, not by %s", s.KeyID, p.KeyID()))
	case !minisign.Verify(p.key, message, signature):
		return refuse("its signature is wrong")
	}
	return s.TrustedComment, nil
}

// keyLine returns the base64 line of a key file or of a bare key, checked to
// be the one way to write its bytes.
func keyLine(text string) (string, error) {
	line := strings.TrimSpace(text)
	if comment, rest, two := strings.Cut(line, "\n"); two {
		if !strings.HasPrefix(comment, commentPrefix) {
			return "", fmt.Errorf("the first of two lines does not begin with %q", strings.TrimSpace(commentPrefix))
		}
		line = strings.TrimSpace(rest)
	}
	// The plain decoder skips line ends; a key has one line.
	raw, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != line {
		return "", errors.New("the key is not one line of base64")
	}
	return line, nil
}
