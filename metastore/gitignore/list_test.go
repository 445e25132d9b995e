package gitignore

import "testing"

func list(t *testing.T, roots []string, lines ...string) *List {
	t.Helper()
	var l List
	for _, line := range lines {
		if err := l.Add(line, roots); err != nil {
			t.Fatal(err)
		}
	}
	return &l
}

func TestTheLastPatternDecides(t *testing.T) {
	l := list(t, []string{"/home"}, "*.o", "!keep.o", "/home/ann/x")
	for _, c := range []struct {
		rel, name        string
		matched, negated bool
	}{
		{"ann", "a.o", true, false},
		{"ann", "keep.o", true, true},
		{"ann", "a.c", false, false},
		{"ann", "x", true, false},
		{"bob", "x", false, false},
	} {
		if matched, negated := l.In("/home", c.rel).Match(c.name, false); matched != c.matched || negated != c.negated {
			t.Errorf("%s/%s: %t, %t, want %t, %t", c.rel, c.name, matched, negated, c.matched, c.negated)
		}
	}
}

// Above the roots a name alone means nothing: the patterns are for what is
// below them.
func TestAboveTheRootsOnlyPathsFromTheTopMatch(t *testing.T) {
	l := list(t, []string{"/home/ann", "/srv"}, "home", "ann", "/home/ann", "/srv")
	for where, names := range map[string]map[string]bool{
		"/":     {"home": false, "srv": true, "etc": false},
		"/home": {"ann": true, "home": false},
	} {
		for name, want := range names {
			if got, _ := l.Above(where).Match(name, true); got != want {
				t.Errorf("%s in %s: %t, want %t", name, where, got, want)
			}
		}
	}
	if !(&List{}).Empty() || l.Empty() {
		t.Error("empty is not told from full")
	}
}
