package remote

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Revocation is the root key's word that a signing key is no longer trusted,
// because somebody else may have it. What the key signed before still holds:
// its manifests up to one run, the newest of them named by its hash and those
// before it by the chain, as far as that leads, and the tombstones that are
// listed. Whatever else it signed, at any time, does not.
type Revocation struct {
	Writer string
	N      int // the signer's number when it was revoked, for people; the key counts wherever it lies
	Key    PublicKey
	// Through is the last run whose manifest by this key holds, Manifest the
	// SHA-256 of that manifest's object; 0 and zero if none does.
	Through    Seq
	Manifest   Hash
	Tombstones []RevokedTombstone // by this key, that stay valid; by Seq
}

// RevokedTombstone names a tombstone. It is the whole object that is named: a
// thief could sign another one for the same manifest, with another past.
type RevokedTombstone struct {
	Seq    Seq
	SHA256 Hash // of the tombstone's object
}

// revocationTitle is the first line of a revocation, without its version.
const revocationTitle = "vaultik revocation "

// RevocationComment is the trusted comment of a revocation's signature, for
// people: the text is signed as well.
func RevocationComment(writer string, n int) string {
	return fmt.Sprintf("vaultik revocation v1 writer=%s signer=%d", writer, n)
}

// Text returns the object. Fields that ParseRevocation would refuse make a
// text that it refuses.
func (r Revocation) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%d\nwriter %s\nsigner %d\nkey %s\n", revocationTitle, FormatVersion, r.Writer, r.N, r.Key)
	if r.Through == 0 {
		b.WriteString("through none\n")
	} else {
		fmt.Fprintf(&b, "through %s %s\n", r.Through, r.Manifest)
	}
	for _, t := range r.Tombstones {
		fmt.Fprintf(&b, "tombstone %s %s\n", t.Seq, t.SHA256)
	}
	return b.Bytes()
}

// SignRevocation returns the object and its detached signature.
func SignRevocation(root SigningKey, r Revocation) (object, signature []byte) {
	object = r.Text()
	return object, root.Sign(object, RevocationComment(r.Writer, r.N))
}

// ParseRevocation checks the root key's signature over a revocation and reads
// it. It must be for this writer. Errors wrap ErrNotTrusted, ErrUnsupported or
// ErrCorrupt.
func ParseRevocation(root PublicKey, writer string, object, signature []byte) (Revocation, error) {
	if _, err := root.Verify(object, signature); err != nil {
		return Revocation{}, fmt.Errorf("not signed by root key %s: %w", root.KeyID(), err)
	}
	r, err := decodeRevocation(string(object))
	if err != nil {
		return Revocation{}, err
	}
	if r.Writer != writer {
		return Revocation{}, fmt.Errorf("%w: it revokes a signer of writer %q, and was put in another's place", ErrNotTrusted, r.Writer)
	}
	return r, nil
}

func decodeRevocation(text string) (r Revocation, err error) {
	lines := strings.Split(text, "\n")
	version, ok := strings.CutPrefix(lines[0], revocationTitle)
	switch {
	case !ok:
		return r, fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, revocationTitle)
	case version != strconv.Itoa(FormatVersion):
		return r, fmt.Errorf("%w: a revocation of version %q", ErrUnsupported, version)
	case len(lines) < 6:
		return r, fmt.Errorf("%w: a revocation of %d lines", ErrCorrupt, len(lines)-1)
	}
	r.Writer = strings.TrimPrefix(lines[1], "writer ")
	r.N, _ = strconv.Atoi(strings.TrimPrefix(lines[2], "signer "))
	if r.Key, err = ParsePublicKey(strings.TrimPrefix(lines[3], "key ")); err != nil {
		return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if lines[4] != "through none" {
		if r.Through, r.Manifest, err = parseRunAndHash(strings.TrimPrefix(lines[4], "through ")); err != nil {
			return r, err
		}
	}
	for _, line := range lines[5 : len(lines)-1] {
		t := RevokedTombstone{}
		if t.Seq, t.SHA256, err = parseRunAndHash(strings.TrimPrefix(line, "tombstone ")); err != nil {
			return r, err
		}
		if n := len(r.Tombstones); n > 0 && r.Tombstones[n-1].Seq >= t.Seq {
			return r, fmt.Errorf("%w: its tombstones are not in order", ErrCorrupt)
		}
		r.Tombstones = append(r.Tombstones, t)
	}
	if CheckName(r.Writer) != nil || r.N < 1 || string(r.Text()) != text {
		return r, fmt.Errorf("%w: this is not how a revocation is written", ErrCorrupt)
	}
	return r, nil
}

