package remote

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Store is an object store: a flat map from keys to immutable objects.
//
// Keys are relative to the store's own prefix or folder, use "/" between
// their parts and come from the functions in layout.go. Implementations MUST
// be safe for concurrent use, MUST honour the context in every call that can
// block, and MUST pass storetest.Run.
type Store interface {
	// Put stores body under key in one atomic step: a reader sees the whole
	// object or none, also after a crash. It never overwrites: if the key is
	// taken, whatever its content, Put changes nothing and returns an error
	// that wraps ErrExists. When Put returns nil the object is durable and
	// the store has confirmed its SHA-256. Put does not keep or change body.
	Put(ctx context.Context, key string, body []byte) error

	// Get reads n bytes from offset off, or everything from off on if n < 0.
	// A missing object is fs.ErrNotExist. A range that reaches past the end
	// of the object is an error wrapping ErrCorrupt, here or at the first
	// Read, never a silently short body. The caller closes the reader.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Stat describes one object; a missing one is fs.ErrNotExist.
	Stat(ctx context.Context, key string) (Info, error)

	// List yields every object whose key begins with prefix, in ascending
	// byte order of the keys. An error ends the sequence. Objects put or
	// deleted meanwhile may or may not appear.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes an object. Removing an absent one is no error.
	Delete(ctx context.Context, key string) error
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock; only for people
	SHA256   Hash      // as the store recorded it at upload; zero if it reports none (List reports none)
}

// Errors that callers tell apart with errors.Is. A missing object is
// io/fs.ErrNotExist.
var (
	// ErrExists: the key is taken; nothing was written.
	ErrExists = errors.New("object exists already")
	// ErrNoStore: the bucket or folder does not exist or cannot be reached.
	ErrNoStore = errors.New("no store there")
	// ErrDenied: the credentials do not allow this call.
	ErrDenied = errors.New("not allowed by the store")
	// ErrUnreadable: the object is there and does not come out: its disk fails,
	// it is in an archive, or it is sealed with somebody's key for the store.
	ErrUnreadable = errors.New("the store does not give this object out")
	// ErrCorrupt: the bytes are not what their name or signature promises.
	ErrCorrupt = errors.New("corrupt object")
	// ErrNotTrusted: a signature, a certificate or the chain does not hold.
	ErrNotTrusted = errors.New("not trusted")
	// ErrUnsupported: a format, or a feature a manifest requires, that this
	// version does not know.
	ErrUnsupported = errors.New("unsupported format")
)
