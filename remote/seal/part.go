package seal

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// window is the distance, in bytes, over which the stream's compressor finds
// repetitions. It is well below what Open and the zstd program accept.
const window = 8 << 20

// pending bounds, in bytes, what closing the compressor can still add to its
// output: one block of at most 128 KiB stored as it is, an empty last block,
// the frame header and the checksum. It compresses synchronously and keeps
// back no more than one block.
const pending = 128<<10 + 64

// Part seals one stream in memory. It is for one goroutine.
type Part struct {
	object buffer
	header int64
	age    io.WriteCloser
	packed counter // what reached age
	zstd   *zstd.Encoder
	plain  int64
	err    error // sticky
}

// buffer is the object in the making; it cannot fail.
type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// NewPart starts an object sealed to every one of the recipients.
func NewPart(recipients []age.Recipient, level Level) (*Part, error) {
	p := new(Part)
	var err error
	if p.age, p.header, err = Encrypt(&p.object, recipients); err != nil {
		return nil, err
	}
	p.packed.w = p.age
	// Unlike frames of blobs, whose chunks have a SHA-256 each, the stream
	// keeps zstd's checksum: it is the only one that covers the way from the
	// plaintext into the compressor and out of it again.
	p.zstd, err = zstd.NewWriter(&p.packed,
		zstd.WithEncoderLevel(level.Encoder()), zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return p, nil
}

// Write adds plaintext.
func (p *Part) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.zstd.Write(b)
	p.plain += int64(n)
	if err != nil {
		p.err = fmt.Errorf("compress: %w", err)
	}
	return n, p.err
}

// PlainSize returns how many bytes were written so far.
func (p *Part) PlainSize() int64 { return p.plain }

// Size returns how large the object can at most become, in bytes, if it is
// closed now. It is never more than 128 KiB and a few bytes too high.
func (p *Part) Size() int64 { return ObjectSize(p.header, p.packed.n+pending) }

// Close ends the stream and returns the object, which belongs to the caller.
// A second Close, or a Write after it, is an error.
func (p *Part) Close() (object []byte, err error) {
	if p.err != nil {
		return nil, p.err
	}
	p.err = errors.New("the sealed object is closed already")
	if err := p.zstd.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := p.age.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	object, p.object = p.object, nil
	return object, nil
}
