package check

import (
	"bytes"
	"context"
	"errors"
	"io"
	iofs "io/fs"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote"
)

// fetch gets a whole blob and compares it with its name. What is not the same
// the second time either is returned all the same, with an error: of most
// damage only a part of the blob suffers.
func (c *checker) fetch(ctx context.Context, b named) ([]byte, error) {
	object, err := c.get(ctx, b)
	c.count(object)
	if err != nil && !fatal(ctx, err) && !errors.Is(err, fs.ErrLost) {
		if again, failed := c.get(ctx, b); again != nil {
			c.reuse(object)
			object, err = again, failed
			c.count(object)
		}
	}
	return object, err
}

// get gets a whole object and compares it with its name. Of one that has another
// size it returns as much as it should have, or as there is; nil is nothing.
func (c *checker) get(ctx context.Context, b named) ([]byte, error) {
	all, err := c.read(ctx, b, -1)
	switch {
	case err != nil:
		return all, err
	case remote.Sum(all) != b.hash:
		return all, corrupt("its bytes are not those of its name")
	}
	return all, nil
}

// read gets the first n bytes of an object, or all of it if n is negative.
func (c *checker) read(ctx context.Context, b named, n int64) ([]byte, error) {
	body, err := c.Store.Get(ctx, b.key, 0, n)
	if errors.Is(err, iofs.ErrNotExist) {
		err = fs.ErrLost
	}
	if err != nil {
		return nil, err
	}
	defer body.Close()
	size := n
	if n < 0 {
		size = b.size
	}
	object := c.memory(size)
	read, err := io.ReadFull(body, object)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return object[:read], corrupt("it has %d bytes instead of %d", read, size)
	case err != nil:
		c.reuse(object)
		return nil, err
	}
	if more, _ := body.Read(make([]byte, 1)); more > 0 && n < 0 {
		return object, corrupt("it has more than %d bytes", size)
	}
	return object, nil
}

func (c *checker) count(object []byte) {
	if object != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.result.Blobs.add(int64(len(object)))
	}
}

// memory is used again: pages that the system has taken back are dear.
func (c *checker) memory(n int64) []byte {
	if b, ok := c.free.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

func (c *checker) reuse(b []byte) {
	if b != nil {
		c.free.Put(&b)
	}
}

// object is a store that has one.
type object struct {
	remote.Store // nil: nothing else is asked of it

	bytes []byte
}

func (o object) Get(_ context.Context, _ string, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off > int64(len(o.bytes)) || n > int64(len(o.bytes))-off {
		return nil, corrupt("it ends at byte %d", len(o.bytes))
	}
	return io.NopCloser(bytes.NewReader(o.bytes[off : off+n])), nil
}
