package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// FormatVersion is the format this package writes, and the only one it reads.
const FormatVersion = 1

// The values of a signed object's type field, so that a signature of one kind
// never passes for another.
const (
	TypeManifest  = "manifest"
	TypeTombstone = "tombstone"
)

// Object names an object of a writer and how big it is. Its place follows
// from the kind of field it is in.
type Object struct {
	Seq    Seq   `json:"seq"` // the run that uploaded it
	SHA256 Hash  `json:"sha256"`
	Size   int64 `json:"size"` // bytes as stored
}

// Name returns the object's identity, its size left out.
func (o Object) Name() Name { return Name{o.Seq, o.SHA256} }

// Name is the identity of an object among those of its kind.
type Name struct {
	Seq    Seq  `json:"seq"`
	SHA256 Hash `json:"sha256"`
}

// DumpPart is one part of a dump.
type DumpPart struct {
	Object
	PlainSize int64 `json:"plain_size"` // bytes of SQL text
}

// ListRef names a blob list.
type ListRef struct {
	Object
	PlainSize int64 `json:"plain_size"` // bytes of the decompressed list
	Count     int64 `json:"count"`      // blobs in it
}

// ObjectList is a set of blobs, written as the difference to one list in the
// store, or in full where List is nil. Add and Drop are sorted by seq, then
// hash, without duplicates; nothing in Add and everything in Drop is in the
// list. Use Diff to make one and Resolve to read one.
type ObjectList struct {
	List *ListRef `json:"list"`
	Add  []Object `json:"add"`
	Drop []Name   `json:"drop"`
}

// Totals say what a snapshot holds and what its run did, for people.
type Totals struct {
	Files       int64 `json:"files"`        // entries of every type
	Bytes       int64 `json:"bytes"`        // content of regular files, hard links counted each
	NewFiles    int64 `json:"new_files"`    // file versions that this run recorded
	NewBytes    int64 `json:"new_bytes"`    // and their content
	StoredBytes int64 `json:"stored_bytes"` // ciphertext of the blobs that this run uploaded
}

// Rows are the counts that a loaded dump must have, by table.
type Rows struct {
	Volumes    int64 `json:"volumes"`
	Paths      int64 `json:"paths"`
	Files      int64 `json:"files"`
	Xattrs     int64 `json:"xattrs"`
	Contents   int64 `json:"contents"`
	FileChunks int64 `json:"file_chunks"`
	Chunks     int64 `json:"chunks"`
	Blobs      int64 `json:"blobs"`
	BlobChunks int64 `json:"blob_chunks"`
}

// Parameters tell how content was cut, without the secret that keys it.
type Parameters struct {
	Chunker  string `json:"chunker"`
	ChunkMin int64  `json:"chunk_min"` // bytes
	ChunkAvg int64  `json:"chunk_avg"`
	ChunkMax int64  `json:"chunk_max"`
}

// Manifest is the signed plaintext list of a snapshot's objects. A snapshot
// exists if and only if its manifest does. The order of the fields is the
// order in the object.
type Manifest struct {
	Format      int        `json:"format"`
	Requires    []string   `json:"requires"` // features a reader must know; this format has none
	Type        string     `json:"type"`
	Writer      string     `json:"writer"`
	Seq         Seq        `json:"seq"`
	Previous    *Hash      `json:"previous"` // of the object of the manifest before, nil for the first
	Snapshot    string     `json:"snapshot"` // <writer>-<YYYYMMDD-HHMMSSZ>, "-2" … appended to tell equals apart
	Set         string     `json:"set"`
	Tags        []string   `json:"tags"`    // sorted, in the clear: retention goes by them and has no key
	Started     string     `json:"started"` // RFC 3339, UTC, whole seconds, by the writer's clock
	Finished    string     `json:"finished"`
	Version     string     `json:"version"` // of the program that wrote it
	Totals      Totals     `json:"totals"`
	Rows        Rows       `json:"rows"`
	Dumps       []DumpPart `json:"dumps"`        // to be loaded one after the other
	PinnedDumps []Object   `json:"pinned_dumps"` // base dumps that later runs of other sets refer to
	Blobs       ObjectList `json:"blobs"`        // what the snapshot's files need
	Pins        ObjectList `json:"pins"`         // what the writer's index counts on beyond that
	Recipients  []string   `json:"recipients"`   // SHA-256 of each age recipient, in hexadecimal, sorted
	Parameters  Parameters `json:"parameters"`
}

