package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// compress returns plain as one zstd frame with a checksum.
func compress(plain []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		panic("internal error: " + err.Error()) // the options are constant
	}
	return w.EncodeAll(plain, nil)
}

// decompress returns what object holds, up to limit bytes. It allocates as
// bytes arrive, not as a header claims. Every error wraps ErrCorrupt.
func decompress(object []byte, limit int64) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(object),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("%w: zstd: %w", ErrCorrupt, err)
	}
	defer r.Close()
	var plain bytes.Buffer
	n, err := io.Copy(&plain, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("it decompresses to more than %d bytes", limit)
	} else if err == nil && len(object) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: zstd: %w", ErrCorrupt, err)
	}
	return plain.Bytes(), nil
}
