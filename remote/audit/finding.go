package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Kind says what is wrong.
type Kind string

// The kinds of findings.
const (
	NotTrusted  Kind = "not-trusted"    // a signature, a certificate or the chain does not hold
	Gap         Kind = "gap"            // a manifest is gone, and no tombstone says why
	Rollback    Kind = "rollback"       // the store shows less of a writer than it did here
	Uncertified Kind = "uncertified"    // a writer that the root key has not certified, and never had
	Unsupported Kind = "unsupported"    // of a format that this version does not know
	Corrupt     Kind = "corrupt"        // signed or named, and makes no sense
	Missing     Kind = "missing"        // an object that a manifest names is not there
	Unlisted    Kind = "unlisted"       // it is there, and the listing hides it
	WrongSize   Kind = "wrong-size"     // it has another size than the manifest says
	WrongSum    Kind = "wrong-checksum" // the store recorded another checksum at upload
	Rotten      Kind = "rotten"         // read twice, and the bytes are not those of its name
	Unsteady    Kind = "unsteady"       // each reading gave other bytes: the line, a disk or memory fails
	Unreadable  Kind = "unreadable"     // could not be read; nothing is known about it
	Stale       Kind = "stale"          // a set has no snapshot that is new enough
	Clock       Kind = "clock"          // a snapshot claims a time that cannot be
	Stray       Kind = "stray"          // below a writer's name, but no object of vaultik
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind   Kind
	Writer string
	Set    string // of Stale and Clock
	Key    string // of the object; "" if it is about a writer or a set
	Err    error  // what is wrong, without the key; wraps the reason

	// Needed is how many retained snapshots need the object, Snapshots the ids
	// of the oldest three and the newest of them.
	Needed    int
	Snapshots []string
	Pinned    bool   // the writer's index counts on it
	Deleted   bool   // it was deleted, so that the writer's next backup replaces it
	Advice    string // what to do, "" if Err says it

	place     place
	marks     []int32 // the oldest snapshots that need it, as indexes, ascending
	newest    int32   // and the newest
	uncovered bool    // a version that is right is on top again
	last      bool    // the writer's newest snapshot needs it
	base      bool    // the writer's next dumps are going to build on it
}

// Harmless reports whether the finding is only for information.
func (f Finding) Harmless() bool { return f.Kind == Uncertified || f.Kind == Stray }

// Lost reports whether the object is known to be missing or damaged.
func (f Finding) Lost() bool {
	switch f.Kind {
	case Missing, WrongSize, WrongSum, Rotten:
		return true
	}
	return false
}

// untrusted makes a finding of what remote.WriterState.Flaws returned.
func untrusted(writer string, err error) Finding {
	f := Finding{Kind: NotTrusted, Writer: writer, Err: err}
	if p := (*remote.Problem)(nil); errors.As(err, &p) {
		f.Key, f.Err = p.Key, p.Err
	}
	var u *remote.Uncertified
	switch {
	case errors.As(err, new(*remote.Rollback)):
		f.Kind = Rollback
	case errors.As(err, &u) && u.Before != nil:
		f.Kind = Rollback
	case errors.As(err, &u):
		f.Kind, f.Err = Uncertified, u
	case errors.Is(err, remote.ErrMissing):
		f.Kind = Gap
	case errors.Is(err, remote.ErrNotTrusted):
	case errors.Is(err, remote.ErrUnsupported):
		f.Kind = Unsupported
	case errors.Is(err, remote.ErrCorrupt):
		f.Kind = Corrupt
	default:
		f.Kind = Unreadable // the memory of what was seen
	}
	return f
}

// about makes a finding about an object that a manifest names.
func about(kind Kind, writer string, p place, format string, args ...any) Finding {
	return Finding{Kind: kind, Writer: writer, Key: p.key(writer), Err: fmt.Errorf(format, args...), place: p}
}

// oldest is how many of the snapshots that need an object are named, beside
// the newest.
const oldest = 3

// mark notes that the i-th snapshot needs the object.
func (f *Finding) mark(i int32) {
	f.Needed++
	f.newest = max(f.newest, i)
	for at, m := range f.marks {
		if i < m {
			f.marks[at], i = i, m
		}
	}
	if len(f.marks) < oldest {
		f.marks = append(f.marks, i)
	}
}

// replaced reports whether the writer's next backup makes up for the object
// once it is not there: its index counts on it.
func (f Finding) replaced() bool {
	switch f.place.kind {
	case remote.KindBlob:
		return f.last || f.Pinned
	case remote.KindDump:
		return f.base
	}
	return false // a list that cannot be read is written anew in any case
}

