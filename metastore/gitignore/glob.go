package gitignore

import "strings"

// glob matches one name.
type glob struct {
	kind     kind
	text     string    // of every kind but wild
	elements []element // of wild
}

// kind sorts out the globs that need no search: nearly all that people write.
type kind uint8

const (
	wild   kind = iota
	exact       // name
	suffix      // *name
	prefix      // name*
)

// element matches one byte, or any number of them.
type element struct {
	star bool
	set  *set // nil: the byte itself
	byte byte
}

// set is a set of bytes.
type set [4]uint64

func (s *set) add(b byte)      { s[b/64] |= 1 << (b % 64) }
func (s *set) remove(b byte)   { s[b/64] &^= 1 << (b % 64) }
func (s *set) has(b byte) bool { return s[b/64]&(1<<(b%64)) != 0 }
func (s *set) addRange(from, to byte) {
	for b := int(from); b <= int(to); b++ {
		s.add(byte(b))
	}
}

func (e element) match(b byte) bool {
	if e.set != nil {
		return e.set.has(b)
	}
	return e.byte == b
}

func (g glob) exact() bool { return g.kind == exact }

// match works like matchParts, on bytes.
func (g glob) match(name string) bool {
	switch g.kind {
	case exact:
		return name == g.text
	case suffix:
		return strings.HasSuffix(name, g.text)
	case prefix:
		return strings.HasPrefix(name, g.text)
	}
	i, at := 0, 0
	star, starAt := -1, 0
	for at < len(name) {
		switch {
		case i < len(g.elements) && g.elements[i].star:
			if i == len(g.elements)-1 {
				return true
			}
			star, starAt = i, at
			i++
		case i < len(g.elements) && g.elements[i].match(name[at]):
			i++
			at++
		case star >= 0:
			starAt++
			i, at = star+1, starAt
		default:
			return false
		}
	}
	for i < len(g.elements) && g.elements[i].star {
		i++
	}
	return i == len(g.elements)
}

// component is one parsed component of a pattern.
type component struct {
	elements     []element
	bytes, stars int // of the source text
}

func (c component) is(name string) bool {
	g := c.glob()
	return g.kind == exact && g.text == name
}

func (c component) glob() glob {
	var text []byte
	stars := 0
	for _, e := range c.elements {
		switch {
		case e.set != nil:
			return glob{elements: c.elements}
		case e.star:
			stars++
		default:
			text = append(text, e.byte)
		}
	}
	switch {
	case stars == 0:
		return glob{kind: exact, text: string(text)}
	case stars == 1 && c.elements[0].star:
		return glob{kind: suffix, text: string(text)}
	case stars == 1 && c.elements[len(c.elements)-1].star:
		return glob{kind: prefix, text: string(text)}
	}
	return glob{elements: c.elements}
}

// parseComponent parses s up to the next slash. more says that one was there.
func parseComponent(s string) (c component, rest string, more bool, err error) {
	i := 0
	for i < len(s) {
		e := element{byte: s[i]}
		n := 1
		switch s[i] {
		case '/':
			c.bytes = i
			return c, s[i+1:], true, nil
		case '\\':
			if i+1 == len(s) {
				return c, "", false, errBackslash
			}
			if s[i+1] == '/' { // means what a plain slash means
				c.bytes = i
				return c, s[i+2:], true, nil
			}
			e.byte, n = s[i+1], 2
		case '?':
			e.set = new(set)
			e.set.addRange(0, 255)
		case '*':
			c.stars++
			e.star = true
		case '[':
			if e.set, n, err = parseSet(s[i:]); err != nil {
				return c, "", false, err
			}
		}
		if last := len(c.elements) - 1; !e.star || last < 0 || !c.elements[last].star {
			c.elements = append(c.elements, e)
		}
		i += n
	}
	c.bytes = i
	return c, "", false, nil
}

// parseSet parses "[…]" at the start of s and returns its length. A "]" that
// comes first is a member, "!" or "^" before it turns the set round, a "-"
// between two members is a range. No set holds the slash.
func parseSet(s string) (*set, int, error) {
	var members set
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	var from byte // the start of a range if "-" follows; 0: none
	for first := true; ; first = false {
		switch {
		case i >= len(s):
			return nil, 0, errSet
		case s[i] == ']' && !first:
			if negated {
				for j := range members {
					members[j] = ^members[j]
				}
			}
			members.remove('/')
			return &members, i + 1, nil
		case s[i] == '-' && from != 0 && i+1 < len(s) && s[i+1] != ']':
			i++
			to, n, err := member(s[i:])
			if err != nil {
				return nil, 0, err
			}
			members.addRange(from, to)
			from = 0
			i += n
		case strings.HasPrefix(s[i:], "[:"):
			name, ok := className(s[i+2:])
			if !ok {
				from = '['
				members.add(from)
				i++
				continue
			}
			if !members.addClass(name) {
				return nil, 0, errClass
			}
			from = 0
			i += len("[:") + len(name) + len(":]")
		default:
			b, n, err := member(s[i:])
			if err != nil {
				return nil, 0, err
			}
			members.add(b)
			from = b
			i += n
		}
	}
}

// member reads one byte of a set, which a backslash may precede.
func member(s string) (b byte, n int, err error) {
	if s[0] != '\\' {
		return s[0], 1, nil
	}
	if len(s) == 1 {
		return 0, 0, errSet
	}
	return s[1], 2, nil
}

// className reads up to ":]", which must end at the first "]".
func className(s string) (string, bool) {
	end := strings.IndexByte(s, ']')
	if end < 1 || s[end-1] != ':' {
		return "", false
	}
	return s[:end-1], true
}

// addClass adds a class of POSIX in the C locale. A byte above 127 is in none.
func (s *set) addClass(name string) bool {
	in, ok := classes[name]
	for b := range 128 {
		if ok && in(byte(b)) {
			s.add(byte(b))
		}
	}
	return ok
}

var classes = map[string]func(byte) bool{
	"alnum":  func(b byte) bool { return alpha(b) || digit(b) },
	"alpha":  alpha,
	"blank":  func(b byte) bool { return b == ' ' || b == '\t' },
	"cntrl":  func(b byte) bool { return b < ' ' || b == 127 },
	"digit":  digit,
	"graph":  graph,
	"lower":  func(b byte) bool { return 'a' <= b && b <= 'z' },
	"print":  func(b byte) bool { return b == ' ' || graph(b) },
	"punct":  func(b byte) bool { return graph(b) && !alpha(b) && !digit(b) },
	"space":  func(b byte) bool { return b == ' ' || '\t' <= b && b <= '\r' },
	"upper":  func(b byte) bool { return 'A' <= b && b <= 'Z' },
	"xdigit": func(b byte) bool { return digit(b) || 'a' <= b|' ' && b|' ' <= 'f' },
}

func alpha(b byte) bool { return 'a' <= b|' ' && b|' ' <= 'z' }
func digit(b byte) bool { return '0' <= b && b <= '9' }
func graph(b byte) bool { return '!' <= b && b <= '~' }
