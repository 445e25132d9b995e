package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// presize is how much memory is made ready for an object at most, before its
// bytes come. Callers that know a size give it as the limit.
const presize = 128 << 10

// get reads a whole object of at most limit bytes. A longer one is ErrCorrupt,
// which the caller must complete with the key, a missing one fs.ErrNotExist.
func get(ctx context.Context, s Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	object := bytes.NewBuffer(make([]byte, 0, min(limit+1+bytes.MinRead, presize)))
	_, err = object.ReadFrom(io.LimitReader(r, limit+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %q: %w", key, err)
	}
	if int64(object.Len()) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrCorrupt, limit)
	}
	return object.Bytes(), nil
}

// isWithheld tells what keeps one object from being read from what keeps all of
// them. Whoever may write to a store can put such an object there, and a disk
// can make one of any.
func isWithheld(err error) bool {
	return errors.Is(err, ErrDenied) || errors.Is(err, ErrUnreadable)
}

// isFinding tells an error that says something about the stored objects from
// one of getting at them, after which nothing can be said.
func isFinding(err error) bool {
	return errors.Is(err, ErrNotTrusted) || errors.Is(err, ErrCorrupt) ||
		errors.Is(err, ErrUnsupported) || errors.Is(err, fs.ErrNotExist)
}
