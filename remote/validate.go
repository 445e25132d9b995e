package remote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// validate says what is wrong with m as a manifest of this format. Writers
// and readers use the same rules, so that nothing gets signed that nobody
// would read.
func (m *Manifest) validate() error {
	switch {
	case m.Format != FormatVersion:
		return fmt.Errorf("format is %d instead of %d", m.Format, FormatVersion)
	case len(m.Requires) > 0:
		return fmt.Errorf("requires is %q, but this format has no features", m.Requires)
	case m.Type != TypeManifest:
		return fmt.Errorf("type is %q instead of %q", m.Type, TypeManifest)
	case m.Seq < 1 || m.Seq > MaxSeq:
		return fmt.Errorf("seq is %d, outside of 1 to %d", uint64(m.Seq), uint64(MaxSeq))
	case (m.Seq == 1) != (m.Previous == nil):
		return errors.New("previous must be null in the first manifest and in no other")
	}
	if err := CheckName(m.Writer); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	if err := CheckName(m.Set); err != nil {
		return fmt.Errorf("set: %w", err)
	}
	if err := checkSnapshotID(m.Writer, m.Snapshot); err != nil {
		return err
	}
	if err := checkManifestTags(m.Tags); err != nil {
		return fmt.Errorf("tags: %w", err)
	}
	if err := errors.Join(checkTime("started", m.Started), checkTime("finished", m.Finished),
		checkText("version", m.Version), checkText("chunker", m.Parameters.Chunker)); err != nil {
		return err
	}
	t, r, p := m.Totals, m.Rows, m.Parameters
	for _, n := range []int64{
		t.Files, t.Bytes, t.NewFiles, t.NewBytes, t.StoredBytes,
		r.Volumes, r.Paths, r.Files, r.Xattrs, r.Contents, r.FileChunks, r.Chunks, r.Blobs, r.BlobChunks,
	} {
		if n < 0 || n > maxNumber {
			return fmt.Errorf("totals and rows: %d is outside of 0 to 2^53-1", n)
		}
	}
	if p.ChunkMin < 1 || p.ChunkMin > p.ChunkAvg || p.ChunkAvg > p.ChunkMax || p.ChunkMax > MaxChunk {
		return fmt.Errorf("parameters: chunk sizes %d, %d, %d do not ascend within 1 to %d", p.ChunkMin, p.ChunkAvg, p.ChunkMax, MaxChunk)
	}
	if err := m.checkDumps(); err != nil {
		return err
	}
	if err := m.Blobs.validate(m.Seq); err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	if err := m.Pins.validate(m.Seq); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return checkRecipients(m.Recipients)
}

func (m *Manifest) checkDumps() error {
	if len(m.Dumps) == 0 {
		return errors.New("dumps is empty")
	}
	seen := make(map[Name]bool, len(m.Dumps))
	for _, d := range m.Dumps {
		if err := d.validate(m.Seq, MaxDumpPart); err != nil {
			return fmt.Errorf("dumps: %w", err)
		}
		if d.PlainSize < 1 || d.PlainSize > maxNumber {
			return fmt.Errorf("dumps: part %s has a plain size of %d", d.SHA256, d.PlainSize)
		}
		if seen[d.Name()] {
			return fmt.Errorf("dumps: part %s is there twice", d.SHA256)
		}
		seen[d.Name()] = true
	}
	if err := checkSorted(m.PinnedDumps, Object.Name); err != nil {
		return fmt.Errorf("pinned_dumps: %w", err)
	}
	for _, o := range m.PinnedDumps {
		if err := o.validate(m.Seq, MaxDumpPart); err != nil {
			return fmt.Errorf("pinned_dumps: %w", err)
		}
	}
	return nil
}

// validate checks an object that a manifest of run seq names.
func (o Object) validate(seq Seq, limit int64) error {
	if o.Seq < 1 || o.Seq > seq {
		return fmt.Errorf("%s is of run %d, outside of 1 to %d", o.SHA256, uint64(o.Seq), uint64(seq))
	}
	if o.Size < 1 || o.Size > limit {
		return fmt.Errorf("%s has a size of %d, outside of 1 to %d", o.SHA256, o.Size, limit)
	}
	return nil
}

