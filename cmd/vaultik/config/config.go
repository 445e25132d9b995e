// Package config reads the config file, and writes a new one.
//
// Every value is checked while it is read, so that a mistake is told with its
// line and, if it is a slip of the pen, with what was meant; a config without an
// error can be used as it is. Whether it says enough for a command, and whether
// what it names is there, is for that command to find out.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Config is what the file says; what it leaves out is zero, or the default.
type Config struct {
	Store           *stores.URL  `toml:"store"`
	Writer          Name         `toml:"writer"`
	StateDir        Folder       `toml:"state_dir"`
	RootKey         RootKey      `toml:"root_key"`
	Recipients      []Recipient  `toml:"recipients"`
	IdentityCommand string       `toml:"identity_command"`
	Compression     Level        `toml:"compression"`
	LimitUpload     ByteRate     `toml:"limit_upload"`
	ObjectLock      LockTime     `toml:"object_lock"`
	ObjectLockMode  LockMode     `toml:"object_lock_mode"`
	CompactPerRun   PerRun       `toml:"compact_per_run"`
	ResealPerRun    PerRun       `toml:"reseal_per_run"`
	CacheSize       ByteCount    `toml:"cache_size"`
	Retention       *Retention   `toml:"retention"`
	Sets            map[Name]Set `toml:"sets"`

	path  string   // where it was read from
	order []string // the sets' names as the file has them
}

// Set is what one set backs up, and what it leaves out.
type Set struct {
	Paths             []Folder  `toml:"paths"`
	Exclude           []string  `toml:"exclude"`
	ExcludeFile       []Folder  `toml:"exclude_file"`
	ExcludeIfPresent  []string  `toml:"exclude_if_present"`
	ExcludeLargerThan ByteCount `toml:"exclude_larger_than"`
	ExcludeCaches     bool      `toml:"exclude_caches"`
	OneFileSystem     bool      `toml:"one_file_system"`

	Retention *Retention `toml:"retention"`
}

// MaxSize bounds the file, in bytes: nobody writes a megabyte of it by hand.
const MaxSize = 1 << 20

// ErrMissing: there is no config file.
var ErrMissing = errors.New("no config")

// Read reads the file at path; ErrMissing if there is none.
func Read(path string) (*Config, error) {
	text, err := state.ReadFile(path, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q does not exist; \"vaultik init --store URL PATH…\" writes one, --config names another; if it was lost, \"vaultik init --from-kit KIT\" brings it back", ErrMissing, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	return Parse(path, text)
}

// Parse reads TOML; path is for the errors. A key it does not know is an error,
// since an exclude or a path that is misspelt would otherwise be missed in
// silence.
func Parse(path string, text []byte) (*Config, error) {
	shape, err := readShape(path, text)
	if err != nil {
		return nil, err
	}
	c := &Config{path: path, order: shape.sets, Compression: Level(seal.Default), CompactPerRun: compactPerRun}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	if strict := (*toml.StrictMissingError)(nil); errors.As(err, &strict) {
		var all []error
		for i := range strict.Errors {
			row, column := strict.Errors[i].Position()
			all = append(all, fmt.Errorf("%s:%d:%d: %s", path, row, column, unknownKey(strict.Errors[i].Key())))
		}
		return nil, errors.Join(all...)
	}
	if bad := (*toml.DecodeError)(nil); errors.As(err, &bad) {
		row, column := bad.Position()
		where := ""
		if key := strings.Join(bad.Key(), "."); key != "" {
			where = key + ": "
		}
		return nil, fmt.Errorf("%s:%d:%d: %s%s", path, row, column, where, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "toml: "))
	}
	for _, set := range c.order {
		if len(c.Sets[Name{set}].Paths) == 0 {
			return nil, fmt.Errorf("%s: set %q has no paths", path, set)
		}
	}
	if _, err := seal.ParseRecipients(c.PublicKeys()); len(c.Recipients) > 0 && err != nil {
		return nil, fmt.Errorf("%s: recipients: %w", path, err) // as when hybrid and X25519 keys are mixed
	}
	return c, nil
}

// The keys that Parse knows, at the top and in a set.
var (
	topKeys = []string{"store", "writer", "state_dir", "root_key", "recipients", "identity_command", "compression", "limit_upload", "compact_per_run", "reseal_per_run", "object_lock", "object_lock_mode", "cache_size", "retention", "sets"}
	setKeys = []string{"paths", "exclude", "exclude_file", "exclude_if_present", "exclude_larger_than", "exclude_caches", "one_file_system", "retention"}
)

// unknownKey says what is wrong with a key and what was perhaps meant.
func unknownKey(key []string) string {
	known, last := topKeys, ""
	if len(key) > 0 {
		last = key[len(key)-1]
	}
	if len(key) > 2 && key[0] == "sets" {
		known = setKeys
	}
	if len(key) > 1 && key[len(key)-2] == "retention" {
		known = retentionKeys
	}
	text := fmt.Sprintf("there is no setting %q", strings.Join(key, "."))
	if near := ui.Nearest(last, known); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; known here: " + strings.Join(known, ", ")
}

// PublicKeys are the recipients, in the order of the file.
func (c *Config) PublicKeys() []string {
	list := make([]string, len(c.Recipients))
	for i, r := range c.Recipients {
		list[i] = r.string
	}
	return list
}

// Path is where the config was read from.
func (c *Config) Path() string { return c.path }

// SetNames lists the sets in the order of the file.
func (c *Config) SetNames() []string { return c.order }

// Set is the set of that name, if there is one.
func (c *Config) Set(of string) (Set, bool) {
	s, ok := c.Sets[Name{of}]
	return s, ok
}

// compactPerRun is what a run reads again at most to give up mostly dead blobs,
// unless the config says otherwise.
const compactPerRun = 1 << 30

// Rules are the set's own rules of what is left out.
func (s Set) Rules() (exclude.Rules, error) {
	r := exclude.Rules{
		Patterns: slices.Clone(s.Exclude), OneFileSystem: s.OneFileSystem, CacheDirs: s.ExcludeCaches,
		IfPresent: slices.Clone(s.ExcludeIfPresent), LargerThan: int64(s.ExcludeLargerThan),
	}
	for _, file := range s.ExcludeFile {
		patterns, err := ReadPatterns(file.string)
		if err != nil {
			return exclude.Rules{}, err
		}
		r.Patterns = append(r.Patterns, patterns...)
	}
	return r, nil
}

// ReadPatterns reads a file of exclude patterns, in gitignore's syntax.
func ReadPatterns(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("exclude file: %w", err)
	}
	defer f.Close()
	patterns, err := exclude.ReadFile(f)
	if err != nil {
		return nil, fmt.Errorf("exclude file %q: %w", path, err)
	}
	return patterns, nil
}