// advice says what to do about a damaged object.
func (f Finding) advice() string {
	switch {
	case f.uncovered || f.Kind == Unlisted || f.Kind == Unreadable || f.Kind == Unsteady || f.Key == "" || f.place.kind == "":
		return ""
	case f.place.kind == remote.KindList:
		return fmt.Sprintf("the next backup of writer %q writes a new list; which blobs the snapshots above need is unknown until they are forgotten", f.Writer)
	case f.place.kind == remote.KindDump && !f.base:
		return "no backup stores it again: the snapshots that need it cannot be opened; \"vaultik snapshot purge SNAPSHOT\" forgets them"
	case f.place.kind == remote.KindBlob && !f.replaced():
		return "no backup uploads it again: the newest snapshots do without it, perhaps because one has uploaded what was in it anew, where a mount then finds it; this is told until the snapshots that need it are forgotten"
	}
	what := fmt.Sprintf("the next backup of writer %q reads what was in it from the source again, as far as that still has it, and uploads it", f.Writer)
	if f.place.kind == remote.KindDump {
		what = fmt.Sprintf("the next backup of writer %q stores its metadata whole again; the snapshots above cannot be opened", f.Writer)
	}
	switch {
	case f.Kind == WrongSum:
		return "\"vaultik audit --read\" tells whether its bytes are right"
	case f.Kind == Rotten && !f.Deleted:
		return "run \"vaultik audit --read --delete-rotten\", which deletes it: then " + what
	}
	return what
}

// still returns those of the findings that are about what this look still finds
// to be needed, by key.
func (n *needs) still(found []Finding) []Finding {
	var keep []Finding
	for _, f := range found {
		if _, needed := n.sizes[f.place]; needed || f.place.kind == "" {
			keep = append(keep, f)
		}
	}
	slices.SortFunc(keep, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind)) })
	return keep
}

// attribute says of each finding which of all retained snapshots need the
// object, and whether the writer still counts on it.
func (n *needs) attribute(ctx context.Context, s remote.Store, found []Finding) error {
	damaged := make(map[place]*Finding, len(found))
	for i, f := range found {
		if f.place.kind != "" {
			damaged[f.place] = &found[i]
		}
	}
	if len(damaged) == 0 {
		return nil
	}
	last := len(n.state.Snapshots) - 1
	mark := func(kind remote.Kind, name remote.Name, i int32) {
		f := damaged[place{kind, name}]
		switch {
		case f == nil:
		case i < 0:
			f.Pinned = true
		default:
			f.mark(i)
			f.last = f.last || int(i) == last
		}
	}
	for i, v := range n.state.Snapshots {
		for _, d := range v.Manifest.Dumps {
			mark(remote.KindDump, d.Name(), int32(i))
			// A difference stands under the run itself, its base under an earlier one.
			if f := damaged[place{remote.KindDump, d.Name()}]; f != nil && i == last && d.Seq == v.Manifest.Dumps[0].Seq {
				f.base = true
			}
		}
	}
	if m := n.newest(); m != nil {
		for _, d := range m.PinnedDumps {
			if f := damaged[place{remote.KindDump, d.Name()}]; f != nil {
				f.base, f.Pinned = true, true
			}
		}
	}
	err := n.eachList(ctx, s, n.users(n.state.Snapshots, true), func(ref remote.ListRef, list []remote.Object, users []user) {
		list = slices.DeleteFunc(list, func(o remote.Object) bool { return damaged[place{remote.KindBlob, o.Name()}] == nil })
		n.markUsers(ref, list, users, mark)
	}, func(ref remote.ListRef, users []user, _ error) { n.markUsers(ref, nil, users, mark) })
	for i := range found {
		f := &found[i]
		for _, m := range f.marks {
			f.Snapshots = append(f.Snapshots, n.state.Snapshots[m].Manifest.Snapshot)
		}
		if f.Needed > len(f.marks) {
			f.Snapshots = append(f.Snapshots, n.state.Snapshots[f.newest].Manifest.Snapshot)
		}
	}
	return err
}

// markUsers marks what a list's users need of what is damaged.
func (n *needs) markUsers(ref remote.ListRef, damaged []remote.Object, users []user, mark func(remote.Kind, remote.Name, int32)) {
	for _, u := range users {
		mark(remote.KindList, ref.Name(), u.snapshot)
		for _, o := range u.set.Add {
			mark(remote.KindBlob, o.Name(), u.snapshot)
		}
		for _, o := range damaged {
			if _, dropped := slices.BinarySearchFunc(u.set.Drop, o.Name(), remote.CompareNames); !dropped {
				mark(remote.KindBlob, o.Name(), u.snapshot)
			}
		}
	}
}
