package diskcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
)

const (
	magic      = "vkcache1"
	headerSize = len(magic) + 8 + 8 + sha256.Size

	// maxRecord is the most data that a record has, in bytes. All of it is
	// read and hashed for the smallest part, which takes 0.2 ms.
	maxRecord = 256 << 10
	// maxRecords bounds what is remembered of a file. It suffices for the
	// largest blob; one that is read in smaller pieces is not recorded further.
	maxRecords = 4096
)

// errDamaged: what a file has is not what was written.
var errDamaged = errors.New("damaged cache file")

// span is a range of a blob.
type span struct{ off, n int64 }

func (s span) end() int64 { return s.off + s.n }

// record is where a span's data lie.
type record struct {
	span
	at int64 // of the header in the file
}

// seal writes the header of a record whose data stand behind it in b.
func seal(b []byte, key string, off int64) {
	n := len(b) - headerSize
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[len(magic):], uint64(off))
	binary.LittleEndian.PutUint64(b[len(magic)+8:], uint64(n))
	sum := recordSum(b, key)
	copy(b[headerSize-sha256.Size:], sum[:])
}

// recordSum also covers the key, so that a file that was renamed is no other
// blob's.
func recordSum(b []byte, key string) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(b[:headerSize-sha256.Size])
	h.Write([]byte(key))
	h.Write([]byte{0})
	h.Write(b[headerSize:])
	h.Sum(sum[:0])
	return sum
}

// header reads what a header says, which need not be true.
func header(b []byte) (span, error) {
	off := binary.LittleEndian.Uint64(b[len(magic):])
	n := binary.LittleEndian.Uint64(b[len(magic)+8:])
	if string(b[:len(magic)]) != magic || n < 1 || n > maxRecord || off > math.MaxInt64-maxRecord {
		return span{}, errDamaged
	}
	return span{int64(off), int64(n)}, nil
}

// scan yields the records between from and size of a file, by their headers,
// and returns where the last whole one ends. What follows there is what is
// being appended, or what somebody was killed over.
func scan(f io.ReaderAt, from, size int64, yield func(record)) (end int64, err error) {
	var b [headerSize]byte
	for at := from; ; {
		if size-at < int64(headerSize) {
			return at, nil
		}
		if _, err := f.ReadAt(b[:], at); err != nil {
			if errors.Is(err, io.EOF) { // what was not whole was cut off meanwhile
				err = nil
			}
			return at, err
		}
		s, err := header(b[:])
		if err != nil {
			return at, err
		}
		next := at + int64(headerSize) + s.n
		if next > size {
			return at, nil
		}
		yield(record{s, at})
		at = next
	}
}

// load reads a record into b and returns its data.
func (r record) load(f io.ReaderAt, key string, b []byte) ([]byte, error) {
	b = b[:int64(headerSize)+r.n]
	if _, err := f.ReadAt(b, r.at); err != nil {
		return nil, err
	}
	s, err := header(b)
	if err != nil {
		return nil, err
	}
	sum := recordSum(b, key)
	if s != r.span || !bytes.Equal(sum[:], b[headerSize-sha256.Size:headerSize]) {
		return nil, errDamaged
	}
	return b[headerSize:], nil
}
