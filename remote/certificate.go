package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// Role says what a signer may sign.
type Role string

// The roles.
const (
	RoleWriter     Role = "writer"     // manifests of one writer, and tombstones unless its certificate says otherwise
	RoleMaintainer Role = "maintainer" // tombstones of one writer
)

// Certificate is the root key's word on a signing key. The root key signs the
// key's file; what it says stands in the trusted comment.
type Certificate struct {
	N      int // as in SignerKey
	Key    PublicKey
	Role   Role
	Writer string // the one writer whose manifests or tombstones it signs
	From   Seq    // of RoleWriter: the first run that the key signs
	// PurgeMaintainer, of RoleWriter: the key may not sign tombstones. For a
	// machine that could be taken over: a thief of its key cannot forget
	// snapshots.
	PurgeMaintainer bool
}

// Comment returns the trusted comment that says what the certificate says.
func (c Certificate) Comment() string {
	comment := "vaultik-signer v1 role=" + string(c.Role) + " writer=" + c.Writer
	if c.Role == RoleWriter {
		comment += " from=" + strconv.FormatUint(uint64(c.From), 10)
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
	`^vaultik-signer v1 role=(?:(maintainer) writer=(\S+)|(writer) writer=(\S+) from=(\d{1,10})( purge=maintainer)?)$`)

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
	c := Certificate{N: n, Role: Role(m[1] + m[3]), Writer: m[2] + m[4], PurgeMaintainer: m[6] != ""}
	if c.Role == RoleWriter {
		from, err := strconv.ParseUint(m[5], 10, 64)
		if err != nil || from < 1 {
			return Certificate{}, fmt.Errorf("%w: its certificate says %q, and runs are numbered from 1", ErrNotTrusted, comment)
		}
		c.From = Seq(from)
	}
	if CheckName(c.Writer) != nil || c.Writer != writer {
		return Certificate{}, fmt.Errorf("%w: its certificate says %q, which does not allow it to sign for writer %q", ErrNotTrusted, comment, writer)
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
	Certificates []Certificate // by N, those of revoked keys included
	Revocations  []Revocation  // by the number that they lie under
	Problems     []error       // *Problem: signers and revocations that are not trusted, or cannot be read, each with its key and why
}

// LoadSigners reads and checks a writer's signers. One that is not certified,
// or badly, goes to Problems; the error is only about getting at the store.
func LoadSigners(ctx context.Context, s Store, root PublicKey, writer string) (Signers, error) {
	if err := CheckName(writer); err != nil {
		return Signers{}, err
	}
	signers := Signers{Writer: writer}
	var numbers, revoked []int
	signed := make(map[string]bool) // a listing needs no leave to hear that an object is not there
	for info, err := range s.List(ctx, SignersPrefix(writer)) {
		if err != nil {
			return Signers{}, fmt.Errorf("list the signers of writer %q: %w", writer, err)
		}
		switch k, err := ParseKey(info.Key); {
		case err != nil:
		case k.Signature:
			signed[info.Key] = true
		case k.Kind == KindRevocation:
			revoked = append(revoked, k.N)
		default:
			numbers = append(numbers, k.N)
		}
	}
	slices.Sort(numbers) // keys sort 10 before 2
	slices.Sort(revoked)
	var withheld error
	for _, n := range numbers {
		key := SignerKey(writer, n)
		err := fmt.Errorf("%w; whoever has the recovery kit can do it with \"vaultik key certify\"", ErrWaiting)
		var c Certificate
		if signed[SignatureKey(key)] {
			c, err = loadCertificate(ctx, s, root, writer, n)
		}
		if err != nil && !isFinding(err) {
			if !isWithheld(err) || ctx.Err() != nil {
				return Signers{}, err
			}
			withheld = err
		}
		if err != nil {
			signers.Problems = append(signers.Problems, &Problem{Key: key, Err: err})
			continue
		}
		signers.Certificates = append(signers.Certificates, c)
	}
	if len(signers.Certificates) == 0 && withheld != nil {
		return Signers{}, withheld // these credentials may not read
	}
	return signers, signers.loadRevocations(ctx, s, root, revoked, signed)
}

func loadCertificate(ctx context.Context, s Store, root PublicKey, writer string, n int) (Certificate, error) {
	pub, err := get(ctx, s, SignerKey(writer, n), MaxSignature)
	if err != nil {
		return Certificate{}, err
	}
	signature, err := get(ctx, s, SignatureKey(SignerKey(writer, n)), MaxSignature)
	if err != nil {
		return Certificate{}, fmt.Errorf("its signature: %w", err)
	}
	return ParseCertificate(root, writer, n, pub, signature)
}

// For returns the key that signs the manifest of run seq: that of the writer
// certificate with the greatest From up to seq, of several the one with the
// greatest N, its copies under greater numbers not counted. The error wraps ErrNotTrusted and names the writer. If that key
// is revoked for this run, it is a *Revoked: no older key takes its place.
func (s Signers) For(seq Seq) (PublicKey, error) {
	c, ok := s.InCharge(seq)
	if !ok {
		err := fmt.Errorf("%w: no signer of writer %q is certified for run %d", ErrNotTrusted, s.Writer, seq)
		return PublicKey{}, errors.Join(append([]error{err}, s.Problems...)...)
	}
	if r, revoked := s.Revocation(c.Key); revoked && seq > r.Through {
		return PublicKey{}, &Revoked{Revocation: r, Seq: seq}
	}
	return c.Key, nil
}

// Revoked says that the key in charge of a run is revoked. It is an
// ErrNotTrusted.
type Revoked struct {
	Revocation Revocation
	Seq        Seq // the run
}

// Error says which key, and what of it holds.
func (r *Revoked) Error() string {
	through := "none of its manifests holds"
	if r.Revocation.Through > 0 {
		through = "its manifests hold up to run " + r.Revocation.Through.String()
	}
	return fmt.Sprintf("%v: signer %d of writer %q, in charge of run %d, is revoked (key %s): %s",
		ErrNotTrusted, r.Revocation.N, r.Revocation.Writer, r.Seq, r.Revocation.Key, through)
}

// Unwrap makes a Revoked an ErrNotTrusted.
func (r *Revoked) Unwrap() error { return ErrNotTrusted }

// InCharge returns the certificate that For goes by, also if its key is
// revoked; ok is false if there is none. Of several with the same From one
// that is not revoked comes first, then the one that was certified last: a copy
// of an older certificate under a greater number takes nobody's place.
func (s Signers) InCharge(seq Seq) (best Certificate, ok bool) {
	for _, c := range s.Certificates {
		if c.Role != RoleWriter || c.From > seq {
			continue
		}
		if !ok || s.compareCertificates(c, best, seq) > 0 {
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
	now, ok := s.InCharge(max(seq, c.From))
	return ok && now.N == c.N && !c.PurgeMaintainer
}
