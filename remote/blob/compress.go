package blob

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/DataDog/zstd"

	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Compressor makes the zstd frames of a blob. It is libzstd, called through
// cgo: level 3 packs a little better than klauspost/compress's default, at one
// and a half times its speed (docs/DESIGN.md has the measurements). Readers need none of
// it. A Compressor is for one goroutine, and keeps some megabytes of tables
// for its life, because touching fresh pages is dear.
type Compressor struct {
	level  seal.Level
	ctx    zstd.Ctx
	packed []byte // libzstd wants more room than it fills
	sample []byte
}

// NewCompressor makes a compressor of one level.
func NewCompressor(level seal.Level) *Compressor {
	return &Compressor{level: level, ctx: zstd.NewCtx()}
}

// Bound returns the largest size of the frame that Compress makes of n bytes:
// a header, and 3 bytes for every block of 128 KiB or less. A buffer of that
// capacity never grows.
func Bound(n int) int { return n + 16 + 3*(n>>17+1) }

// Compress appends one zstd frame with plain, which has 1 … MaxChunk bytes, to
// dst[:0] and returns it. It keeps neither slice.
//
// The frame states its content size and has no checksum: the SHA-256 of every
// chunk says more. What does not get smaller is stored as it is, block by
// block, so a frame is never more than Bound(len(plain)) bytes.
func (c *Compressor) Compress(dst, plain []byte) []byte {
	if c.level == seal.Off || c.futile(plain) {
		return store(dst[:0], plain)
	}
	packed, err := c.compress(plain, c.level.Zstd())
	if err != nil {
		panic(fmt.Sprintf("blob: internal error: compress %d bytes: %v", len(plain), err)) // it has room and memory
	}
	if len(packed) >= len(plain) {
		return store(dst[:0], plain)
	}
	return append(dst[:0], packed...)
}

func (c *Compressor) compress(plain []byte, level int) ([]byte, error) {
	if n := zstd.CompressBound(len(plain)); cap(c.packed) < n {
		c.packed = make([]byte, n)
	}
	// The module frees a context that nobody refers to any more even while
	// libzstd works in it.
	defer runtime.KeepAlive(c.ctx)
	return c.ctx.CompressLevel(c.packed, plain, level)
}

// What futile looks at, in bytes.
const (
	futileFrom  = 64 << 10 // less is cheaper to compress than to judge
	samplePiece = 4 << 10
	samples     = 4
)

// futile reports whether plain is compressed or encrypted already, judging by
// a sample from all over it: compressing it for nothing takes as long as all
// that is done with it besides. Base64, which looks random to a search for
// repetitions, still loses a quarter in the sample. Noise that repeats itself
// farther apart than a piece of the sample is not recognised, and stored as it is.
func (c *Compressor) futile(plain []byte) bool {
	if len(plain) < futileFrom {
		return false
	}
	c.sample = c.sample[:0]
	step := (len(plain) - samplePiece) / (samples - 1)
	for i := range samples {
		c.sample = append(c.sample, plain[i*step:i*step+samplePiece]...)
	}
	packed, err := c.compress(c.sample, 1)
	return err == nil && len(packed) > len(c.sample)/64*63
}

// store appends plain as a zstd frame of raw blocks (RFC 8878, sections 3.1.1.1
// and 3.1.1.2): magic number, a header that says "single segment" and the
// content size, then blocks of at most 128 KiB behind 3 bytes each.
func store(dst, plain []byte) []byte {
	const (
		magic         = 0xFD2FB528
		singleSegment = 1 << 5
		block         = 128 << 10
	)
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	switch n := len(plain); {
	case n < 256:
		dst = append(dst, singleSegment, byte(n))
	case n < 65536+256:
		dst = binary.LittleEndian.AppendUint16(append(dst, 1<<6|singleSegment), uint16(n-256))
	default:
		dst = binary.LittleEndian.AppendUint32(append(dst, 2<<6|singleSegment), uint32(n))
	}
	for len(plain) > 0 {
		n := min(len(plain), block)
		header := uint32(n) << 3 // type 0: raw
		if n == len(plain) {
			header |= 1 // the last one
		}
		dst = append(dst, byte(header), byte(header>>8), byte(header>>16))
		dst = append(dst, plain[:n]...)
		plain = plain[n:]
	}
	return dst
}
