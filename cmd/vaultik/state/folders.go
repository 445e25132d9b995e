// Package state knows vaultik's own files on this machine: in which folders they
// are, how they are read and written, and that one run at a time works with them.
//
// What it creates only the owner can read; it is whole and on the disk when the
// call returns, and never takes the place of something else. What it reads is
// bounded. It does not know what is in the config or in a signing key, and
// deletes nothing.
package state

import (
	"fmt"
	"path/filepath"
)

// Folders are the places where vaultik keeps things on this machine.
type Folders struct {
	Config string // the config file
	State  string // keys, indexes, the lock, the freshness memory: not to be lost
	Cache  string // may be deleted at any time
}

// FindAll is Find where all of them are needed: it is an error if one has no
// place.
func FindAll(env func(name string) string, root bool, option string) (Folders, error) {
	f, err := Find(env, root, option)
	for _, place := range []struct{ path, variable string }{
		{f.Config, "VAULTIK_CONFIG"}, {f.State, "VAULTIK_STATE_DIR"}, {f.Cache, "VAULTIK_CACHE_DIR"},
	} {
		if err == nil && place.path == "" {
			err = fmt.Errorf("HOME is not set; set it, or %s", place.variable)
		}
	}
	return f, err
}

// Find finds the folders: root's are the system's, a user's follow the XDG rules;
// VAULTIK_CONFIG, VAULTIK_STATE_DIR and VAULTIK_CACHE_DIR overrule both. env
// looks up a variable, root says that root runs the program, and option is
// --config, "" if it was not given. Folders for which there is no place are "".
func Find(env func(name string) string, root bool, option string) (Folders, error) {
	f := Folders{
		Config: "/etc/vaultik/vaultik.toml",
		State:  "/var/lib/vaultik",
		Cache:  "/var/cache/vaultik",
	}
	if !root {
		home := env("HOME")
		user := func(variable, below string) string {
			if dir := env(variable); filepath.IsAbs(dir) { // others are to be ignored
				return filepath.Join(dir, "vaultik")
			}
			if !filepath.IsAbs(home) {
				return ""
			}
			return filepath.Join(home, below, "vaultik")
		}
		f.State, f.Cache = user("XDG_STATE_HOME", ".local/state"), user("XDG_CACHE_HOME", ".cache")
		f.Config = ""
		if dir := user("XDG_CONFIG_HOME", ".config"); dir != "" {
			f.Config = filepath.Join(dir, "vaultik.toml")
		}
	}
	for variable, place := range map[string]*string{
		"VAULTIK_CONFIG": &f.Config, "VAULTIK_STATE_DIR": &f.State, "VAULTIK_CACHE_DIR": &f.Cache,
	} {
		v := env(variable)
		if v == "" || variable == "VAULTIK_CONFIG" && option != "" {
			continue
		}
		if !filepath.IsAbs(v) {
			return Folders{}, fmt.Errorf("%s=%q is not an absolute path", variable, v)
		}
		*place = filepath.Clean(v)
	}
	if option != "" {
		path, err := filepath.Abs(option)
		if err != nil {
			return Folders{}, err
		}
		f.Config = path
	}
	return f, nil
}

// The files of a writer, below the state folder's folder of its name.
const (
	SigningKeyFile = "signing.key"    // a minisign secret key without password
	SecretFile     = "chunker.secret" // 64 hexadecimal digits and a newline
	IndexFile      = "index.db"
	seenFile       = "seen.json" // in the state folder itself
	LockFile       = "lock"      // there too
)
