package fs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Latest is the name of a writer's newest snapshot.
const Latest = "latest"

// Resolve finds the snapshot that name means:
//
//	latest              own's newest by seq, if it has only one set
//	SET@latest          own's newest of a set
//	WRITER/latest       of another writer; WRITER/SET@latest
//	ID, WRITER/ID       a snapshot id, or the beginning of one if no other begins so
//
// own is the name of the writer on this machine. If it is none, "", the first
// two mean the only writer's there is. The errors list the choices and wrap
// ErrNoSnapshot, ErrAmbiguous, or remote.ErrNotTrusted for a writer that is
// not certified.
func (c *Catalog) Resolve(name, own string) (Snapshot, error) {
	refused := make(map[string]error)
	for _, err := range c.Problems() {
		if u := (*remote.Uncertified)(nil); errors.As(err, &u) {
			refused[u.Writer] = err
		}
	}
	return resolve(c.Snapshots(), refused, name, own)
}

// resolve does it among all; refused says why a writer has none there.
func resolve(all []Snapshot, refused map[string]error, name, own string) (Snapshot, error) {
	writer, rest, named := strings.Cut(name, "/")
	if !named {
		writer, rest = own, name
	}
	set, latest := strings.CutSuffix(rest, "@"+Latest)
	if !latest {
		set, latest = "", rest == Latest
	}
	among := all
	if named || latest && writer != "" {
		among = filter(all, func(s Snapshot) bool { return s.Writer == writer })
		if err := refused[writer]; err != nil && len(among) == 0 {
			return Snapshot{}, fmt.Errorf("%q: %w", name, err)
		}
	}
	switch {
	case len(all) == 0:
		return Snapshot{}, fmt.Errorf("%q: %w: the store holds no snapshot that is trusted", name, ErrNoSnapshot)
	case len(among) == 0 && named:
		return Snapshot{}, fmt.Errorf("%q: %w: writer %q has none; choose one of %s", name, ErrNoSnapshot, writer, oneOf(writersOf(all)))
	case len(among) == 0:
		return Snapshot{}, fmt.Errorf("%q: %w: this machine's writer, %q, has none; choose one of %s", name, ErrNoSnapshot, writer, oneOf(choices(all, true)))
	case latest:
		return newest(name, among, set, named)
	}
	return byID(name, among, rest)
}

// newest finds the newest snapshot of a set ("": the only one there is) and of
// the only writer.
func newest(name string, among []Snapshot, set string, named bool) (Snapshot, error) {
	of := among
	if set != "" {
		of = filter(among, func(s Snapshot) bool { return s.Set == set })
	}
	switch {
	case len(of) == 0:
		return Snapshot{}, fmt.Errorf("%q: %w: there is no set %q; choose one of %s", name, ErrNoSnapshot, set,
			oneOf(choices(among, named || len(writersOf(among)) > 1)))
	case len(writersOf(of)) > 1:
		return Snapshot{}, fmt.Errorf("%q: %w: there are several writers; choose one of %s", name, ErrAmbiguous, oneOf(choices(of, true)))
	case len(choices(of, false)) > 1:
		return Snapshot{}, fmt.Errorf("%q: %w: there are several sets; choose one of %s", name, ErrAmbiguous, oneOf(choices(of, named)))
	}
	return slices.MaxFunc(of, func(a, b Snapshot) int { return cmp.Compare(a.Seq, b.Seq) }), nil
}

func byID(name string, among []Snapshot, id string) (Snapshot, error) {
	exact := filter(among, func(s Snapshot) bool { return s.ID == id })
	found := exact
	if len(exact) == 0 && id != "" {
		found = filter(among, func(s Snapshot) bool { return strings.HasPrefix(s.ID, id) })
	}
	switch len(found) {
	case 0:
		last := among[max(0, len(among)-5):]
		return Snapshot{}, fmt.Errorf("%q: %w; the last ones are %s", name, ErrNoSnapshot, oneOf(ids(last)))
	case 1:
		return found[0], nil
	}
	return Snapshot{}, fmt.Errorf("%q: %w: %s", name, ErrAmbiguous, oneOf(ids(found)))
}

func filter(all []Snapshot, keep func(Snapshot) bool) []Snapshot {
	var out []Snapshot
	for _, s := range all {
		if keep(s) {
			out = append(out, s)
		}
	}
	return out
}

func writersOf(all []Snapshot) []string {
	seen := make(map[string]bool)
	for _, s := range all {
		seen[s.Writer+"/"+Latest] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// choices spells the newest snapshot of every writer and set.
func choices(all []Snapshot, withWriter bool) []string {
	seen := make(map[string]bool)
	for _, s := range all {
		choice := s.Set + "@" + Latest
		if withWriter {
			choice = s.Writer + "/" + choice
		}
		seen[choice] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// ids spells snapshots by id, with the writer where two have the same.
func ids(all []Snapshot) []string {
	count := make(map[string]int)
	for _, s := range all {
		count[s.ID]++
	}
	var out []string
	for _, s := range all {
		if count[s.ID] > 1 {
			out = append(out, s.Writer+"/"+s.ID)
		} else {
			out = append(out, s.ID)
		}
	}
	return out
}

// oneOf joins choices for a person, at most 20 of them.
func oneOf(choices []string) string {
	if n := len(choices); n > 20 {
		choices = append(slices.Clone(choices[:20]), fmt.Sprintf("and %d more", n-20))
	}
	return strings.Join(choices, ", ")
}

// checkID accepts what a snapshot id may look like: a name as writers and sets
// have it with a time, so that it is a harmless file name.
func checkID(id string) error {
	if len(id) == 0 || len(id) > 128 || id[0] == '.' || id == Latest {
		return fmt.Errorf("%q is not a snapshot id: %w", id, remote.ErrCorrupt)
	}
	for _, r := range []byte(id) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		default:
			return fmt.Errorf("%q is not a snapshot id: %w", id, remote.ErrCorrupt)
		}
	}
	return nil
}
