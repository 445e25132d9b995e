// Package gitignore compiles and matches the patterns of gitignore(5), on
// bytes: names are what the kernel says they are, in no encoding.
//
//	*.o          every name that ends in .o, in any folder
//	build/       every directory called build
//	/build       build at the top only
//	doc/*.txt    a slash before the end ties a pattern to the top as well
//	a/**/b       a/b, a/x/b, a/x/y/b …;  **/b is b anywhere;  a/** all in a
//	[a-c]? \*    sets, one byte, and the next byte taken literally
//	!keep.o      takes back what an earlier pattern said
//
// A pattern that could never match anything is an error here, where git
// silently ignores it: in a backup it is a mistake that fills a store. Go's
// libraries for this language either translate it into regular expressions
// over UTF-8 text or depart from git in ** and sets; the tests compare this
// package with git itself.
//
// What a pattern means for the entries below a matching directory, and which
// of several patterns wins, is the caller's business.
package gitignore

import (
	"errors"
	"fmt"
	"strings"
)

// Pattern is one compiled pattern. It is immutable and safe for concurrent
// use.
type Pattern struct {
	text    string
	negated bool
	dirOnly bool
	path    bool // matched against the whole path, not against the last name
	rooted  bool
	parts   []part
}

// part matches one component of a path, or any number of them.
type part struct {
	glob
	any bool // "**"
}

// Parse compiles one line of a gitignore file without its line end. Spaces at
// the end do not count unless a backslash precedes them. Comments and empty
// lines are no patterns: they are errors.
func Parse(line string) (Pattern, error) {
	text := trimSpaces(line)
	p := Pattern{text: text}
	fail := func(reason string) (Pattern, error) {
		return Pattern{}, fmt.Errorf("pattern %q %s", line, reason)
	}
	switch {
	case strings.HasPrefix(text, "#"):
		return fail(`is a comment: write \# for a name that begins with #`)
	case strings.IndexByte(text, 0) >= 0:
		return fail("holds a NUL byte, which no name has")
	}
	text, p.negated = strings.CutPrefix(text, "!")
	text, p.dirOnly = strings.CutSuffix(text, "/")
	p.path = strings.Contains(text, "/")
	text, p.rooted = strings.CutPrefix(text, "/")
	if text == "" {
		return fail("names nothing")
	}
	for more := true; more; {
		var c component
		var err error
		if c, text, more, err = parseComponent(text); err != nil {
			return fail(err.Error())
		}
		switch {
		case len(c.elements) == 0:
			return fail(`has an empty name between two slashes`)
		case c.is(".") || c.is(".."):
			return fail(`has "." or ".." in it, which no listing shows`)
		}
		p.parts = append(p.parts, part{glob: c.glob(), any: p.path && c.stars == c.bytes && c.stars > 1})
	}
	return p, nil
}

// trimSpaces cuts the spaces at the end that no backslash protects.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' {
			continue
		}
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		end = i + 1
	}
	return s[:end]
}

// String returns the pattern as it was written, without spaces at the end.
func (p Pattern) String() string { return p.text }

// Negated reports whether the pattern begins with "!".
func (p Pattern) Negated() bool { return p.negated }

// Rooted reports whether the pattern begins with "/".
func (p Pattern) Rooted() bool { return p.rooted }

// OnName reports whether the last name of a path alone decides about a match.
func (p Pattern) OnName() bool { return !p.path }

// Match reports whether the pattern matches path: names joined by "/",
// counted from the folder that patterns are relative to, without a slash at
// either end. For a pattern that is OnName the last name will do. The sense
// of a negated pattern is not turned round.
func (p Pattern) Match(path string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if !p.path {
		return p.parts[0].match(path[strings.LastIndexByte(path, '/')+1:])
	}
	return matchParts(p.parts, path)
}

// LeadsInto reports whether the pattern, read from the top, names or may name
// something at or below folder (names joined by "/"; "" is the top). Its first
// name must be spelled out for that, and not a wildcard.
func (p Pattern) LeadsInto(folder string) bool {
	if folder == "" {
		return true
	}
	if !p.path || p.parts[0].any || !p.parts[0].exact() {
		return false
	}
	i := 0
	for name := range strings.SplitSeq(folder, "/") {
		switch {
		case i == len(p.parts):
			return false
		case p.parts[i].any:
			return true
		case !p.parts[i].match(name):
			return false
		}
		i++
	}
	return true
}

// matchParts matches the components of path. When something does not fit, the
// last "**" swallows one component more; an earlier one need never be tried
// again, because whatever it could gain the last one can gain, too.
func matchParts(parts []part, path string) bool {
	i, at := 0, 0
	star, starAt := -1, 0
	for at <= len(path) {
		name := path[at:]
		if n := strings.IndexByte(name, '/'); n >= 0 {
			name = name[:n]
		}
		switch {
		case i < len(parts) && parts[i].any:
			if i == len(parts)-1 {
				return true // with at least this one component
			}
			star, starAt = i, at
			i++
		case i < len(parts) && parts[i].match(name):
			i++
			at += len(name) + 1
		case star >= 0:
			if n := strings.IndexByte(path[starAt:], '/'); n >= 0 {
				starAt += n + 1
			} else {
				return false
			}
			i, at = star+1, starAt
		default:
			return false
		}
	}
	return i == len(parts)
}

var (
	errBackslash = errors.New("ends in a backslash with nothing behind it")
	errSet       = errors.New("has a [ without its ]: write \\[ for the character")
	errClass     = errors.New("has a [:class:] that does not exist")
)
