package blob

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

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