func parseRunAndHash(words string) (Seq, Hash, error) {
	run, hash, _ := strings.Cut(words, " ")
	seq, err := ParseSeq(run)
	if err != nil {
		return 0, Hash{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	h, err := ParseHash(hash)
	if err != nil {
		return 0, Hash{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return seq, h, nil
}

// loadRevocations reads those of the numbers. One that is not the root key's,
// or cannot be read, goes to Problems and revokes nothing. It may be a good one
// that was damaged, so what it forbade to forget is not deleted either.
func (s *Signers) loadRevocations(ctx context.Context, store Store, root PublicKey, numbers []int, signed map[string]bool) error {
	for _, n := range numbers {
		err := fmt.Errorf("%w: its signature is missing", ErrNotTrusted)
		var r Revocation
		if signed[SignatureKey(RevocationKey(s.Writer, n))] {
			r, err = loadRevocation(ctx, store, root, s.Writer, n)
		}
		switch {
		case err == nil:
			s.Revocations = append(s.Revocations, r)
		case ctx.Err() != nil || !isFinding(err) && !isWithheld(err):
			return err
		default:
			s.Problems = append(s.Problems, &Problem{Key: RevocationKey(s.Writer, n), Err: fmt.Errorf("it revokes nothing: %w", err), Stops: true})
		}
	}
	return nil
}

func loadRevocation(ctx context.Context, s Store, root PublicKey, writer string, n int) (Revocation, error) {
	key := RevocationKey(writer, n)
	object, err := get(ctx, s, key, MaxRevocation)
	if err != nil {
		return Revocation{}, err
	}
	signature, err := get(ctx, s, SignatureKey(key), MaxSignature)
	if err != nil {
		return Revocation{}, fmt.Errorf("its signature: %w", err)
	}
	return ParseRevocation(root, writer, object, signature)
}

// Revocation returns the revocation of a key, of several the one that leaves
// the least; ok is false if it was not revoked. The key counts, not the
// number that it lies under: whoever may write to the store can copy a
// certificate to another.
func (s Signers) Revocation(key PublicKey) (r Revocation, ok bool) {
	for _, next := range s.Revocations {
		if next.Key.Equal(key) && (!ok || next.Through < r.Through) {
			r, ok = next, true
		}
	}
	return r, ok
}

// void reports whether a certificate's key is revoked for the run seq.
func (s Signers) void(c Certificate, seq Seq) bool {
	r, revoked := s.Revocation(c.Key)
	return revoked && seq > r.Through
}

// withdrawn reports whether what was seen once does not count any more because
// its signer is revoked.
func (s Signers) withdrawn(seen sighting) bool {
	key, err := ParsePublicKey(seen.Signer)
	if err != nil {
		return false // not noted
	}
	r, revoked := s.Revocation(key)
	return revoked && (seen.Seq > r.Through || seen.Seq == r.Through && seen.Hash != r.Manifest)
}

// holds checks a manifest, by the key in charge of its run, against the key's
// revocation.
func (s Signers) holds(key PublicKey, seq Seq, manifest Hash) error {
	for _, r := range s.Revocations {
		if r.Key.Equal(key) && seq == r.Through && manifest != r.Manifest {
			return fmt.Errorf("%w: its signing key %s is revoked, and the revocation names another manifest of this run", ErrNotTrusted, key)
		}
	}
	return nil
}

// stays reports whether a tombstone by a key stays valid although that key was
// revoked; true if it was not.
func (s Signers) stays(key PublicKey, t *Tombstone) bool {
	for _, r := range s.Revocations {
		if r.Key.Equal(key) && !slices.Contains(r.Tombstones, RevokedTombstone{t.Seq, t.Hash()}) {
			return false
		}
	}
	return true
}

// withdraw takes out the manifests of revoked keys for which nothing vouches. The
// revocation does for that of the last run, and every manifest or tombstone that
// counts does for the one whose hash it calls previous. Below a gap that is
// nobody: whoever has the key could have made the gap to put something below it.
func (c *chain) withdraw(signers Signers) {
	known := slices.AppendSeq(slices.Collect(maps.Keys(c.manifests)), maps.Keys(c.tombstones))
	slices.Sort(known)
	var want *Hash
	after := Seq(0)
	for _, seq := range slices.Backward(slices.Compact(known)) {
		if seq+1 != after {
			want = nil
		}
		after = seq
		m, there := c.manifests[seq]
		r, revoked := signers.Revocation(m.Key)
		if there && revoked && seq != r.Through && (want == nil || *want != m.Hash) {
			c.refuse(m, want)
			there = false
		}
		t, forgotten := c.tombstones[seq]
		switch {
		case there:
			want = m.Manifest.Previous
		case forgotten:
			want = t.Previous
		default:
			want = nil
		}
	}
}

// refuse takes out a manifest of a revoked key. want is what the one after it
// follows, nil if that cannot be told.
func (c *chain) refuse(m Verified, want *Hash) {
	seq := m.Manifest.Seq
	delete(c.manifests, seq)
	if want != nil {
		c.broken[seq] = fmt.Errorf("%w: its signing key %s is revoked, and this manifest is not the one that its own later ones follow", ErrNotTrusted, m.Key)
		return
	}
	c.unvouched[seq] = link{m.Hash, m.Manifest.Previous}
	c.broken[seq] = fmt.Errorf("%w: its signing key %s is revoked, and as long as what follows it is missing or not trusted, nothing shows that the honest machine made it; "+
		"bring that back from a copy of the store", ErrNotTrusted, m.Key)
}

// compareCertificates orders those that are certified for a run: who is in
// charge of it comes last.
func (s Signers) compareCertificates(a, b Certificate, seq Seq) int {
	valid := func(c Certificate) int {
		if s.void(c, seq) {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(valid(a), valid(b)), cmp.Compare(s.original(a), s.original(b)), cmp.Compare(a.N, b.N))
}

// original is the least number that a certificate lies under: whoever may write
// to the store can copy it to a greater one.
func (s Signers) original(c Certificate) int {
	for _, o := range s.Certificates { // by N
		if o.N < c.N && o.Key.Equal(c.Key) && o.Comment() == c.Comment() {
			return o.N
		}
	}
	return c.N
}
