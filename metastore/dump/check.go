package dump

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// Limits that no dump can change.
const (
	MaxName     = 255      // bytes of a name
	maxTarget   = 64 << 10 // bytes of a symbolic link's target; Linux itself allows 4095
	maxOwner    = 1024     // bytes of a user's or group's name
	maxChunk    = 16 << 20 // bytes of a chunk's plaintext, and of a whole frame's
	maxBlob     = 1 << 30  // bytes of a blob
	maxHeader   = 64 << 10 // bytes of a blob's age header
	hashSize    = 32       // bytes of a SHA-256
	maxXattr    = 64 << 10 // bytes of an extended attribute's value, XATTR_SIZE_MAX of Linux
	secretSize  = 32       // bytes of the chunker's secret
	maxNanos    = 999_999_999
	ageNonce    = 16          // bytes between an age header and the first piece
	agePiece    = 64<<10 + 16 // bytes of a whole encrypted piece
	agePieceTag = 16          // of them, the authentication tag's
)

// checks judge a single row by itself. Each gets a row of its table with the
// kinds of values that the table has, and says what is wrong with it.
var checks = [TableCount]func(row []Value) error{
	TableSnapshots:  checkSnapshot,
	TableVolumes:    checkID,
	TablePaths:      checkPath,
	TableFiles:      func(row []Value) error { return FileOf(row, new(metastore.File)) },
	TableXattrs:     checkXattr,
	TableContents:   checkID,
	TableFileChunks: checkFileChunk,
	TableChunks:     checkChunk,
	TableBlobs:      checkBlob,
	TableBlobChunks: checkBlobChunk,
}

// Check judges a row of a table by itself.
func Check(t Table, row []Value) error { return checks[t](row) }

// RowName is how errors call a row: by its table and key.
func RowName(t Table, row []Value) string {
	return fmt.Sprintf("%s with %s %d", t, t.Key(), row[0].Int)
}

func between(what string, n, low, high int64) error {
	if n < low || n > high {
		return fmt.Errorf("%s is %d, not between %d and %d", what, n, low, high)
	}
	return nil
}

// within checks integers of a row: columns named, each from 0 to high.
func within(t Table, row []Value, high int64, columns ...int) error {
	for _, c := range columns {
		if err := between(t.Columns()[c].Name, row[c].Int, 0, high); err != nil {
			return err
		}
	}
	return nil
}

func size(what string, b []byte, want int) error {
	if len(b) != want {
		return fmt.Errorf("%s has %d bytes instead of %d", what, len(b), want)
	}
	return nil
}

func checkID(row []Value) error { return between("its key", row[0].Int, 1, math.MaxInt64) }

func checkSnapshot(row []Value) error {
	_, err := SnapshotOf(row)
	return err
}

// SnapshotOf reads the row of snapshots.
func SnapshotOf(row []Value) (s metastore.Snapshot, err error) {
	if err := checkID(row); err != nil {
		return s, err
	}
	if err := within(TableSnapshots, row, maxNanos, 6, 8); err != nil {
		return s, err
	}
	if err := within(TableSnapshots, row, maxChunk, 15, 16, 17); err != nil {
		return s, err
	}
	if err := size("chunk_secret", row[18].Bytes, secretSize); err != nil {
		return s, err
	}
	if err := within(TableSnapshots, row, math.MaxInt64, 19, 20, 21); err != nil {
		return s, err
	}
	s = metastore.Snapshot{
		Seq: row[0].Int, ID: string(row[1].Bytes), Writer: string(row[2].Bytes), Set: string(row[3].Bytes),
		Hostname: string(row[4].Bytes),
		Started:  metastore.Time{Sec: row[5].Int, Nsec: int32(row[6].Int)}, Finished: metastore.Time{Sec: row[7].Int, Nsec: int32(row[8].Int)},
		Version: string(row[9].Bytes), Revision: string(row[10].Bytes),
		Chunking: metastore.Chunking{
			Algorithm: string(row[14].Bytes),
			Min:       int(row[15].Int), Avg: int(row[16].Int), Max: int(row[17].Int),
			Secret: bytes.Clone(row[18].Bytes),
		},
		NewFiles: row[19].Int, NewBytes: row[20].Int, StoredBytes: row[21].Int,
	}
	for i, l := range []*[]string{&s.Roots, &s.Excludes, &s.Tags} {
		if *l, err = splitList(row[11+i].Bytes); err != nil {
			return s, fmt.Errorf("%s: %w", TableSnapshots.Columns()[11+i].Name, err)
		}
	}
	return s, nil
}

