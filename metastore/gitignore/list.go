package gitignore

import (
	"path"
	"slices"
	"strings"
)

// List is patterns in order, for entries below one or more absolute paths, its
// roots. Of several patterns that match, the last one decides. Which paths a
// pattern is held against depends on its slashes:
//
//	*.o  .cache/         none, or at the end only: every name below every root
//	doc/*.txt  **/x/y    inside: relative to each of the roots
//	/home/ann/.cache     in front, and leading into one of the roots: a path
//	/home/*/.cache       from "/" (for a root of /home or /home/ann)
//	/.cache              in front, but leading into none of them: relative to
//	                     each, as at the top of a gitignore file
//
// "Leading into" is LeadsInto: it asks for a first name that is spelled out,
// and for as many names that fit as the root has. The zero List is empty. It is
// safe for concurrent use once all patterns are in.
type List struct {
	patterns []held
}

type held struct {
	Pattern
	fromTop bool // held against the path from "/"
}

// Add compiles one line as Parse does and appends it.
func (l *List) Add(line string, roots []string) error {
	p, err := Parse(line)
	if err != nil {
		return err
	}
	fromTop := p.Rooted() && slices.ContainsFunc(roots, func(root string) bool {
		return p.LeadsInto(strings.TrimPrefix(path.Clean(root), "/"))
	})
	l.patterns = append(l.patterns, held{p, fromTop})
	return nil
}

// Empty reports whether there is no pattern.
func (l *List) Empty() bool { return len(l.patterns) == 0 }

// In prepares to match the entries of one folder: rel is its path below root,
// "" if it is root itself. Patterns from "/" see root spelled as it is given
// here.
func (l *List) In(root, rel string) *Folder {
	root = strings.Trim(root, "/")
	f := &Folder{list: l, path: []byte(root)}
	if root != "" {
		f.path = append(f.path, '/')
	}
	f.root = len(f.path)
	if rel != "" {
		f.path = append(append(f.path, rel...), '/')
	}
	return f
}

// Above prepares to match the entries of a folder that lies above the roots:
// only patterns that are held against a path from "/" can match there.
func (l *List) Above(where string) *Folder {
	f := l.In(where, "")
	f.above = true
	return f
}

// Folder matches the entries of one folder. It is used by one goroutine at a
// time.
type Folder struct {
	list  *List
	path  []byte // from "/" to the folder, and room for a name
	root  int    // where the part below the root begins
	above bool
}

// Match returns whether any pattern matches the entry called name, and whether
// the one that decides begins with "!".
func (f *Folder) Match(name string, dir bool) (matched, negated bool) {
	full := "" // made when the first pattern asks for it
	for i := len(f.list.patterns) - 1; i >= 0; i-- {
		p := &f.list.patterns[i]
		if f.above && !p.fromTop {
			continue
		}
		subject := name
		if !p.OnName() {
			if full == "" {
				buf := append(f.path, name...)
				full, f.path = string(buf), buf[:len(f.path)] // keeps what room it got
			}
			if subject = full; !p.fromTop {
				subject = full[f.root:]
			}
		}
		if p.Match(subject, dir) {
			return true, p.Negated()
		}
	}
	return false, false
}
