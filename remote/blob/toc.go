package blob

import (
	"encoding/binary"
	"fmt"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Both the header and the table of contents are skippable zstd frames of type
// 6, which makes the first byte a 'V': magic number, length of what follows.
// All numbers are little-endian, as zstd's are.
const (
	skippable   = "V\x2a\x4d\x18"
	headerText  = "vaultik blob 1\n"
	headerFrame = skippable + "\x0f\x00\x00\x00" + headerText
	tocMagic    = "vaultik" // and one byte: the version
	version     = 1
	trailerSize = 4 + len(tocMagic) + 1
	frameHead   = 8 // magic and length
	entrySize   = len(remote.Hash{}) + 4
)

// table is a table of contents in the making. Only lengths are written: frames
// follow each other from the header on, chunks tile their frame, so nothing
// can overlap, leave a gap or be out of order.
type table struct {
	frames int
	bytes  []byte // entries of all frames
}

// add appends a frame.
func (t *table) add(packed int, chunks []FrameChunk) {
	t.frames++
	t.bytes = binary.LittleEndian.AppendUint32(t.bytes, uint32(packed))
	t.bytes = binary.LittleEndian.AppendUint32(t.bytes, uint32(len(chunks)))
	for _, c := range chunks {
		t.bytes = append(t.bytes, c.ID[:]...)
		t.bytes = binary.LittleEndian.AppendUint32(t.bytes, uint32(c.Length))
	}
}

// size returns the length of the whole skippable frame, in bytes.
func (t *table) size() int64 { return int64(frameHead + 4 + len(t.bytes) + trailerSize) }

// encode returns the whole skippable frame.
func (t *table) encode() []byte {
	b := make([]byte, 0, t.size())
	b = append(b, skippable...)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.size()-frameHead))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.frames))
	b = append(b, t.bytes...)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.size()))
	b = append(b, tocMagic...)
	return append(b, version)
}

// checkHeader looks at the first len(headerFrame) bytes of the plaintext.
func checkHeader(plain []byte) error {
	const known = len("vaultik blob ")
	switch {
	case string(plain) == headerFrame:
		return nil
	case string(plain[frameHead:frameHead+known]) == headerText[:known]:
		return fmt.Errorf("it begins with %q; this program reads %q: %w", plain[frameHead:], headerText, remote.ErrUnsupported)
	default:
		return fmt.Errorf("it begins with %q: not a blob: %w", plain, remote.ErrCorrupt)
	}
}

// tocLength reads the last trailerSize bytes of a blob's plaintext of plain
// bytes and returns the length of its table of contents.
func tocLength(trailer []byte, plain int64) (int64, error) {
	length := int64(binary.LittleEndian.Uint32(trailer))
	if magic := trailer[4 : 4+len(tocMagic)]; string(magic) != tocMagic {
		return 0, fmt.Errorf("it ends in %q instead of %q: %w", magic, tocMagic, remote.ErrCorrupt)
	}
	if v := trailer[trailerSize-1]; v != version {
		return 0, fmt.Errorf("blob format %d; this program reads format %d: %w", v, version, remote.ErrUnsupported)
	}
	if smallest := (&table{}).size(); length < smallest || length > plain-int64(len(headerFrame)) {
		return 0, fmt.Errorf("a table of contents of %d bytes in %d bytes: %w", length, plain, remote.ErrCorrupt)
	}
	return length, nil
}

// decodeTOC reads a whole table of contents, whose last trailerSize bytes have
// passed tocLength, of a blob whose frames end at end, where toc begins.
func decodeTOC(toc []byte, end int64) ([]Chunk, error) {
	fail := func(format string, args ...any) ([]Chunk, error) {
		return nil, fmt.Errorf("table of contents: "+format+": %w", append(args, remote.ErrCorrupt)...)
	}
	if string(toc[:len(skippable)]) != skippable {
		return fail("it begins with % x", toc[:len(skippable)])
	}
	if n := binary.LittleEndian.Uint32(toc[len(skippable):]); int64(n) != int64(len(toc)-frameHead) {
		return fail("it gives its length as %d and as %d", n, len(toc)-frameHead)
	}
	frames := binary.LittleEndian.Uint32(toc[frameHead:])
	rest := toc[frameHead+4 : len(toc)-trailerSize]
	chunks := make([]Chunk, 0, len(rest)/entrySize)
	at := int64(len(headerFrame))
	for f := range frames {
		if len(rest) < 8 {
			return fail("it ends before frame %d of %d", f+1, frames)
		}
		packed, count := int64(binary.LittleEndian.Uint32(rest)), int64(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if packed < 1 || packed > maxFrame {
			return fail("frame %d has %d bytes at %d of %d", f+1, packed, at, end)
		}
		if count < 1 || count > int64(len(rest)/entrySize) {
			return fail("frame %d of %d has %d chunks in %d bytes", f+1, frames, count, len(rest))
		}
		var offset int64
		for range count {
			c := Chunk{FrameOffset: at, FrameLength: packed, Offset: offset}
			c.Length = int64(binary.LittleEndian.Uint32(rest[copy(c.ID[:], rest):]))
			if c.Length < 1 || c.Length > MaxChunk-offset {
				return fail("chunk %s has %d bytes at %d of its frame", c.ID, c.Length, offset)
			}
			chunks, offset, rest = append(chunks, c), offset+c.Length, rest[entrySize:]
		}
		at += packed
	}
	if at != end || len(rest) != 0 {
		return fail("%d bytes of frames and %d of entries are left over", end-at, len(rest))
	}
	return chunks, nil
}