// ManifestComment is the trusted comment of a manifest's signature. It informs
// people; what counts is in the manifest.
func ManifestComment(writer string, seq Seq) string {
	return fmt.Sprintf("vaultik manifest v1 writer=%s seq=%d", writer, uint64(seq))
}

// Encode checks m and returns its object: zstd of the canonical JSON. Nil
// slices are written as empty ones.
func (m *Manifest) Encode() (object []byte, err error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("encode the manifest of run %d of writer %q: %w", m.Seq, m.Writer, err)
	}
	plain := m.plain()
	if len(plain) > MaxManifest {
		return nil, fmt.Errorf("encode the manifest of run %d of writer %q: it has %d bytes, more than the %d that readers accept", m.Seq, m.Writer, len(plain), MaxManifest)
	}
	return compress(plain), nil
}

// plain returns the canonical JSON.
func (m *Manifest) plain() []byte {
	c := *m
	c.Requires, c.Tags = notNil(c.Requires), notNil(c.Tags)
	c.Dumps = notNil(c.Dumps)
	c.PinnedDumps = notNil(c.PinnedDumps)
	c.Blobs.Add, c.Blobs.Drop = notNil(c.Blobs.Add), notNil(c.Blobs.Drop)
	c.Pins.Add, c.Pins.Drop = notNil(c.Pins.Add), notNil(c.Pins.Drop)
	c.Recipients = notNil(c.Recipients)
	return canonical(c)
}

// DecodeManifest reads an object whose signature has been checked. Errors
// wrap ErrUnsupported where the manifest is of another format or requires a
// feature, which they name, and ErrCorrupt otherwise.
func DecodeManifest(object []byte) (*Manifest, error) {
	if len(object) > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, more than the limit of %d", ErrCorrupt, len(object), MaxManifest)
	}
	var m *Manifest
	err := decompress(object, MaxManifest, func(plain []byte) (err error) {
		m, err = decodeManifest(plain)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// decode reads a JSON object into v, whose encoding and rules the functions
// are. What is of another format or requires something may look quite
// different, so that nothing else is said about it; what keeps all the rules
// is of this format and requires nothing.
func decode(plain []byte, v any, again func() []byte, validate func() error) error {
	err := strict(plain, v, again)
	if err == nil {
		if err = validate(); err == nil {
			return nil
		}
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if other := checkFormat(plain); other != nil {
		return other
	}
	return err
}

// canonical returns the one encoding of v: fields in the order of the struct,
// no blanks, one line end at the end.
func canonical(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("internal error: " + err.Error()) // no such type is in our structs
	}
	return b.Bytes()
}

// checkFormat looks at a JSON object's format and requirements before any
// other field: what they rule out may look quite different.
func checkFormat(plain []byte) error {
	var f struct{ Format json.RawMessage }
	if err := json.Unmarshal(plain, &f); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if string(f.Format) != fmt.Sprint(FormatVersion) {
		return fmt.Errorf("%w: format %q, this version reads format %d; use a newer one", ErrUnsupported, f.Format, FormatVersion)
	}
	var r struct{ Requires []string }
	if err := json.Unmarshal(plain, &r); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(r.Requires) > 0 {
		return fmt.Errorf("%w: it requires %q, which this version does not know; use a newer one", ErrUnsupported, r.Requires)
	}
	return nil
}

// strict decodes plain into v and accepts it only if it is exactly what
// encoding v again gives. That refuses duplicate, unknown, missing and
// differently cased keys, nulls, blanks, escapes and trailing bytes.
func strict(plain []byte, v any, again func() []byte) error {
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !bytes.Equal(again(), plain) {
		return fmt.Errorf("%w: %w", ErrCorrupt, errNotCanonical)
	}
	return nil
}

var errNotCanonical = errors.New("it is not in the canonical form")

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