func (l ObjectList) validate(seq Seq) error {
	if l.List == nil && len(l.Drop) > 0 {
		return errors.New("drop without a list")
	}
	if r := l.List; r != nil {
		if err := r.validate(seq, MaxList); err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if r.PlainSize < 1 || r.PlainSize > MaxList || r.Count < int64(len(l.Drop)) || r.Count > r.PlainSize {
			return fmt.Errorf("list: %d blobs in %d bytes, %d of them dropped", r.Count, r.PlainSize, len(l.Drop))
		}
	}
	if err := errors.Join(checkSorted(l.Add, Object.Name), checkSorted(l.Drop, func(n Name) Name { return n })); err != nil {
		return err
	}
	for _, o := range l.Add {
		if err := o.validate(seq, MaxBlob); err != nil {
			return err
		}
		if _, both := slices.BinarySearchFunc(l.Drop, o.Name(), CompareNames); both {
			return fmt.Errorf("%s is both added and dropped", o.SHA256)
		}
	}
	for _, n := range l.Drop {
		if n.Seq < 1 || n.Seq > seq {
			return fmt.Errorf("%s is of run %d, outside of 1 to %d", n.SHA256, uint64(n.Seq), uint64(seq))
		}
	}
	return nil
}

// CompareNames orders objects by seq, then hash, as manifests list them.
func CompareNames(a, b Name) int {
	if a.Seq != b.Seq {
		return cmp.Compare(a.Seq, b.Seq)
	}
	return bytes.Compare(a.SHA256[:], b.SHA256[:])
}

func checkSorted[T any](s []T, name func(T) Name) error {
	for i := 1; i < len(s); i++ {
		if CompareNames(name(s[i-1]), name(s[i])) >= 0 {
			return fmt.Errorf("%s is out of order or there twice", name(s[i]).SHA256)
		}
	}
	return nil
}

func checkRecipients(recipients []string) error {
	if len(recipients) == 0 {
		return errors.New("recipients is empty")
	}
	for i, r := range recipients {
		if _, err := ParseHash(r); err != nil {
			return fmt.Errorf("recipients: %w", err)
		}
		if i > 0 && recipients[i-1] >= r {
			return fmt.Errorf("recipients: %s is out of order or there twice", r)
		}
	}
	return nil
}

func checkManifestTags(tags []string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("there are %d, more than %d", len(tags), MaxTags)
	}
	for i, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return err
		}
		if i > 0 && tags[i-1] >= tag {
			return fmt.Errorf("%q is out of order or there twice", tag)
		}
	}
	return nil
}

// CheckTag accepts 1 to 128 bytes of UTF-8 that need no escape in JSON, so
// without quotes, backslashes, control characters and line separators.
func CheckTag(tag string) error {
	ok := len(tag) >= 1 && len(tag) <= maxTag && utf8.ValidString(tag)
	for _, c := range tag {
		ok = ok && c >= 0x20 && (c < 0x7f || c > 0x9f) && c != '"' && c != '\\' && c != '\u2028' && c != '\u2029'
	}
	if !ok {
		return fmt.Errorf("%q is not 1 to %d bytes of UTF-8 without quotes, backslashes and control characters", tag, maxTag)
	}
	return nil
}

var afterWriter = regexp.MustCompile(`^-\d{8}-\d{6}Z(-([2-9]|[1-9]\d{1,8}))?$`)

func checkSnapshotID(writer, id string) error {
	if rest, ok := strings.CutPrefix(id, writer); !ok || !afterWriter.MatchString(rest) {
		return fmt.Errorf("snapshot: %q is not %s-YYYYMMDD-HHMMSSZ", id, writer)
	}
	return nil
}

// checkTime accepts the one way to write a whole second in UTC.
func checkTime(field, s string) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Format(time.RFC3339) != s {
		return fmt.Errorf("%s: %q is not a time like 2006-01-02T15:04:05Z", field, s)
	}
	return nil
}

// checkText accepts printable ASCII that needs no escape in JSON. So no
// string in a signed object ever has one, and grep and sed can be trusted
// with it.
func checkText(field, s string) error {
	ok := len(s) >= 1 && len(s) <= 128
	for _, c := range []byte(s) {
		ok = ok && c >= 0x20 && c <= 0x7e && c != '"' && c != '\\'
	}
	if !ok {
		return fmt.Errorf("%s: %q is not 1 to 128 printable ASCII characters without quotes and backslashes", field, s)
	}
	return nil
}
