package audit

import (
	"errors"
	"fmt"

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
