package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// folders are the places where vaultik keeps things on this machine.
type folders struct {
	config string // the config file
	state  string // keys, indexes, the lock, the freshness memory: not to be lost
	cache  string // may be deleted at any time
}

// folders is findFolders where all of them are needed.
func (a *app) folders(option string) (folders, error) {
	f, err := a.findFolders(option)
	for _, place := range []struct{ path, variable string }{
		{f.config, "VAULTIK_CONFIG"}, {f.state, "VAULTIK_STATE_DIR"}, {f.cache, "VAULTIK_CACHE_DIR"},
	} {
		if err == nil && place.path == "" {
			err = fmt.Errorf("HOME is not set; set it, or %s", place.variable)
		}
	}
	return f, err
}

// findFolders finds them: root's are the system's, a user's follow the XDG
// rules; VAULTIK_CONFIG, VAULTIK_STATE_DIR and VAULTIK_CACHE_DIR overrule both.
// option is --config. Those for which there is no place are "".
func (a *app) findFolders(option string) (folders, error) {
	f := folders{
		config: "/etc/vaultik/vaultik.toml",
		state:  "/var/lib/vaultik",
		cache:  "/var/cache/vaultik",
	}
	if !a.root {
		home := a.env("HOME")
		user := func(variable, below string) string {
			if dir := a.env(variable); filepath.IsAbs(dir) { // others are to be ignored
				return filepath.Join(dir, "vaultik")
			}
			if !filepath.IsAbs(home) {
				return ""
			}
			return filepath.Join(home, below, "vaultik")
		}
		f.state, f.cache = user("XDG_STATE_HOME", ".local/state"), user("XDG_CACHE_HOME", ".cache")
		f.config = ""
		if dir := user("XDG_CONFIG_HOME", ".config"); dir != "" {
			f.config = filepath.Join(dir, "vaultik.toml")
		}
	}
	for variable, place := range map[string]*string{
		"VAULTIK_CONFIG": &f.config, "VAULTIK_STATE_DIR": &f.state, "VAULTIK_CACHE_DIR": &f.cache,
	} {
		v := a.env(variable)
		if v == "" || variable == "VAULTIK_CONFIG" && option != "" {
			continue
		}
		if !filepath.IsAbs(v) {
			return folders{}, fmt.Errorf("%s=%q is not an absolute path", variable, v)
		}
		*place = filepath.Clean(v)
	}
	if option != "" {
		path, err := filepath.Abs(option)
		if err != nil {
			return folders{}, err
		}
		f.config = path
	}
	return f, nil
}

// The files of a writer, below the state folder's folder of its name.
const (
	signingKeyFile = "signing.key"    // a minisign secret key without password
	secretFile     = "chunker.secret" // 64 hexadecimal digits and a newline
	indexFile      = "index.db"
	seenFile       = "seen.json" // in the state folder itself
	lockFile       = "lock"      // there too
)

// private makes a folder, and those above it, that only its owner may enter.
func private(folder string) error {
	if folder == "" {
		return errors.New("there is no place for it, because HOME is not set")
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return nil
}

// create writes a new file that only its owner may read, and syncs it and its
// folder. A file that is there is not touched: fs.ErrExist.
func create(path string, content []byte) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".vaultik-") // 0600
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return &fs.PathError{Op: "create", Path: path, Err: failed.Err} // not the temporary name
	}
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(temp))) }()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike rename, link refuses a name that is taken.
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		if err = createHere(path, content); err != nil { // a file system without links
			return err
		}
	}
	return syncFolder(filepath.Dir(path))
}

func createHere(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// secretSize is the chunker secret's, in bytes.
const secretSize = 32

// readSecret reads the chunker secret.
func readSecret(path string) ([]byte, error) {
	text, err := readSmall(path, 4096)
	if err != nil {
		return nil, err
	}
	secret, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(secret) != secretSize {
		return nil, fmt.Errorf("%q does not hold a chunker secret of %d hexadecimal digits", path, 2*secretSize)
	}
	return secret, nil
}
