package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/pelletier/go-toml/v2"

	"git.eeqj.de/sneak/vaultik/backup/exclude"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// config is the config file. Its values are checked while they are read, so
// that every mistake is told with its line; init writes one with comments.
type config struct {
	Store           *storeURL          `toml:"store"`
	Writer          name               `toml:"writer"`
	StateDir        folder             `toml:"state_dir"`
	RootKey         rootKey            `toml:"root_key"`
	Recipients      []recipient        `toml:"recipients"`
	IdentityCommand string             `toml:"identity_command"`
	Compression     level              `toml:"compression"`
	LimitUpload     byteRate           `toml:"limit_upload"`
	ObjectLock      lockTime           `toml:"object_lock"`
	ObjectLockMode  lockMode           `toml:"object_lock_mode"`
	CompactPerRun   perRun             `toml:"compact_per_run"`
	ResealPerRun    perRun             `toml:"reseal_per_run"`
	CacheSize       byteCount          `toml:"cache_size"`
	Retention       *retentionConfig   `toml:"retention"`
	Sets            map[name]setConfig `toml:"sets"`

	path  string   // where it was read from
	order []string // the sets' names as the file has them
}

// setConfig is one set.
type setConfig struct {
	Paths             []folder  `toml:"paths"`
	Exclude           []string  `toml:"exclude"`
	ExcludeFile       []folder  `toml:"exclude_file"`
	ExcludeIfPresent  []string  `toml:"exclude_if_present"`
	ExcludeLargerThan byteCount `toml:"exclude_larger_than"`
	ExcludeCaches     bool      `toml:"exclude_caches"`
	OneFileSystem     bool      `toml:"one_file_system"`

	Retention *retentionConfig `toml:"retention"`
}

// configLimit bounds the file: nobody writes a megabyte of it by hand.
const configLimit = 1 << 20

// errNoConfig: there is no config file.
var errNoConfig = errors.New("no config")

// readConfig reads the file at path.
func readConfig(path string) (*config, error) {
	text, err := readSmall(path, configLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q does not exist; \"vaultik init --store URL PATH…\" writes one, --config names another; if it was lost, \"vaultik init --from-kit KIT\" brings it back", errNoConfig, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	return parseConfig(path, text)
}

// parseConfig reads TOML. A key it does not know is an error, since an
// exclude or a path that is misspelt would otherwise be missed in silence.
func parseConfig(path string, text []byte) (*config, error) {
	shape, err := readShape(path, text)
	if err != nil {
		return nil, err
	}
	c := &config{path: path, order: shape.sets, Compression: level(seal.Default), CompactPerRun: compactPerRun}
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
		if len(c.Sets[name{set}].Paths) == 0 {
			return nil, fmt.Errorf("%s: set %q has no paths", path, set)
		}
	}
	if _, err := seal.ParseRecipients(c.recipients()); len(c.Recipients) > 0 && err != nil {
		return nil, fmt.Errorf("%s: recipients: %w", path, err) // as when hybrid and X25519 keys are mixed
	}
	return c, nil
}

// The keys that parseConfig knows, at the top and in a set.
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
	if near := nearest(last, known); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; known here: " + strings.Join(known, ", ")
}

// nearest is the word that takes the fewest edits to reach, if that are few. In
// a short word most of it would be another one, so its beginning has to be right.
func nearest(word string, among []string) string {
	best, least := "", len(word)/3+2
	for _, w := range among {
		if len(word) < 6 && word != "" && w != "" && w[0] != word[0] {
			continue
		}
		if d := edits(word, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func (c *config) recipients() []string {
	list := make([]string, len(c.Recipients))
	for i, r := range c.Recipients {
		list[i] = r.string
	}
	return list
}

// setNames lists the sets in the order of the file.
func (c *config) setNames() []string { return c.order }

// Values of the config file. Each checks itself when it is read; go-toml asks
// only types that are no strings to do so.
type (
	name      struct{ string } // of a writer or a set
	folder    struct{ string } // an absolute path, "~/" being HOME
	recipient struct{ string } // an age recipient
	byteCount int64            // "100MiB"
	perRun    int64            // "1GiB", or "0" for nothing
	level     seal.Level       // of compression
	rootKey   struct{ remote.PublicKey }
)

func (n *name) UnmarshalText(text []byte) error {
	*n = name{string(text)}
	return remote.CheckName(string(text))
}

func (f *folder) UnmarshalText(text []byte) error {
	path := string(text)
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		path = filepath.Join(home, rest)
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%q is not an absolute path", text)
	}
	*f = folder{filepath.Clean(path)}
	return nil
}

func (r *recipient) UnmarshalText(text []byte) error {
	*r = recipient{string(text)}
	return checkRecipient(string(text))
}

// checkRecipient says what is wrong with one, and which it is. A post-quantum
// recipient has some 2,000 characters, which nobody wants to read; and what is
// none may be a secret.
func checkRecipient(text string) error {
	_, err := seal.ParseRecipients([]string{text})
	if err == nil {
		return nil
	}
	if !strings.HasPrefix(text, "age1") {
		return errors.Unwrap(err) // without its number, of one
	}
	const shown = 20
	return fmt.Errorf("recipient %q… is not a whole age public key: a character is wrong or missing", text[:min(len(text), shown)])
}

func (b *byteCount) UnmarshalText(text []byte) (err error) {
	*b, err = parseSize(string(text))
	return err
}

// compactPerRun is what a run reads again at most to give up mostly dead blobs,
// unless the config says otherwise.
const compactPerRun = 1 << 30

func (p *perRun) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*p = 0
		return nil
	}
	n, err := parseSize(string(text))
	*p = perRun(n)
	return err
}

// parseSize reads "1000B", "10kB" (1,000s) or "10KiB" (1,024s). A bare number
// is refused: who writes 400 seldom means bytes.
func parseSize(s string) (byteCount, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<62 || !strings.ContainsAny(s, "bBkKmMgGtTpP") {
		return 0, fmt.Errorf("%q is not a size; write it with its unit, for example 500kB, 100MiB or 4GiB", s)
	}
	return byteCount(n), nil
}

func (l *level) UnmarshalText(text []byte) error {
	v, err := seal.ParseLevel(string(text))
	*l = level(v)
	return err
}

func (k *rootKey) UnmarshalText(text []byte) (err error) {
	k.PublicKey, err = remote.ParsePublicKey(string(text))
	return err
}

// rules are the set's own rules of what is left out.
func (s setConfig) rules() (exclude.Rules, error) {
	r := exclude.Rules{
		Patterns: slices.Clone(s.Exclude), OneFileSystem: s.OneFileSystem, CacheDirs: s.ExcludeCaches,
		IfPresent: slices.Clone(s.ExcludeIfPresent), LargerThan: int64(s.ExcludeLargerThan),
	}
	for _, file := range s.ExcludeFile {
		patterns, err := readPatterns(file.string)
		if err != nil {
			return exclude.Rules{}, err
		}
		r.Patterns = append(r.Patterns, patterns...)
	}
	return r, nil
}

// readPatterns reads a file of exclude patterns.
func readPatterns(path string) ([]string, error) {
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

// readSmall reads a file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, path, limit)
}
