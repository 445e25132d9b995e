package remote

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// Tombstone is the signed word that a snapshot is forgotten. It applies to
// exactly one manifest, and carries the chain of hashes across the gap that
// the manifest leaves. The order of the fields is the order in the object.
type Tombstone struct {
	Format    int    `json:"format"`
	Type      string `json:"type"`
	Writer    string `json:"writer"`
	Seq       Seq    `json:"seq"`
	Manifest  Hash   `json:"manifest"`  // SHA-256 of the forgotten manifest's object
	Previous  *Hash  `json:"previous"`  // what that manifest says, nil only for run 1
	Time      string `json:"time"`      // when it was forgotten, as in a manifest
	Signature string `json:"signature"` // base64 of a minisign signature file over this object with an empty signature
}

// TombstoneComment is the trusted comment of a tombstone's signature.
func TombstoneComment(writer string, seq Seq) string {
	return fmt.Sprintf("vaultik tombstone v1 writer=%s seq=%d", writer, uint64(seq))
}

// NewTombstone returns an unsigned tombstone.
func NewTombstone(writer string, seq Seq, manifest Hash, previous *Hash, now time.Time) Tombstone {
	return Tombstone{
		Format: FormatVersion, Type: TypeTombstone, Writer: writer, Seq: seq,
		Manifest: manifest, Previous: previous, Time: now.UTC().Format(time.RFC3339),
	}
}

// Sign returns the signed object. t itself stays as it is.
func (t Tombstone) Sign(key SigningKey) (object []byte, err error) {
	t.Signature = ""
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("sign the tombstone of run %d of writer %q: %w", t.Seq, t.Writer, err)
	}
	signature := key.Sign(canonical(t), TombstoneComment(t.Writer, t.Seq))
	t.Signature = base64.StdEncoding.EncodeToString(signature)
	return canonical(t), nil
}

// Hash is the SHA-256 of the object of a signed tombstone.
func (t *Tombstone) Hash() Hash { return Sum(canonical(t)) }

// DecodeTombstone reads a tombstone without checking its signature. Errors
// wrap ErrUnsupported or ErrCorrupt.
func DecodeTombstone(object []byte) (*Tombstone, error) {
	if len(object) > MaxTombstone {
		return nil, fmt.Errorf("tombstone: %w: %d bytes, more than the limit of %d", ErrCorrupt, len(object), MaxTombstone)
	}
	t := new(Tombstone)
	if err := decode(object, t, func() []byte { return canonical(t) }, t.validate); err != nil {
		return nil, fmt.Errorf("tombstone: %w", err)
	}
	return t, nil
}

// Verify checks that a signer who may forget this run signed the tombstone,
// and returns its certificate. Errors wrap ErrNotTrusted.
func (t *Tombstone) Verify(signers Signers) (Certificate, error) {
	message, signature, err := t.signed()
	if err != nil {
		return Certificate{}, err
	}
	if t.Writer != signers.Writer {
		return Certificate{}, fmt.Errorf("%w: it is of writer %q, not %q", ErrNotTrusted, t.Writer, signers.Writer)
	}
	reasons := []error{fmt.Errorf("%w: nobody signed it who may forget run %d of writer %q", ErrNotTrusted, t.Seq, t.Writer)}
	for _, c := range signers.Certificates {
		if _, err := c.Key.Verify(message, signature); err != nil {
			continue
		}
		if !signers.stays(c.Key, t) {
			reasons = append(reasons, fmt.Errorf("signer %d is revoked, and the revocation does not name this tombstone", c.N))
			continue
		}
		if signers.mayForget(c, t.Seq) {
			return c, nil
		}
		reasons = append(reasons, fmt.Errorf("signer %d is certified as %q, which does not allow it", c.N, c.Comment()))
	}
	return Certificate{}, errors.Join(reasons...)
}

// SignedBy reports whether key signed the tombstone, whether it may or not.
func (t *Tombstone) SignedBy(key PublicKey) bool {
	message, signature, err := t.signed()
	if err != nil {
		return false
	}
	_, err = key.Verify(message, signature)
	return err == nil
}

// signed returns what the signature is over, and the signature file.
func (t *Tombstone) signed() (message, signature []byte, err error) {
	signature, err = base64.StdEncoding.Strict().DecodeString(t.Signature)
	if err != nil || base64.StdEncoding.EncodeToString(signature) != t.Signature {
		return nil, nil, fmt.Errorf("%w: its signature is not base64", ErrNotTrusted)
	}
	unsigned := *t
	unsigned.Signature = ""
	return canonical(unsigned), signature, nil
}

func (t *Tombstone) validate() error {
	switch {
	case t.Format != FormatVersion:
		return fmt.Errorf("format is %d instead of %d", t.Format, FormatVersion)
	case t.Type != TypeTombstone:
		return fmt.Errorf("type is %q instead of %q", t.Type, TypeTombstone)
	case t.Seq < 1 || t.Seq > MaxSeq:
		return fmt.Errorf("seq is %d, outside of 1 to %d", uint64(t.Seq), uint64(MaxSeq))
	case (t.Seq == 1) != (t.Previous == nil):
		return errors.New("previous must be null for the first run and for no other")
	}
	if err := CheckName(t.Writer); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	return checkTime("time", t.Time)
}
