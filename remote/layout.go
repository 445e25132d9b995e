package remote

import (
	"fmt"
	"strconv"
	"strings"
)

// Seq is the number of a writer's run: 1, 2, 3 … The zero Seq stands for
// "none". In keys it has ten digits, in JSON it is a number.
type Seq uint64

// MaxSeq is the greatest Seq that has ten digits.
const MaxSeq Seq = 9_999_999_999

// String returns ten digits.
func (s Seq) String() string { return string(s.append(make([]byte, 0, seqDigits))) }

// seqDigits is how many digits a Seq has in keys and lists.
const seqDigits = 10

// append writes the ten digits, or more for what is no valid Seq.
func (s Seq) append(b []byte) []byte {
	for limit := Seq(1_000_000_000); limit > 1 && s < limit; limit /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, uint64(s), 10)
}

// ParseSeq reads ten digits that are not all zero, and nothing else.
func ParseSeq(s string) (Seq, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || len(s) != seqDigits {
		return 0, fmt.Errorf("%q is not the number of a run: ten digits, from 0000000001 on", s)
	}
	return Seq(n), nil
}

// The parts that keys are made of.
const (
	signers   = "signers"
	blobs     = "blobs"
	metadata  = "metadata"
	forgotten = "forgotten"

	pubSuffix       = ".pub"
	revokedSuffix   = ".revoked"
	dumpSuffix      = ".db.zst.age"
	listSuffix      = ".list.zst"
	manifestName    = "manifest.json.zst"
	signatureSuffix = ".minisig"
)

// SignerKey is where a writer's n-th signing key lies, n counting from 1. The
// root key's signature lies at SignatureKey of it.
func SignerKey(writer string, n int) string {
	return SignersPrefix(writer) + strconv.Itoa(n) + pubSuffix
}

// RevocationKey is where the root key's word lies that a writer's n-th signing
// key is revoked, its signature at SignatureKey of it.
func RevocationKey(writer string, n int) string {
	return SignersPrefix(writer) + strconv.Itoa(n) + revokedSuffix
}

// SignatureKey is where the detached signature of the object at key lies.
func SignatureKey(key string) string { return key + signatureSuffix }

// BlobKey is where a blob lies that the run seq uploaded.
func BlobKey(writer string, seq Seq, h Hash) string {
	return BlobsPrefix(writer) + seq.String() + "/" + h.String()
}

// DumpKey is where a part of a dump lies.
func DumpKey(writer string, seq Seq, h Hash) string {
	return MetadataPrefix(writer) + seq.String() + "/" + h.String() + dumpSuffix
}

// ListKey is where a blob list lies.
func ListKey(writer string, seq Seq, h Hash) string {
	return MetadataPrefix(writer) + seq.String() + "/" + h.String() + listSuffix
}

// ManifestKey is where a run's manifest lies. It holds no hash, so that two
// runs with one seq collide.
func ManifestKey(writer string, seq Seq) string {
	return MetadataPrefix(writer) + seq.String() + "/" + manifestName
}

// TombstoneKey is where the tombstone of a run's manifest lies.
func TombstoneKey(writer string, seq Seq) string { return ForgottenPrefix(writer) + seq.String() }

// WriterPrefix is what every key of a writer begins with. Like the other
// prefixes it ends in "/", so that no writer's name is a prefix of another's.
func WriterPrefix(writer string) string { return writer + "/" }

// SignersPrefix is what the keys of a writer's signers begin with.
func SignersPrefix(writer string) string { return WriterPrefix(writer) + signers + "/" }

// BlobsPrefix is what the keys of a writer's blobs begin with.
func BlobsPrefix(writer string) string { return WriterPrefix(writer) + blobs + "/" }

// MetadataPrefix is what the keys of a writer's manifests, lists and dumps
// begin with.
func MetadataPrefix(writer string) string { return WriterPrefix(writer) + metadata + "/" }

// ForgottenPrefix is what the keys of a writer's tombstones begin with.
func ForgottenPrefix(writer string) string { return WriterPrefix(writer) + forgotten + "/" }

// Kind says what an object is.
type Kind string

