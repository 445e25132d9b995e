// Package exclude decides what of a set's paths a snapshot is to be without: by
// patterns, by size, by the file system that it is on, and by what marks a
// folder. It looks at nothing itself: the walk shows it what it finds.
package exclude

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
	"git.eeqj.de/sneak/vaultik/metastore/gitignore"
)

// Rules say what of a set's paths is left out. The paths themselves are never
// left out by a pattern.
//
// A pattern decides about an entry and everything below it. Of several that
// match, the last one decides, so "!" takes back, but not below a folder that
// is left out. gitignore.List says which paths a pattern is held against.
type Rules struct {
	Patterns      []string // gitignore syntax, see package gitignore
	OneFileSystem bool     // keep mount points below a path as empty places
	CacheDirs     bool     // leave out what is in folders marked with a CACHEDIR.TAG
	IfPresent     []string // leave out what is in folders that hold an entry of such a name
	LargerThan    int64    // leave out regular files of more bytes; 0: none
	Always        []string // absolute folders that are kept as empty places: store, state, cache
}

// Matcher is Rules compiled. It is immutable and safe for concurrent use.
type Matcher struct {
	rules    Rules
	patterns gitignore.List
}

// Compile checks and compiles rules for a set with these absolute paths.
func Compile(r Rules, roots []string) (*Matcher, error) {
	m := &Matcher{rules: r}
	var problems []error
	for _, line := range r.Patterns {
		if err := m.patterns.Add(line, roots); err != nil {
			problems = append(problems, fmt.Errorf("exclude %w", err))
		}
	}
	for _, folder := range r.Always {
		if !path.IsAbs(folder) || path.Clean(folder) != folder {
			problems = append(problems, fmt.Errorf("folder to leave out %q is not a clean absolute path", folder))
		}
	}
	for _, name := range r.IfPresent {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			problems = append(problems, fmt.Errorf("marker to look for %q is not a file name", name))
		}
	}
	if r.LargerThan < 0 {
		problems = append(problems, fmt.Errorf("size limit %d is below zero", r.LargerThan))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return m, nil
}

// Path reports whether a pattern leaves out rel, a path below one of the set's
// paths, or a folder above it. rel is "" for the set's path itself.
func (m *Matcher) Path(root, rel string, dir bool) bool {
	folder, name := path.Split(rel)
	if name == "" {
		return false
	}
	folder = strings.TrimSuffix(folder, "/")
	return m.Path(root, folder, true) || m.Directory(root, folder).matches(name, dir)
}

// Directory prepares to decide about the entries of one folder: rel is its
// path below root, "" if it is root itself. Patterns from "/" see root spelled
// as it is given here, so give it as the set does.
func (m *Matcher) Directory(root, rel string) *Directory {
	return &Directory{m, m.patterns.In(root, rel)}
}

// Directory decides about the entries of one folder. It is used by one
// goroutine at a time.
type Directory struct {
	matcher *Matcher
	folder  *gitignore.Folder
}

// Excludes reports whether the snapshot is to be without this entry.
func (d *Directory) Excludes(e source.Entry) bool {
	limit := d.matcher.rules.LargerThan
	if limit > 0 && e.Type == metastore.Regular && e.Size > limit {
		return true
	}
	return d.matches(e.Name, e.Type == metastore.Directory)
}

func (d *Directory) matches(name string, dir bool) bool {
	matched, negated := d.folder.Match(name, dir)
	return matched && !negated
}

// Boundary decides whether to look into an entry at all. It is asked about
// every folder, and about other entries whose device is not their folder's
// (files can be mounted, too). where is the entry's absolute path, v the
// volume it is on and dev the device of the set's path it is below. Anything
// but StateComplete means: record the entry with that state, as an empty
// place.
//
// Another device is not enough to call a file another file system, because
// overlayfs shows devices of its own; a folder on another device is one, and
// that goes for btrfs subvolumes as it does for find -xdev.
func (m *Matcher) Boundary(where string, e source.Entry, v source.Volume, dev uint64) metastore.State {
	for _, folder := range m.rules.Always {
		if below, ok := strings.CutPrefix(where, folder); ok && (below == "" || below[0] == '/' || folder == "/") {
			return metastore.StateExcluded
		}
	}
	if slices.Contains(pseudo, v.FSType) {
		return metastore.StateExcluded
	}
	if m.rules.OneFileSystem && e.Dev != dev && (e.Type == metastore.Directory || v.Root == where) {
		return metastore.StateOtherFS
	}
	return metastore.StateComplete
}

// pseudo lists the file systems that hold nobody's data but the kernel's, and
// those that only show what is stored elsewhere. Sorted.
var pseudo = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
	"fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fuse.vaultik", "fusectl", "hugetlbfs", "mqueue", "nfsd", "nsfs", "proc",
	"pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs",
}

// cacheTagName and cacheTag are from the Cache Directory Tagging
// Specification, bford.info/cachedir.
const (
	cacheTagName = "CACHEDIR.TAG"
	cacheTag     = "Signature: 8a477f597d28d172789f06886806bc55"
)

// TagSize is how many bytes of a file tell whether it is a cache directory tag.
const TagSize = len(cacheTag)

// Marked decides by a folder's entries, sorted by name, whether its content is
// left out: StateCacheDir or StateExcluded if so, else StateComplete. read
// returns at least the first TagSize bytes of a regular file, or all it has. A tag
// that cannot be read leaves nothing out.
func (m *Matcher) Marked(entries []source.Entry, read func(source.Entry) ([]byte, error)) metastore.State {
	find := func(name string) (source.Entry, bool) {
		i, ok := slices.BinarySearchFunc(entries, name, func(e source.Entry, name string) int { return strings.Compare(e.Name, name) })
		if !ok {
			return source.Entry{}, false
		}
		return entries[i], true
	}
	for _, name := range m.rules.IfPresent {
		if _, ok := find(name); ok {
			return metastore.StateExcluded
		}
	}
	if !m.rules.CacheDirs {
		return metastore.StateComplete
	}
	tag, ok := find(cacheTagName)
	if !ok || tag.Type != metastore.Regular {
		return metastore.StateComplete
	}
	if content, err := read(tag); err != nil || !bytes.HasPrefix(content, []byte(cacheTag)) {
		return metastore.StateComplete
	}
	return metastore.StateCacheDir
}

// Marker reports whether an entry of that name is what marks a folder. It is
// kept, so that a restored folder is still marked.
func (m *Matcher) Marker(name string) bool {
	return m.rules.CacheDirs && name == cacheTagName || slices.Contains(m.rules.IfPresent, name)
}

// ReadFile reads a file of patterns, one a line, as git reads a
// gitignore file: empty lines and lines that begin with # are skipped, a
// carriage return before the line's end and a byte order mark are dropped. The
// patterns are checked; errors name the line.
func ReadFile(r io.Reader) ([]string, error) {
	const longest = 64 << 10
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	var patterns []string
	n := 1
	for ; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if strings.HasPrefix(line, "#") || strings.Trim(line, " ") == "" {
			continue
		}
		if _, err := gitignore.Parse(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		patterns = append(patterns, line)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d is longer than %d bytes", n, longest)
	} else if err != nil {
		return nil, fmt.Errorf("after line %d: %w", n-1, err)
	}
	return patterns, nil
}
