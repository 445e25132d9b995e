package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
)

// The shape of an age file, from the specification at c2sp.org/age: a header
// in text, a nonce of 16 bytes, then the payload in pieces of 64 KiB, each
// followed by a tag. Only the last piece may be shorter, and it is empty only
// if the payload is.
const (
	MaxHeader  = remote.MaxHeader // longest header that is written or read, in bytes
	NonceSize  = 16
	PieceSize  = 64 << 10            // plaintext bytes of a full piece
	SealedSize = PieceSize + tagSize // bytes of a full piece in the object
	tagSize    = 16                  // of ChaCha20-Poly1305
	intro      = "age-encryption.org/v1\n"
	minHeader  = int64(len(intro)) + 48 // first line and the line with the MAC; recipients come on top
)

// ErrNoIdentity says that an object is sealed to other recipients than the
// identities at hand belong to. Damage to the few bytes of the header that
// carry the wrapped key looks the same; a reader that checked the object's
// SHA-256 can rule that out.
var ErrNoIdentity = errors.New("no matching identity")

// ObjectSize returns the size of an age file whose header has header bytes
// and whose plaintext has plain bytes.
func ObjectSize(header, plain int64) int64 {
	pieces := max(1, (plain+PieceSize-1)/PieceSize)
	return header + NonceSize + plain + pieces*tagSize
}

// PlainSize is the inverse of ObjectSize in its last argument. A pair that no
// age file has is remote.ErrCorrupt, and so is a header above MaxHeader.
func PlainSize(header, object int64) (int64, error) {
	if header < minHeader || header > MaxHeader {
		return 0, fmt.Errorf("an age header of %d bytes; it has between %d and %d: %w", header, minHeader, MaxHeader, remote.ErrCorrupt)
	}
	if object < 0 || object > math.MaxInt64/2 {
		return 0, fmt.Errorf("an age file of %d bytes: %w", object, remote.ErrCorrupt)
	}
	payload := object - header - NonceSize
	pieces := (payload + SealedSize - 1) / SealedSize
	plain := payload - pieces*tagSize
	if payload < tagSize || ObjectSize(header, plain) != object {
		return 0, fmt.Errorf("no age file with a header of %d bytes has %d bytes in all: %w", header, object, remote.ErrCorrupt)
	}
	return plain, nil
}

// Unlock finds the file key in the header at the beginning of object, which
// may go on after it, and returns an identity that opens this one object
// without any public-key cryptography, and the header's length in bytes. No
// matching identity is ErrNoIdentity, a malformed header is remote.ErrCorrupt.
func Unlock(object []byte, identities []age.Identity) (key age.Identity, header int64, err error) {
	// The limit is enforced by what the parser gets to see.
	h, err := age.ExtractHeader(bytes.NewReader(object[:min(len(object), MaxHeader)]))
	if err != nil {
		return nil, 0, fmt.Errorf("age header: %w: %w", err, remote.ErrCorrupt)
	}
	if len(identities) == 0 {
		return nil, 0, fmt.Errorf("no identity given: %w", ErrNoIdentity)
	}
	fileKey, err := age.DecryptHeader(h, identities...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return nil, 0, fmt.Errorf("it is sealed to %d other recipients: %w", len(none.StanzaTypes), ErrNoIdentity)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("age header: %w: %w", err, remote.ErrCorrupt)
	}
	return age.NewInjectedFileKeyIdentity(fileKey), int64(len(h)), nil
}

// Encrypt starts an age file on dst and returns the writer of its plaintext
// and the length of its header in bytes. dst has the header and the nonce
// when Encrypt returns, and the last piece after Close.
func Encrypt(dst io.Writer, recipients []age.Recipient) (plain io.WriteCloser, header int64, err error) {
	counted := &counter{w: dst}
	plain, err = age.Encrypt(counted, recipients...)
	if err != nil {
		return nil, 0, fmt.Errorf("encrypt: %w", err)
	}
	header = counted.n - NonceSize
	if header > MaxHeader {
		return nil, 0, fmt.Errorf("encrypt: %d recipients need a header of %d bytes, the limit is %d: use fewer recipients", len(recipients), header, MaxHeader)
	}
	return plain, header, nil
}

// counter counts what goes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
