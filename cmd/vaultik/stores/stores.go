// Package stores opens a store by its address, whatever kind it is of: a folder,
// or a bucket behind S3.
//
// An address has one spelling, by which everything that is remembered about a
// store is found again. Whether what lies there is vaultik's, and whom to trust
// in it, is for others to find out.
package stores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/time/rate"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/s3"
)

// URL is a store's address: file:///folder, or what s3.ParseURL reads. It has one spelling, String's, by which the freshness memory knows it.
type URL struct {
	folder string     // of a local store, absolute; "" of the other kind
	s3     s3.Options // of that one
}

// ParseURL reads an address. Its errors say how one is written.
func ParseURL(s string) (URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok || scheme == "":
		return URL{}, fmt.Errorf("store %q is not an address; write file:///folder or s3://bucket/prefix", s)
	case scheme == "s3":
		o, err := s3.ParseURL(s)
		return URL{s3: o}, err
	case scheme != "file":
		return URL{}, fmt.Errorf("store %q: there is no kind of store %q; write file:///folder or s3://bucket/prefix", s, scheme)
	case strings.ContainsAny(rest, "?#"):
		return URL{}, fmt.Errorf("store %q: a folder's address has no options; write ? as %%3F and # as %%23", s)
	}
	path, err := url.PathUnescape(strings.TrimPrefix(rest, "localhost"))
	switch {
	case err != nil:
		return URL{}, fmt.Errorf("store %q: %w; write %% as %%25", s, err)
	case !filepath.IsAbs(path):
		return URL{}, fmt.Errorf("store %q: the folder must be absolute, with three slashes: file:///folder", s)
	case strings.ContainsRune(path, 0):
		return URL{}, fmt.Errorf("store %q: no folder's name holds a NUL byte", s)
	}
	return URL{folder: filepath.Clean(path)}, nil
}

// Folder is where a local store lies, absolute; "" of the other kind.
func (u URL) Folder() string { return u.folder }

// String is an address that ParseURL reads back as the same store.
func (u URL) String() string {
	if u.folder == "" {
		return u.s3.URL()
	}
	return "file://" + (&url.URL{Path: u.folder}).EscapedPath()
}

// UnmarshalText makes it a value of the config file.
func (u *URL) UnmarshalText(text []byte) (err error) {
	*u, err = ParseURL(string(text))
	return err
}

// Store is a store and how to let go of it.
type Store interface {
	remote.Store
	io.Closer
}

// Open opens a store that exists; remote.ErrNoStore if there is none.
func (u URL) Open(ctx context.Context, r Route) (Store, error) {
	if u.folder == "" {
		u.s3.Limit, u.s3.Slow = r.Limit, r.Slow
		return s3.Open(ctx, u.s3)
	}
	s, err := dir.Open(u.folder)
	if err != nil {
		return nil, err
	}
	s.Limit(r.Limit)
	return s, nil
}

// Create is Open, but makes a local store's folder if it is missing. The
// folder above it must exist: if it does not, the address is mistyped or a
// disk is not mounted. made says whether it was made.
func (u URL) Create(ctx context.Context, r Route) (s Store, made bool, err error) {
	if u.folder == "" {
		s, err = u.Open(ctx, r)
		return s, false, err
	}
	if _, err := os.Stat(u.folder); errors.Is(err, fs.ErrNotExist) {
		if above, err := os.Stat(filepath.Dir(u.folder)); err != nil || !above.IsDir() {
			return nil, false, fmt.Errorf("%w: there is no folder %q to make the store %q in; make it, or mount its disk",
				remote.ErrNoStore, filepath.Dir(u.folder), filepath.Base(u.folder))
		}
		made = true
	}
	s, err = dir.Create(u.folder)
	return s, made, err
}

// Route is what is special about the way to a store.
type Route struct {
	Limit *rate.Limiter   // of uploads, in bytes; nil: none
	Slow  func(why error) // hears that a call waits for the store
}

// LockUploads makes a store lock what is put into it, if anything is to be
// locked.
func LockUploads(ctx context.Context, store remote.Store, l remote.Lock) error {
	if l.For == 0 {
		return nil
	}
	if err := remote.LockPuts(ctx, store, l); err != nil {
		return fmt.Errorf("object_lock is set, but %w; leave it out, or take a bucket that was made with object lock", err)
	}
	return nil
}

// Fetch reads a small object, of a larger one the first limit bytes.
func Fetch(ctx context.Context, s remote.Store, key string, limit int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, limit))
	return b, errors.Join(err, r.Close())
}
