package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

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

// decoders are kept for the next object: one costs more than most manifests
// take to be read.
var decoders = sync.Pool{New: func() any {
	r, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("internal error: " + err.Error()) // the options are constant
	}
	return &decoder{zstd: r}
}}

type decoder struct {
	zstd  *zstd.Decoder
	plain bytes.Buffer
}

// keepPlain bounds the buffer that a decoder keeps.
const keepPlain = 1 << 20

// decompress calls use with what object holds, up to limit bytes, which use
// must not keep. It allocates as bytes arrive, not as a header claims. Every
// error of its own wraps ErrCorrupt.
func decompress(object []byte, limit int64, use func(plain []byte) error) error {
	d := decoders.Get().(*decoder)
	defer func() {
		if d.plain.Cap() > keepPlain {
			d.plain = bytes.Buffer{}
		}
		_ = d.zstd.Reset(nil) // lets go of the object
		decoders.Put(d)
	}()
	d.plain.Reset()
	err := d.zstd.Reset(bytes.NewReader(object))
	var n int64
	if err == nil {
		n, err = io.Copy(&d.plain, io.LimitReader(d.zstd, limit+1))
	}
	if err == nil && n > limit {
		err = fmt.Errorf("it decompresses to more than %d bytes", limit)
	} else if err == nil && len(object) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("%w: zstd: %w", ErrCorrupt, err)
	}
	return use(d.plain.Bytes())
}
