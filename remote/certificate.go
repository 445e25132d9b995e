package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
)

// Role says what a signer may sign.
type Role string

// The roles.
const (
	RoleWriter     Role = "writer"     // manifests of one writer, and tombstones unless its certificate says otherwise
	RoleMaintainer Role = "maintainer" // tombstones of the writers it is certified for
)

// Certificate is the root key's word on a signing key. The root key signs the
// key's file; what it says stands in the trusted comment.
type Certificate struct {
	N      int // as in SignerKey
	Key    PublicKey
	Role   Role
	Writer string // of RoleWriter
	From   Seq    // of RoleWriter: the first run that the key signs
	// PurgeMaintainer, of RoleWriter: the key may not sign tombstones. For a
	// machine that could be taken over: a thief of its key cannot forget
	// snapshots.
	PurgeMaintainer bool
}

// Comment returns the trusted comment that says what the certificate says.
func (c Certificate) Comment() string {
	comment := "vaultik-signer v1 role=" + string(c.Role)
	if c.Role == RoleWriter {
		comment += " writer=" + c.Writer + " from=" + strconv.FormatUint(uint64(c.From), 10)
		if c.PurgeMaintainer {
			comment += " purge=maintainer"
		}
	}
	return comment
}

// SignCertificate returns the signature that goes with c.Key.File(). Fields
// that ParseCertificate would refuse make a signature that it refuses.
func SignCertificate(root SigningKey, c Certificate) (signature []byte) {
	return root.Sign(c.Key.File(), c.Comment())
}

var certificateComment = regexp.MustCompile(
	`^vaultik-signer v1 (?:role=(maintainer)|role=(writer) writer=(\S+) from=(\d{1,10})( purge=maintainer)?)$`)

// ParseCertificate checks the root key's signature over a signer's key file
// and reads both. The certificate must be for this writer. Errors wrap
// ErrNotTrusted.
func ParseCertificate(root PublicKey, writer string, n int, pub, signature []byte) (Certificate, error) {
	comment, err := root.Verify(pub, signature)
	if err != nil {
		return Certificate{}, fmt.Errorf("not certified by root key %s: %w", root.KeyID(), err)
	}
	m := certificateComment.FindStringSubmatch(comment)
	if m == nil {
		return Certificate{}, fmt.Errorf("%w: its certificate says %q, which is not of this format", ErrNotTrusted, comment)
	}
	c := Certificate{N: n, Role: Role(m[1] + m[2]), Writer: m[3], PurgeMaintainer: m[5] != ""}
	if c.Role == RoleWriter {
		from, err := strconv.ParseUint(m[4], 10, 64)
		if err != nil || from < 1 || CheckName(c.Writer) != nil || c.Writer != writer {
			return Certificate{}, fmt.Errorf("%w: its certificate says %q, which does not allow it to sign for writer %q", ErrNotTrusted, comment, writer)
		}
		c.From = Seq(from)
	}
	if c.Key, err = ParsePublicKey(string(pub)); err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrNotTrusted, err)
	}
	if c.Comment() != comment {
		return Certificate{}, fmt.Errorf("%w: its certificate says %q instead of %q", ErrNotTrusted, comment, c.Comment())
	}
	return c, nil
}

// Signers are the certified signers of one writer.
type Signers struct {
	Writer       string
	Certificates []Certificate // by N
	Problems     []error       // *Problem: signers that are not trusted, each with its key and why
}

// LoadSigners reads and checks a writer's signers. One that is not certified,
// or badly, goes to Problems; the error is only about getting at the store.
func LoadSigners(ctx context.Context, s Store, root PublicKey, writer string) (Signers, error) {
	if err := CheckName(writer); err != nil {
		return Signers{}, err
	}
	signers := Signers{Writer: writer}
	var numbers []int
	for info, err := range s.List(ctx, SignersPrefix(writer)) {
		if err != nil {
			return Signers{}, fmt.Errorf("list the signers of writer %q: %w", writer, err)
		}
		if k, err := ParseKey(info.Key); err == nil && !k.Signature {
			numbers = append(numbers, k.N)
		}
	}
	slices.Sort(numbers) // keys sort 10 before 2
	for _, n := range numbers {
		key := SignerKey(writer, n)
		c, err := loadCertificate(ctx, s, root, writer, n)
		if err != nil && !isFinding(err) {
			return Signers{}, err
		}
		if err != nil {
			signers.Problems = append(signers.Problems, &Problem{Key: key, Err: err})
			continue
		}
		signers.Certificates = append(signers.Certificates, c)
	}
	return signers, nil
}

func loadCertificate(ctx context.Context, s Store, root PublicKey, writer string, n int) (Certificate, error) {
	pub, err := get(ctx, s, SignerKey(writer, n), MaxSignature)
	if err != nil {
		return Certificate{}, err
	}
	signature, err := get(ctx, s, SignatureKey(SignerKey(writer, n)), MaxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return Certificate{}, fmt.Errorf("%w; whoever has the recovery kit can do it with \"vaultik key certify\"", errWaiting)
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("its signature: %w", err)
	}
	return ParseCertificate(root, writer, n, pub, signature)
}

// For returns the key that signs the manifest of run seq: that of the writer
// certificate with the greatest From up to seq, of several the one with the
// greatest N. The error wraps ErrNotTrusted and names the writer.
func (s Signers) For(seq Seq) (PublicKey, error) {
	c, ok := s.inCharge(seq)
	if !ok {
		err := fmt.Errorf("%w: no signer of writer %q is certified for run %s", ErrNotTrusted, s.Writer, seq)
		return PublicKey{}, errors.Join(append([]error{err}, s.Problems...)...)
	}
	return c.Key, nil
}

func (s Signers) inCharge(seq Seq) (best Certificate, ok bool) {
	for _, c := range s.Certificates {
		if c.Role != RoleWriter || c.From > seq {
			continue
		}
		if !ok || cmp.Or(cmp.Compare(c.From, best.From), cmp.Compare(c.N, best.N)) > 0 {
			best, ok = c, true
		}
	}
	return best, ok
}

// mayForget says whether c allows to sign the tombstone of run seq. A
// maintainer may. Of the writer's own keys, the one in charge of that run may
// and every one after it, unless its certificate says purge=maintainer; a key
// from before may not, so that an old machine's key cannot forget what the
// new one wrote.
func (s Signers) mayForget(c Certificate, seq Seq) bool {
	if c.Role == RoleMaintainer {
		return true
	}
	now, ok := s.inCharge(max(seq, c.From))
	return ok && now.N == c.N && !c.PurgeMaintainer
}
