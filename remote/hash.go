package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a SHA-256 sum. It names blobs, dump parts and lists (the sum of the
// object's bytes) and chunks (the sum of their plaintext).
type Hash [sha256.Size]byte

// Sum returns the SHA-256 of data.
func Sum(data []byte) Hash { return sha256.Sum256(data) }

// ParseHash reads 64 lower-case hexadecimal digits and accepts nothing else.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hex.EncodedLen(len(h)) {
		return Hash{}, fmt.Errorf("%q is not a SHA-256: it has %d characters instead of %d", s, len(s), hex.EncodedLen(len(h)))
	}
	var text [2 * len(h)]byte // on the stack: a large store has millions of them
	copy(text[:], s)
	if !h.decode(text[:]) {
		return Hash{}, fmt.Errorf("%q is not a SHA-256 in lower-case hexadecimal digits", s)
	}
	return h, nil
}

// decode reads as many hexadecimal digits as a Hash has, lower case only.
func (h *Hash) decode(digits []byte) bool {
	if _, err := hex.Decode(h[:], digits); err != nil {
		return false
	}
	for _, c := range digits {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	return true
}

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is the zero Hash, which stands for "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText makes a Hash a hexadecimal string in JSON.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(make([]byte, 0, 2*len(h)), h[:]), nil
}

// UnmarshalText is the strict inverse of MarshalText.
func (h *Hash) UnmarshalText(text []byte) error {
	var parsed Hash
	if len(text) == 2*len(parsed) && parsed.decode(text) {
		*h = parsed
		return nil
	}
	_, err := ParseHash(string(text))
	return err
}
