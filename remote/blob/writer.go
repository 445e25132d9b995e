package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// ErrFull says that a frame would make a blob larger than MaxSize. Nothing
// was added: close the blob and add the frame to the next one.
var ErrFull = errors.New("blob is full")

// Writer builds a blob in memory. It is for one goroutine; compression, the
// slow part, happens before, in Compress.
type Writer struct {
	object sink
	age    io.WriteCloser
	header int64
	plain  int64 // bytes given to age
	toc    table
	chunks []Chunk
	err    error // sticky
}

// sink is the object in the making and its hash, taken while the bytes are
// still in the processor's cache. It cannot fail.
type sink struct {
	bytes []byte
	hash  hash.Hash
}

func (s *sink) Write(p []byte) (int, error) {
	s.bytes = append(s.bytes, p...)
	return s.hash.Write(p)
}

// FrameChunk is a chunk about to be added with its frame.
type FrameChunk struct {
	ID     remote.Hash
	Length int64 // bytes of plaintext, at least 1
}

// Blob is a finished blob.
type Blob struct {
	Hash   remote.Hash // of Object: the blob's name
	Object []byte      // all of it, for Store.Put
	Header int64       // length of the age header, without the nonce, in bytes
	Chunks []Chunk     // in the order of Writer.Add
}

// released keeps the memory of a few blobs: a writer fills one while others are
// on their way. A sync.Pool would lose track of them as
// goroutines move between processors, and each is tens of megabytes of pages.
var released = make(chan []byte, 5)

// Release gives the memory of Object back, for the next Writer: pages that are
// touched already. Call it when nothing, a retry of Put for example, will read
// Object again; Object is nil afterwards. Not calling it costs time, nothing
// else.
func (b *Blob) Release() {
	if cap(b.Object) > 0 {
		select {
		case released <- b.Object[:0]:
		default:
		}
	}
	b.Object = nil
}

// room is what a blob may have beyond the size at which it is closed: the last
// frame and the table of contents. Where that is not enough, it grows.
const room = 2 << 20

// NewWriter starts a blob sealed to every one of the recipients, which the
// caller means to close at about size bytes; it may be any number.
func NewWriter(recipients []age.Recipient, size int64) (*Writer, error) {
	w := &Writer{object: sink{hash: sha256.New()}}
	select {
	case w.object.bytes = <-released:
	default:
		// At once: growing would copy it again and again, and leave it with
		// up to twice the room. What is not written to costs nothing.
		w.object.bytes = make([]byte, 0, min(max(size, 0), MaxSize)+room)
	}
	var err error
	if w.age, w.header, err = seal.Encrypt(&w.object, recipients); err != nil {
		return nil, fmt.Errorf("new blob: %w", err)
	}
	return w, w.write([]byte(headerFrame))
}

// write passes plaintext on to age.
func (w *Writer) write(p []byte) error {
	n, err := w.age.Write(p)
	w.plain += int64(n)
	if err != nil {
		w.err = fmt.Errorf("encrypt blob: %w", err)
	}
	return w.err
}

// Add appends a frame that Compress made of plainLen bytes. chunks tile those
// bytes in order. The Writer keeps neither slice. A frame that breaks a rule
// is refused, and the blob stays as it was.
func (w *Writer) Add(frame []byte, plainLen int, chunks []FrameChunk) error {
	if w.err != nil {
		return w.err
	}
	var h zstd.Header
	if err := h.Decode(frame); err != nil || h.Skippable || !h.HasFCS || h.FrameContentSize != uint64(plainLen) {
		return fmt.Errorf("add to blob: %d bytes are no zstd frame of %d bytes", len(frame), plainLen)
	}
	if plainLen < 1 || plainLen > MaxChunk || int64(len(frame)) > maxFrame {
		return fmt.Errorf("add to blob: a frame of %d bytes, %d compressed; the limit is %d", plainLen, len(frame), MaxChunk)
	}
	var tiled int64
	for _, c := range chunks {
		if c.Length < 1 || c.Length > int64(plainLen)-tiled {
			return fmt.Errorf("add to blob: chunk %s has %d bytes at %d of a frame of %d", c.ID, c.Length, tiled, plainLen)
		}
		tiled += c.Length
	}
	if tiled != int64(plainLen) {
		return fmt.Errorf("add to blob: chunks cover %d bytes of a frame of %d", tiled, plainLen)
	}
	grown := w.plain + int64(len(frame)) + w.toc.size() + 8 + int64(len(chunks)*entrySize)
	if seal.ObjectSize(w.header, grown) > MaxSize {
		return fmt.Errorf("add to blob: %d bytes to %d: %w", len(frame), w.Size(), ErrFull)
	}
	at := Chunk{FrameOffset: w.plain, FrameLength: int64(len(frame))}
	if err := w.write(frame); err != nil {
		return err
	}
	w.toc.add(len(frame), chunks)
	for _, c := range chunks {
		at.ID, at.Length = c.ID, c.Length
		w.chunks = append(w.chunks, at)
		at.Offset += c.Length
	}
	return nil
}

// Size returns the size that the object would have if it were closed now, to
// the byte.
func (w *Writer) Size() int64 { return seal.ObjectSize(w.header, w.plain+w.toc.size()) }

// Close ends the blob. A blob without frames is an error, and so is whatever
// is done with the Writer afterwards. The Blob belongs to the caller.
func (w *Writer) Close() (*Blob, error) {
	if w.err != nil {
		return nil, w.err
	}
	if w.toc.frames == 0 {
		return nil, errors.New("close blob: it holds nothing")
	}
	if err := w.write(w.toc.encode()); err != nil {
		return nil, err
	}
	w.err = errors.New("the blob is closed already")
	if err := w.age.Close(); err != nil {
		return nil, fmt.Errorf("encrypt blob: %w", err)
	}
	b := &Blob{Object: w.object.bytes, Header: w.header, Chunks: w.chunks}
	w.object.hash.Sum(b.Hash[:0])
	w.object.bytes = nil
	return b, nil
}
