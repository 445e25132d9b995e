package retention

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// How far a claimed time may be off without being called false: clocks are set
// right now and then, and those of machines are not the same.
const (
	backTolerance   = time.Hour      // before that of an earlier run
	futureTolerance = 24 * time.Hour // after the present
)

// Culprit is a snapshot whose claimed time cannot be true, or another's cannot.
type Culprit struct {
	Snapshot
	Against *Snapshot // the run that it contradicts; nil: it lies in the future
}

// TimesError says that a set's claimed times are not to be trusted.
type TimesError struct {
	Set      string
	Now      time.Time
	Culprits []Culprit // of the set, by seq; at least one
}

// namedCulprits is how many of them an error names.
const namedCulprits = 5

func (e *TimesError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "set %q: rules that go by time are not applied, because claimed times are not to be trusted", e.Set)
	for i, c := range e.Culprits {
		if i == namedCulprits {
			fmt.Fprintf(&b, "; and %d more", len(e.Culprits)-i)
			break
		}
		fmt.Fprintf(&b, "; %s (run %d) claims %s, %s", c.ID, uint64(c.Seq), say(c.Finished), e.contradiction(c))
	}
	b.WriteString("; if a clock was wrong, purge those named here by their ids, or keep them and leave their times out with --set-aside ID; " +
		"--dry-run names all of them; a rule that counts runs still works")
	return b.String()
}

func (e *TimesError) contradiction(c Culprit) string {
	switch {
	case c.Against == nil:
		return fmt.Sprintf("which is in the future (it is %s here)", say(e.Now))
	case c.Against.Seq < c.Seq:
		return fmt.Sprintf("before %s (run %d), which it follows", say(c.Against.Finished), uint64(c.Against.Seq))
	}
	return fmt.Sprintf("after %s (run %d), which follows it", say(c.Against.Finished), uint64(c.Against.Seq))
}

// why is what is wrong with the time of one snapshot, "" if it is no culprit.
func (e *TimesError) why(seq remote.Seq) string {
	for _, c := range e.Culprits {
		if c.Seq == seq {
			return fmt.Sprintf("it claims %s, %s", say(c.Finished), e.contradiction(c))
		}
	}
	return ""
}

func say(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkTimes holds claimed times against the chain. It looks at all sets of
// the writer, since its runs follow each other, but the error is about those
// of one set.
//
// In every chain there is a longest part whose times never go back; what does
// not fit into it is named. So one run with a wrong clock is one culprit,
// whether the clock was behind or ahead.
func checkTimes(chain []Snapshot, set string, now time.Time) *TimesError {
	e := &TimesError{Set: set, Now: now}
	var rest []Snapshot
	for _, s := range bySeq(chain) {
		if s.Finished.After(now.Add(futureTolerance)) {
			e.Culprits = append(e.Culprits, Culprit{Snapshot: s})
		} else {
			rest = append(rest, s)
		}
	}
	e.Culprits = append(e.Culprits, contradictions(rest)...)
	e.Culprits = slices.DeleteFunc(e.Culprits, func(c Culprit) bool { return c.Set != set })
	if len(e.Culprits) == 0 {
		return nil
	}
	slices.SortFunc(e.Culprits, func(a, b Culprit) int { return int(a.Seq) - int(b.Seq) })
	return e
}

// contradictions are those that do not fit into the longest part of runs whose
// times never go back, by more than the tolerance.
func contradictions(runs []Snapshot) []Culprit {
	in := ascending(runs)
	var out []Culprit
	next := make([]int, len(runs)) // of each, the next one within the part
	for i, after := len(runs)-1, -1; i >= 0; i-- {
		next[i] = after
		if in[i] {
			after = i
		}
	}
	before := -1
	for i, s := range runs {
		switch {
		case in[i]:
			before = i
		case before >= 0 && s.Finished.Add(backTolerance).Before(runs[before].Finished):
			out = append(out, Culprit{s, &runs[before]})
		case next[i] >= 0 && runs[next[i]].Finished.Add(backTolerance).Before(s.Finished):
			out = append(out, Culprit{s, &runs[next[i]]})
		}
	}
	return out
}

// ascending marks a longest subsequence of runs whose times do not descend; of
// several, one that begins with earlier runs, so that rather the later of two
// is named.
func ascending(runs []Snapshot) []bool {
	var starts []int                    // of the best subsequences of length 1, 2, …, the first run
	following := make([]int, len(runs)) // in the best one that begins here
	for i, s := range slices.Backward(runs) {
		n := sort.Search(len(starts), func(k int) bool { return runs[starts[k]].Finished.Before(s.Finished) })
		following[i] = -1
		if n > 0 {
			following[i] = starts[n-1]
		}
		if n == len(starts) {
			starts = append(starts, i)
		} else {
			starts[n] = i
		}
	}
	in := make([]bool, len(runs))
	if len(starts) > 0 {
		for i := starts[len(starts)-1]; i >= 0; i = following[i] {
			in[i] = true
		}
	}
	return in
}
