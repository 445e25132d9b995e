package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Fenced reports whether the writer's newest certificate leaves forgetting to
// maintainers, which a new one then does as well.
func Fenced(signers remote.Signers) bool {
	c, ok := signers.InCharge(remote.MaxSeq)
	return ok && c.PurgeMaintainer
}

// List returns the public keys under a writer's signers by number; a zero one
// where there is something else. A writer without any is empty.
func List(ctx context.Context, store remote.Store, writer string) (map[int]remote.PublicKey, error) {
	found := make(map[int]remote.PublicKey)
	for info, err := range store.List(ctx, remote.SignersPrefix(writer)) {
		if err != nil {
			return nil, fmt.Errorf("list the signers of writer %q: %w", writer, err)
		}
		k, err := remote.ParseKey(info.Key)
		if err != nil || k.Kind != remote.KindSigner || k.Signature {
			continue
		}
		text, err := stores.Fetch(ctx, store, info.Key, objectLimit)
		if err != nil {
			return nil, fmt.Errorf("read signer %d of writer %q: %w", k.N, writer, err)
		}
		found[k.N], _ = remote.ParsePublicKey(string(text)) // zero: none
	}
	return found, nil
}

// Put puts a public key under the first free number from n on, and returns that.
func Put(ctx context.Context, store remote.Store, writer string, n int, key remote.PublicKey) (int, error) {
	for ; ; n++ {
		err := store.Put(ctx, remote.SignerKey(writer, n), key.File())
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, remote.ErrExists) {
			return 0, err
		}
	}
}

// Certify certifies the key that lies under c.N. A certificate is never
// replaced: if there is one of this root key and role, it is returned instead.
func Certify(ctx context.Context, store remote.Store, root remote.SigningKey, c remote.Certificate) (remote.Certificate, error) {
	object := remote.SignerKey(c.Writer, c.N)
	signature := remote.SignCertificate(root, c)
	err := store.Put(ctx, remote.SignatureKey(object), signature)
	if !errors.Is(err, remote.ErrExists) {
		return c, err
	}
	if signature, err = stores.Fetch(ctx, store, remote.SignatureKey(object), objectLimit); err != nil {
		return c, err
	}
	there, err := remote.ParseCertificate(root.Public(), c.Writer, c.N, c.Key.File(), signature)
	if err != nil {
		return c, fmt.Errorf("%s is there already but not of this kit's root key: %w; put the key under another number, "+
			"with \"vaultik key rotate\" on that machine or, if it is new, \"vaultik init\" under another name", remote.SignatureKey(object), err)
	}
	if there.Role != c.Role {
		return c, fmt.Errorf("signer %d of writer %q is certified already, as a %s, and a certificate is never replaced", c.N, c.Writer, there.Role)
	}
	return there, nil
}

// Choose finds the signer that is meant: the number, the key, or the one
// that waits.
func Choose(there map[int]remote.PublicKey, signers remote.Signers, number int, want remote.PublicKey) (int, error) {
	if number > 0 || len(there) == 0 {
		if _, ok := there[number]; !ok {
			return 0, fmt.Errorf("there is no signer %d; \"vaultik init\" on that machine puts it there", max(number, 1))
		}
		return number, nil
	}
	certified := make(map[int]bool)
	for _, c := range signers.Certificates {
		certified[c.N] = true
	}
	var own, waiting, last []int
	for n, key := range there {
		if !want.IsZero() && key.Equal(want) {
			own = append(own, n)
		}
		if !certified[n] {
			waiting = append(waiting, n)
		} else if !slices.ContainsFunc(signers.Certificates, func(c remote.Certificate) bool { return c.N == n && c.Role == remote.RoleMaintainer }) {
			last = append(last, n)
		}
	}
	switch {
	case len(own) > 0:
		return slices.Max(own), nil
	case len(waiting) == 1, len(waiting) > 1 && !want.IsZero():
		return slices.Max(waiting), nil
	case len(waiting) > 1:
		return 0, fmt.Errorf("the signers %v wait for a certificate; say which, with --key or --signer", slices.Sorted(slices.Values(waiting)))
	case len(last) == 0:
		return 0, errors.New("it has no signing key of a machine")
	}
	return slices.Max(last), nil
}

// FirstRun is the run from which a new key of a writer can take charge: the
// next one may be under way with the old key, if that still counts for it.
func FirstRun(w *remote.WriterState) remote.Seq {
	next := NewestRun(w) + 1
	if _, err := w.Signers.For(next); err == nil {
		return next + 1
	}
	return next
}

// NewestRun is the newest run that is trusted, 0 if there is none.
func NewestRun(w *remote.WriterState) remote.Seq {
	var newest remote.Seq
	if n := len(w.Snapshots); n > 0 {
		newest = w.Snapshots[n-1].Manifest.Seq
	}
	if n := len(w.Forgotten); n > 0 {
		newest = max(newest, w.Forgotten[n-1].Seq)
	}
	return newest
}

// CheckFrom refuses a certificate that would take runs away from the key that
// signed them.
func CheckFrom(w *remote.WriterState, c remote.Certificate) error {
	for _, s := range w.Snapshots {
		if seq := s.Manifest.Seq; seq >= c.From && !s.Key.Equal(c.Key) {
			return fmt.Errorf("run %d of writer %q is signed by another key (%s), and would not count any more if this one were in charge from run %d on; leave --from out, or say --from %d",
				uint64(seq), w.Writer, s.Key, uint64(c.From), uint64(FirstRun(w)))
		}
	}
	return nil
}

// charge is the first and the last run that a writer's certificate is in
// charge of: both 0 if it never is, the last 0 while nobody follows.
func charge(signers remote.Signers, c remote.Certificate) (from, to remote.Seq) {
	if first, _ := signers.InCharge(c.From); first.N != c.N {
		return 0, 0
	}
	for _, other := range signers.Certificates {
		if other.Role == remote.RoleWriter && other.From > c.From && (to == 0 || other.From-1 < to) {
			to = other.From - 1
		}
	}
	return c.From, to
}

// objectLimit bounds keys and signatures in the store, in bytes.
const objectLimit = 1 << 20
