package blob

import (
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// frameWindow is the distance, in bytes, over which repetitions inside a frame
// are found. Frames of more than 4 MiB are rare, and every compressor at work
// holds two windows of memory.
const frameWindow = 4 << 20

// Bound returns the largest size of the frame that Compress makes of n bytes:
// a header, and 3 bytes for every block, which has 64 KiB at least. A buffer
// of that capacity never grows.
func Bound(n int) int { return n + 32 + 3*(n>>16) }

// Compress appends one zstd frame with plain, which has 1 … MaxChunk bytes, to
// dst[:0] and returns it. It uses one core, may run on many at once and keeps
// neither slice.
//
// The frame states its content size and has no checksum: the SHA-256 of every
// chunk says more. What does not get smaller is stored as it is, block by
// block, so a frame is never more than Bound(len(plain)) bytes.
func Compress(dst, plain []byte, level seal.Level) []byte {
	l := level.Encoder()
	packed := encoders[l].get().EncodeAll(plain, dst[:0])
	// The two fast levels skip what does not repeat, at gigabytes a second.
	// Most of that, compressed or encrypted already, has nothing else to
	// give, but base64, which has a quarter, looks the same to them.
	if l <= zstd.SpeedDefault && len(packed) > len(plain)/16*15 && skewed(plain) {
		packed = thorough[l].get().EncodeAll(plain, packed[:0])
	}
	return packed
}

// skewed reports whether the bytes of plain are unevenly distributed, so that
// entropy coding alone gains some 6 %, judging by a sample.
func skewed(plain []byte) bool {
	const sample, threshold = 8192, 7.5 // bytes; bits a byte, evenly random samples have 7.98
	step := len(plain)/sample | 1       // odd, lest it see one half of all 16-bit numbers
	var count [256]int
	n := 0
	for i := 0; i < len(plain); i += step {
		count[plain[i]]++
		n++
	}
	bits := 0.0
	for _, c := range count {
		if c > 0 {
			p := float64(c) / float64(n)
			bits -= p * math.Log2(p)
		}
	}
	return bits < threshold
}

// encoders has the compressor of every level, and thorough a variant of the
// two fast ones that never skips entropy coding.
var (
	encoders = [...]*encoder{
		zstd.SpeedFastest:           {level: zstd.SpeedFastest},
		zstd.SpeedDefault:           {level: zstd.SpeedDefault},
		zstd.SpeedBetterCompression: {level: zstd.SpeedBetterCompression, entropy: true},
		zstd.SpeedBestCompression:   {level: zstd.SpeedBestCompression, entropy: true},
	}
	thorough = [...]*encoder{
		zstd.SpeedFastest: {level: zstd.SpeedFastest, entropy: true},
		zstd.SpeedDefault: {level: zstd.SpeedDefault, entropy: true},
	}
)

// encoder is made at its first use, keeps its tables and histories for the
// life of the process, because touching fresh pages is dear, and serves
// GOMAXPROCS callers at once.
type encoder struct {
	level   zstd.EncoderLevel
	entropy bool
	once    sync.Once
	zstd    *zstd.Encoder
}

func (e *encoder) get() *zstd.Encoder {
	e.once.Do(func() {
		var err error
		e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(e.level), zstd.WithWindowSize(frameWindow),
			zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithAllLitEntropyCompression(e.entropy),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
		if err != nil {
			panic(fmt.Sprintf("blob: internal error: compressor options: %v", err))
		}
	})
	return e.zstd
}

// slack is room behind a decompressed frame, in bytes: with it the decoder may
// use its fast copies up to the very end.
const slack = 16

// Decompress is the inverse of Compress. It refuses with remote.ErrCorrupt
// whatever states no content size or one above MaxChunk, decompresses to
// another size, needs a window above seal.MaxWindow or a dictionary, or has
// anything behind it.
func Decompress(frame []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, fmt.Errorf("zstd frame header: %w: %w", err, remote.ErrCorrupt)
	}
	switch {
	case h.Skippable:
		return nil, fmt.Errorf("a skippable zstd frame where content should be: %w", remote.ErrCorrupt)
	case h.FrameContentSize < 1 || h.FrameContentSize > MaxChunk: // 0 also if it is not stated
		return nil, fmt.Errorf("zstd frame states %d bytes of content, not 1 to %d: %w", h.FrameContentSize, MaxChunk, remote.ErrCorrupt)
	}
	size := int(h.FrameContentSize)
	plain, err := decoder().DecodeAll(frame, make([]byte, 0, size+slack))
	if err != nil {
		return nil, fmt.Errorf("zstd frame: %w: %w", err, remote.ErrCorrupt)
	}
	if len(plain) != size {
		return nil, fmt.Errorf("zstd frame holds %d bytes instead of %d: %w", len(plain), size, remote.ErrCorrupt)
	}
	return plain, nil
}

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxWindow(seal.MaxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(fmt.Sprintf("blob: internal error: decompressor options: %v", err))
	}
	return d
})

// maxFrame is the largest compressed frame.
var maxFrame = int64(Bound(MaxChunk))
