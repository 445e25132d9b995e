package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
)

// MaxWindow is the largest zstd window that is read, in bytes: it bounds the
// memory that a hostile stream can claim.
const MaxWindow = remote.MaxWindow

// Open decrypts and decompresses an object whose plaintext has plainSize
// bytes. The reader stops hard at that size: it ends with io.EOF only after
// exactly plainSize bytes and with the whole object authenticated, and fails
// with remote.ErrCorrupt on anything else. What was read before an error is
// authentic but may not be all: act on nothing before io.EOF. No matching
// identity is ErrNoIdentity. The caller checked the object's SHA-256, does not
// change object before Close, and calls Close in any case.
func Open(object []byte, identities []age.Identity, plainSize int64) (io.ReadCloser, error) {
	key, _, err := Unlock(object, identities)
	if err != nil {
		return nil, fmt.Errorf("open sealed object: %w", err)
	}
	packed, err := age.Decrypt(bytes.NewReader(object), key)
	if err != nil {
		return nil, fmt.Errorf("open sealed object: %w: %w", err, remote.ErrCorrupt)
	}
	plain, err := zstd.NewReader(packed,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderMaxMemory(MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("open sealed object: %w: %w", err, remote.ErrCorrupt)
	}
	return &stream{plain: plain, size: plainSize, left: plainSize}, nil
}

// stream is the plaintext of a sealed object.
type stream struct {
	plain *zstd.Decoder
	size  int64 // as promised
	left  int64 // of size, still to come
	err   error // sticky; io.EOF once all was read and authenticated
}

func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.left <= 0 {
		return 0, s.end()
	}
	n, err := s.plain.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && s.left > 0:
		s.err = fmt.Errorf("read sealed object: it ends %d bytes before the promised %d: %w", s.left, s.size, remote.ErrCorrupt)
	case errors.Is(err, io.EOF):
		s.err = io.EOF
	case err != nil:
		s.err = fmt.Errorf("read sealed object: %w: %w", err, remote.ErrCorrupt)
	}
	return n, s.err
}

// end makes sure that nothing follows the promised size. Asking for one byte
// more also makes age authenticate the end of the object.
func (s *stream) end() error {
	var one [1]byte
	switch _, err := io.ReadFull(s.plain, one[:]); {
	case errors.Is(err, io.EOF):
		s.err = io.EOF
	case err == nil:
		s.err = fmt.Errorf("read sealed object: it goes on after the promised %d bytes: %w", s.size, remote.ErrCorrupt)
	default:
		s.err = fmt.Errorf("read sealed object: %w: %w", err, remote.ErrCorrupt)
	}
	return s.err
}

// Close gives the memory back. It is needed also after an error.
func (s *stream) Close() error {
	s.plain.Close()
	if s.err == nil {
		s.err = errors.New("read sealed object: it is closed")
	}
	return nil
}