// splitList is the inverse of list.
func splitList(b []byte) ([]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	s, ok := strings.CutSuffix(string(b), "\x00")
	if !ok {
		return nil, fmt.Errorf("%q does not end in a NUL", excerpt(b))
	}
	return strings.Split(s, "\x00"), nil
}

func checkPath(row []Value) error {
	id, parent, name := row[0].Int, row[1].Int, row[2].Bytes
	if id == 1 && parent == 0 && len(name) == 0 {
		return nil // the root
	}
	switch {
	case id < 2 || parent < 1:
		return fmt.Errorf("only the root has key 1, parent 0 and no name, this has key %d, parent %d and name %q", id, parent, name)
	case id == parent:
		return fmt.Errorf("it lies in itself")
	}
	return checkName(name)
}

// checkName refuses what cannot be the name of a directory entry, or would
// lead out of the directory.
func checkName(name []byte) error {
	switch {
	case len(name) == 0 || len(name) > MaxName:
		return fmt.Errorf("a name has 1 to %d bytes, not %d", MaxName, len(name))
	case bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%q has a slash or a NUL", name)
	case string(name) == "." || string(name) == "..":
		return fmt.Errorf("%q is not a name", name)
	}
	return nil
}

func checkXattr(row []Value) error {
	switch name := row[1].Bytes; {
	case len(name) == 0 || len(name) > MaxName || bytes.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%q is not the name of an extended attribute", excerpt(name))
	case len(row[2].Bytes) > maxXattr:
		return fmt.Errorf("extended attribute %q has %d bytes, more than %d", name, len(row[2].Bytes), maxXattr)
	}
	return checkID(row)
}

func checkFileChunk(row []Value) error {
	offset, length, hole := row[1].Int, row[2].Int, row[3].Kind == Null
	longest := int64(maxChunk)
	if hole {
		longest = math.MaxInt64
	}
	if err := between("length", length, 1, longest); err != nil {
		return err
	}
	if err := between("offset", offset, 0, math.MaxInt64-length); err != nil {
		return err
	}
	if !hole && row[3].Int < 1 {
		return fmt.Errorf("chunk is %d, not a key", row[3].Int)
	}
	return checkID(row)
}

func checkChunk(row []Value) error {
	if err := size("hash", row[1].Bytes, hashSize); err != nil {
		return err
	}
	if err := between("size", row[2].Int, 1, maxChunk); err != nil {
		return err
	}
	return checkID(row)
}

func checkBlob(row []Value) error {
	if err := size("hash", row[1].Bytes, hashSize); err != nil {
		return err
	}
	if err := between("seq", row[2].Int, 1, math.MaxInt64); err != nil {
		return err
	}
	if err := between("header", row[4].Int, 1, maxHeader); err != nil {
		return err
	}
	if err := between("size", row[3].Int, row[4].Int+ageNonce+agePieceTag, maxBlob); err != nil {
		return err
	}
	if err := size("recipients", row[5].Bytes, hashSize); err != nil {
		return err
	}
	if err := between("upload_ms", row[7].Int, 0, math.MaxInt64); err != nil {
		return err
	}
	return checkID(row)
}

// PayloadSize is how many bytes a blob decrypts to that has size bytes, of which
// header are its age header's: an age payload is a nonce and pieces of 64 KiB,
// the last of which may be shorter, with a tag each.
func PayloadSize(size, header int64) int64 {
	sealed := size - header - ageNonce
	return sealed - agePieceTag*((sealed+agePiece-1)/agePiece)
}

func checkBlobChunk(row []Value) error {
	if err := between("blob", row[1].Int, 1, math.MaxInt64); err != nil {
		return err
	}
	if err := between("frame_offset", row[2].Int, 0, maxBlob); err != nil {
		return err
	}
	if err := between("frame_length", row[3].Int, 1, maxBlob-row[2].Int); err != nil {
		return err
	}
	if err := between("length", row[5].Int, 1, maxChunk); err != nil {
		return err
	}
	// A frame is at most 16 MiB when decompressed, and its chunks lie in it.
	if err := between("offset", row[4].Int, 0, maxChunk-row[5].Int); err != nil {
		return err
	}
	return checkID(row)
}