// The kinds of objects.
const (
	KindSigner     Kind = "signer"
	KindRevocation Kind = "revocation"
	KindBlob       Kind = "blob"
	KindDump       Kind = "dump"
	KindList       Kind = "list"
	KindManifest   Kind = "manifest"
	KindTombstone  Kind = "tombstone"
)

// Key is what the key of an object says.
type Key struct {
	Writer    string
	Kind      Kind
	Seq       Seq  // of every kind but KindSigner and KindRevocation
	Hash      Hash // of KindBlob, KindDump and KindList
	N         int  // of KindSigner and KindRevocation
	Signature bool // the detached signature of the object, for KindSigner, KindRevocation and KindManifest
}

// ParseKey is the strict inverse of the functions that spell keys: it accepts
// exactly what they return for valid arguments.
func ParseKey(key string) (Key, error) {
	bad := func(why string) (Key, error) {
		return Key{}, fmt.Errorf("%q is not the key of an object of vaultik: %s", key, why)
	}
	parts := strings.Split(key, "/")
	if len(parts) < 3 {
		return bad("it has too few parts")
	}
	k := Key{Writer: parts[0]}
	if err := CheckName(k.Writer); err != nil {
		return bad(err.Error())
	}
	folder, rest := parts[1], parts[2:]
	if folder == signers || folder == metadata {
		last := &rest[len(rest)-1]
		*last, k.Signature = strings.CutSuffix(*last, signatureSuffix)
	}
	var err error
	switch {
	case folder == signers && len(rest) == 1:
		k.Kind = KindSigner
		digits, ok := strings.CutSuffix(rest[0], pubSuffix)
		if !ok {
			k.Kind = KindRevocation
			digits, ok = strings.CutSuffix(rest[0], revokedSuffix)
		}
		k.N, err = strconv.Atoi(digits)
		if !ok || err != nil || k.N < 1 || strconv.Itoa(k.N) != digits || len(digits) > 9 {
			return bad("a signer is called <n>.pub and its revocation <n>.revoked, n counting from 1")
		}
		return k, nil
	case folder == forgotten && len(rest) == 1:
		k.Kind = KindTombstone
	case folder == blobs && len(rest) == 2:
		k.Kind = KindBlob
		k.Hash, err = ParseHash(rest[1])
	case folder == metadata && len(rest) == 2 && rest[1] == manifestName:
		k.Kind = KindManifest
	case folder == metadata && len(rest) == 2 && !k.Signature:
		if name, ok := strings.CutSuffix(rest[1], dumpSuffix); ok {
			k.Kind = KindDump
			k.Hash, err = ParseHash(name)
		} else if name, ok := strings.CutSuffix(rest[1], listSuffix); ok {
			k.Kind = KindList
			k.Hash, err = ParseHash(name)
		} else {
			return bad("no such name in " + metadata)
		}
	default:
		return bad("no such place in a writer's folder")
	}
	if err != nil {
		return bad(err.Error())
	}
	if k.Seq, err = ParseSeq(rest[0]); err != nil {
		return bad(err.Error())
	}
	return k, nil
}

// String is the inverse of ParseKey.
func (k Key) String() string {
	var s string
	switch k.Kind {
	case KindSigner:
		s = SignerKey(k.Writer, k.N)
	case KindRevocation:
		s = RevocationKey(k.Writer, k.N)
	case KindBlob:
		s = BlobKey(k.Writer, k.Seq, k.Hash)
	case KindDump:
		s = DumpKey(k.Writer, k.Seq, k.Hash)
	case KindList:
		s = ListKey(k.Writer, k.Seq, k.Hash)
	case KindManifest:
		s = ManifestKey(k.Writer, k.Seq)
	case KindTombstone:
		s = TombstoneKey(k.Writer, k.Seq)
	}
	if k.Signature {
		s = SignatureKey(s)
	}
	return s
}

// CheckName says whether a writer or a set may be called so. The name is part
// of keys, of snapshot ids and of file names in a mount, so it has one
// spelling everywhere and needs no quoting anywhere.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && !strings.HasSuffix(name, ".")
	for i := 0; i < len(name) && ok; i++ {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.' || c == '_' || c == '-':
			ok = i > 0
		default:
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("%q is not a valid name: use 1 to 63 letters, digits, dots, underscores and dashes, a letter or digit first and no dot last", name)
	}
	return nil
}
