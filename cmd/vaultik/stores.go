package main

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

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/dir"
	"git.eeqj.de/sneak/vaultik/remote/s3"
)

// storeURL is a store's address: file:///folder, or what s3.ParseURL reads.
// It has one spelling, String's, by which the freshness memory knows it.
type storeURL struct {
	folder string     // of a local store, absolute
	s3     s3.Options // of the other kind
}

func parseStoreURL(s string) (storeURL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok || scheme == "":
		return storeURL{}, fmt.Errorf("store %q is not an address; write file:///folder or s3://bucket/prefix", s)
	case scheme == "s3":
		o, err := s3.ParseURL(s)
		return storeURL{s3: o}, err
	case scheme != "file":
		return storeURL{}, fmt.Errorf("store %q: there is no kind of store %q; write file:///folder or s3://bucket/prefix", s, scheme)
	case strings.ContainsAny(rest, "?#"):
		return storeURL{}, fmt.Errorf("store %q: a folder's address has no options; write ? as %%3F and # as %%23", s)
	}
	path, err := url.PathUnescape(strings.TrimPrefix(rest, "localhost"))
	switch {
	case err != nil:
		return storeURL{}, fmt.Errorf("store %q: %w; write %% as %%25", s, err)
	case !filepath.IsAbs(path):
		return storeURL{}, fmt.Errorf("store %q: the folder must be absolute, with three slashes: file:///folder", s)
	case strings.ContainsRune(path, 0):
		return storeURL{}, fmt.Errorf("store %q: no folder's name holds a NUL byte", s)
	}
	return storeURL{folder: filepath.Clean(path)}, nil
}

// String is an address that parseStoreURL reads back as the same store.
func (u storeURL) String() string {
	if u.folder == "" {
		return u.s3.URL()
	}
	return "file://" + (&url.URL{Path: u.folder}).EscapedPath()
}

// UnmarshalText makes it a value of the config file.
func (u *storeURL) UnmarshalText(text []byte) (err error) {
	*u, err = parseStoreURL(string(text))
	return err
}

// openedStore is a store and how to let go of it.
type openedStore interface {
	remote.Store
	io.Closer
}

// open opens a store that exists.
func (u storeURL) open(ctx context.Context, r route) (openedStore, error) {
	if u.folder == "" {
		u.s3.Limit, u.s3.Slow = r.limit, r.slow
		return s3.Open(ctx, u.s3)
	}
	s, err := dir.Open(u.folder)
	if err != nil {
		return nil, err
	}
	s.Limit(r.limit)
	return s, nil
}

// create is open, but makes a local store's folder if it is missing. The
// folder above it must exist: if it does not, the address is mistyped or a
// disk is not mounted. made says whether it was made.
func (u storeURL) create(ctx context.Context, r route) (s openedStore, made bool, err error) {
	if u.folder == "" {
		s, err = u.open(ctx, r)
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
