package backup

import (
	"sync"
	"sync/atomic"
)

// ProblemKind sorts problems by what they mean for the snapshot.
type ProblemKind string

// Kinds of problems. Only Unreadable and Lost make a snapshot incomplete.
const (
	Unreadable ProblemKind = "unreadable" // it exists but could not be read; the snapshot says so
	Lost       ProblemKind = "lost"       // its stored content has gone and could not be read again
	Changed    ProblemKind = "changed"    // it kept changing while it was read; stored as last seen
	Vanished   ProblemKind = "vanished"   // it went away between listing and reading
	Notice     ProblemKind = "notice"     // worth knowing, nothing is missing
)

// Problem is something that went wrong with one path or with the run.
type Problem struct {
	Kind ProblemKind
	Path string // as the snapshot names it, any bytes; "" if it concerns the whole run
	Err  error
}

// Event is news from a run in progress: a Problem, or else how far it has come.
type Event struct {
	Problem  *Problem
	Progress Progress
}

// Progress counts what a run has done so far.
type Progress struct {
	Seen     int64  // entries looked at
	Changed  int64  // entries that had to be recorded
	Read     int64  // content bytes read
	NewBytes int64  // of these, not stored before
	Stored   int64  // ciphertext bytes uploaded
	Path     string // what scan is looking at
}

// tally is Progress while several goroutines count.
type tally struct {
	seen, changed, removed, read, fresh, moved, stored, metadata, blobs atomic.Int64

	mu       sync.Mutex
	problems []Problem
	missed   int64
}

// problemsKept bounds the problems that a Result lists; all of them are
// reported as they occur.
const problemsKept = 10_000

func (w *writer) progress(path string) {
	t := &w.tally
	w.Report(Event{Progress: Progress{
		Seen: t.seen.Load(), Changed: t.changed.Load(), Read: t.read.Load(),
		NewBytes: t.fresh.Load(), Stored: t.stored.Load(), Path: path,
	}})
}

// problem notes and reports a problem; it never stops the run.
func (w *writer) problem(kind ProblemKind, path string, err error) {
	p := Problem{kind, path, err}
	w.tally.mu.Lock()
	if kind == Unreadable || kind == Lost {
		w.tally.missed++
	}
	if len(w.tally.problems) < problemsKept {
		w.tally.problems = append(w.tally.problems, p)
	}
	w.tally.mu.Unlock()
	w.Report(Event{Problem: &p})
}
