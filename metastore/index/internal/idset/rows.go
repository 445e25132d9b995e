// Package idset has sets of the ids of an index's rows: which rows a snapshot
// shows, a dump has, or nothing needs.
package idset

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Error says why bytes are not what Encode made.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Rows are the ids of a dump's rows. Rows of tables that have no id of their own
// go with their owners': xattrs with files, file_chunks with contents,
// blob_chunks with chunks. Live are the blobs among which the one to read each
// chunk from was chosen.
type Rows struct {
	Volumes, Paths, Files, Contents, Chunks, Blobs, Live Set
}

// Sets are all of them, always in the same order.
func (d *Rows) Sets() []*Set {
	return []*Set{&d.Volumes, &d.Paths, &d.Files, &d.Contents, &d.Chunks, &d.Blobs, &d.Live}
}

// Encode is the sets one after the other, as one zstd frame. Ids are dense, so
// a million rows take a few kilobytes.
func (d *Rows) Encode() ([]byte, error) {
	var plain []byte
	for _, b := range d.Sets() {
		plain = b.encode(plain)
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(plain, nil), nil
}

// Decode is the inverse of Encode. It fails with an Error.
func (d *Rows) Decode(packed []byte) error {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer r.Close()
	plain, err := r.DecodeAll(packed, nil)
	if err != nil {
		return &Error{fmt.Errorf("the rows of a base dump: %w", err)}
	}
	for _, b := range d.Sets() {
		if *b, plain, err = decodeSet(plain); err != nil {
			return err
		}
	}
	if len(plain) > 0 {
		return &Error{fmt.Errorf("%d bytes behind the rows of a base dump", len(plain))}
	}
	return nil
}
