// Package blob packs the content of many files into one object, and reads any
// part of it back without fetching the rest.
//
// A blob is an age file. Its plaintext is a run of zstd frames:
//
//	header    skippable frame: "vaultik blob 1"
//	frame     one or more whole chunks, compressed on their own
//	frame
//	…
//	TOC       skippable frame: what the frames hold, found from the end
//
// A zstd decoder passes over skippable frames, so `age -d | zstd -d` prints
// the chunks back to back, with no help from this program. Every frame stands
// alone, and so does every 64 KiB piece of an age file: a reader who knows
// where a frame lies fetches only the pieces around it.
//
// The package promises that a Reader returns only bytes that the holder of
// the blob's file key encrypted at that place. It does not promise that they
// are a certain chunk's: CheckChunk does, on every read. Memory is bounded by
// what a caller asks for: at most MaxChunk for each span, plus the pieces
// around the spans. docs/FORMAT.md has the layout byte by byte.
package blob

import (
	"fmt"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Limits that no writer passes and no reader trusts anybody to pass, in bytes.
const (
	MaxChunk = remote.MaxChunk // plaintext of a chunk, and of a whole frame
	MaxSize  = remote.MaxBlob  // the object
	// MaxTarget is the largest Writer.Size at which there is room for one
	// more frame in any practical case, so the largest sensible blob size.
	MaxTarget = MaxSize - 64<<20
)

// Chunk says where a chunk lies. Offsets and lengths are in bytes.
type Chunk struct {
	ID          remote.Hash // SHA-256 of its plaintext
	FrameOffset int64       // of its frame in the decrypted blob
	FrameLength int64       // of its frame, compressed
	Offset      int64       // of the chunk in the decompressed frame
	Length      int64       // of the chunk, 1 … MaxChunk
}

// Span returns the place of the chunk's frame.
func (c Chunk) Span() Span { return Span{c.FrameOffset, c.FrameLength} }

// Cut returns the chunk out of its decompressed frame, after CheckChunk. The
// result shares the frame's memory.
func (c Chunk) Cut(frame []byte) ([]byte, error) {
	if c.Offset < 0 || c.Length < 1 || c.Offset > int64(len(frame)) || c.Length > int64(len(frame))-c.Offset {
		return nil, fmt.Errorf("chunk %s: bytes %d+%d of a frame of %d bytes: %w", c.ID, c.Offset, c.Length, len(frame), remote.ErrCorrupt)
	}
	plain := frame[c.Offset : c.Offset+c.Length : c.Offset+c.Length]
	return plain, CheckChunk(c.ID, plain)
}

// CheckChunk compares plain with the chunk's name; other bytes are
// remote.ErrCorrupt. It runs at some 1.5 GB/s.
func CheckChunk(id remote.Hash, plain []byte) error {
	if got := remote.Sum(plain); got != id {
		return fmt.Errorf("chunk %s: its %d bytes have the SHA-256 %s: %w", id, len(plain), got, remote.ErrCorrupt)
	}
	return nil
}
