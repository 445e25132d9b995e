package retention

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

// Policy says which snapshots of a set stay. A snapshot stays if one of the
// keep rules wants it, or, where there is OlderThan, if it is not older; with
// OlderThan alone, what is older goes. A writer's newest snapshot and each
// set's newest stay in any case.
type Policy struct {
	Last int // the newest N, by run number

	// The newest snapshot of each of the newest N hours, days, ISO weeks,
	// months, years that have one, in UTC by the claimed time.
	Hourly, Daily, Weekly, Monthly, Yearly int

	Tags   []string // those with one of these tags
	Within Span     // those claimed to be within Within of the set's newest, so that a machine that was off loses none of them

	// Aside are ids of snapshots of which a person knows that the clock was
	// wrong: they stay, and rules that go by time do without their times.
	Aside []string

	OlderThan Span // only what is older may go: by the claimed time, measured from now

	// MinAge: only what the store took that long before the writer's newest
	// manifest may go. Both times are the store's, so neither the writer nor
	// a wrong clock on this machine can make a snapshot look old.
	MinAge Span
}

// ErrEmpty: a policy without a rule would forget all but the newest.
var ErrEmpty = errors.New("a policy without a rule")

// Snapshot is what a policy needs to know of one. All but Stored is signed.
type Snapshot struct {
	ID       string
	Set      string
	Seq      remote.Seq
	Finished time.Time // as the writer claims
	Stored   time.Time // when the store took the manifest, by its own clock; zero if that is not known
	Tags     []string
	Hash     remote.Hash // of the manifest
}

// Verdict is what becomes of a snapshot, and why.
type Verdict struct {
	Snapshot
	Keep    bool
	Reasons []Reason // at least one; of what goes, why it may
}

// check refuses policies that say nothing or nonsense.
func (p Policy) check() error {
	for _, n := range []int{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly} {
		if n < 0 {
			return fmt.Errorf("a policy that keeps %d snapshots", n)
		}
	}
	if p.Empty() {
		return ErrEmpty
	}
	return nil
}

// Empty reports whether the policy has no rule. MinAge is none: it only holds
// back what others let go.
func (p Policy) Empty() bool {
	return p.Last == 0 && len(p.Tags) == 0 && !p.byTime()
}

// byTime reports whether a rule goes by claimed times.
func (p Policy) byTime() bool {
	return p.Hourly+p.Daily+p.Weekly+p.Monthly+p.Yearly > 0 || !p.Within.IsZero() || !p.OlderThan.IsZero()
}

// keeps reports whether there is a rule that wants snapshots to stay.
func (p Policy) keeps() bool {
	p.OlderThan = Span{}
	return !p.Empty()
}

// Apply decides about the snapshots of one set, by seq. chain are all
// snapshots that a writer has, of every set and in any order. The error is
// ErrEmpty, or a *TimesError: then every verdict is to keep.
func (p Policy) Apply(chain []Snapshot, set string, now time.Time) ([]Verdict, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	of := newWriter(chain).verdicts(func(s Snapshot) bool { return s.Set == set })
	if len(of) == 0 {
		return nil, nil
	}
	if p.byTime() {
		if err := checkTimes(p.believed(chain), set, now); err != nil {
			for i := range of {
				of[i].keep(Reason{Rule: RuleTimes, Value: err.why(of[i].Seq)})
			}
			return of, err
		}
	}
	p.keep(of)
	limit := p.OlderThan.Before(now)
	for i := range of {
		v := &of[i]
		older := !p.OlderThan.IsZero() && v.Finished.Before(limit)
		switch {
		case older && !v.Keep:
			v.Reasons = append(v.Reasons, Reason{Rule: RuleOlder, Value: p.OlderThan.String()})
		case !older && !p.OlderThan.IsZero():
			v.keep(Reason{Rule: RuleNotOlder, Value: p.OlderThan.String()})
		}
		if !v.Keep && p.keeps() {
			v.Reasons = append(v.Reasons, Reason{Rule: RuleNone})
		}
	}
	holdBack(of, chain, p.MinAge)
	return of, nil
}

// believed are those of the snapshots whose times count.
func (p Policy) believed(chain []Snapshot) []Snapshot {
	return slices.DeleteFunc(slices.Clone(chain), func(s Snapshot) bool { return slices.Contains(p.Aside, s.ID) })
}

// keep marks what the keep rules want. of is by seq.
func (p Policy) keep(of []Verdict) {
	var newest time.Time // stays zero if none is believed: then all were set aside, and stay
	for i := range of {
		if slices.Contains(p.Aside, of[i].ID) {
			of[i].keep(Reason{Rule: RuleAside})
		} else {
			newest = of[i].Finished
		}
	}
	for i := len(of) - 1; i >= 0; i-- {
		v := &of[i]
		if n := len(of) - i; n <= p.Last {
			v.keep(Reason{Rule: RuleLast, N: n, Of: p.Last})
		}
		for _, tag := range p.Tags {
			if slices.Contains(v.Tags, tag) {
				v.keep(Reason{Rule: RuleTag, Value: tag})
			}
		}
		aside := slices.Contains(p.Aside, v.ID)
		if !aside && !p.Within.IsZero() && !v.Finished.Before(p.Within.Before(newest)) {
			v.keep(Reason{Rule: RuleWithin, Value: p.Within.String()})
		}
	}
	for _, rule := range []struct {
		name   string
		most   int
		bucket func(time.Time) string
	}{
		{RuleHourly, p.Hourly, hour}, {RuleDaily, p.Daily, day}, {RuleWeekly, p.Weekly, week},
		{RuleMonthly, p.Monthly, month}, {RuleYearly, p.Yearly, year},
	} {
		seen := make(map[string]bool)
		for i := len(of) - 1; i >= 0 && len(seen) < rule.most; i-- {
			if slices.Contains(p.Aside, of[i].ID) {
				continue
			}
			if b := rule.bucket(of[i].Finished.UTC()); !seen[b] {
				seen[b] = true
				of[i].keep(Reason{Rule: rule.name, N: len(seen), Of: rule.most, Value: b})
			}
		}
	}
}

// Named decides about snapshots that somebody named by their run numbers: they
// go unless they are the newest of the writer or of their set, or the store
// took them too recently.
func Named(chain []Snapshot, seqs []remote.Seq, minAge Span) []Verdict {
	of := newWriter(chain).verdicts(func(s Snapshot) bool { return slices.Contains(seqs, s.Seq) })
	for i := range of {
		if !of[i].Keep {
			of[i].Reasons = append(of[i].Reasons, Reason{Rule: RuleNamed})
		}
	}
	holdBack(of, chain, minAge)
	return of
}

// holdBack keeps what the store took less than a span before the newest.
func holdBack(of []Verdict, chain []Snapshot, span Span) {
	if span.IsZero() {
		return
	}
	var newest time.Time
	for _, s := range chain {
		if s.Stored.After(newest) {
			newest = s.Stored
		}
	}
	limit := span.Before(newest)
	for i := range of {
		switch v := &of[i]; {
		case v.Stored.IsZero():
			v.keep(Reason{Rule: RuleNoStoreTime, Value: span.String()})
		case v.Stored.After(limit):
			v.keep(Reason{Rule: RuleMinAge, Value: span.String()})
		}
	}
}

// keep adds a reason to keep a snapshot. Those to forget it no longer count.
func (v *Verdict) keep(r Reason) {
	if !v.Keep {
		v.Keep, v.Reasons = true, nil
	}
	v.Reasons = append(v.Reasons, r)
}

// writer knows which snapshots nobody may forget.
type writer struct {
	chain  []Snapshot // by seq
	newest map[string]remote.Seq
}

func newWriter(chain []Snapshot) writer {
	w := writer{bySeq(chain), make(map[string]remote.Seq)}
	for _, s := range w.chain {
		w.newest[s.Set] = s.Seq
	}
	return w
}

// verdicts are those of some of the snapshots, by seq, with nothing decided
// but that the newest ones stay.
func (w writer) verdicts(wanted func(Snapshot) bool) []Verdict {
	var of []Verdict
	for i, s := range w.chain {
		if !wanted(s) {
			continue
		}
		v := Verdict{Snapshot: s}
		if i == len(w.chain)-1 {
			v.keep(Reason{Rule: RuleNewestOfWriter})
		}
		if w.newest[s.Set] == s.Seq {
			v.keep(Reason{Rule: RuleNewestOfSet})
		}
		of = append(of, v)
	}
	return of
}

func bySeq(chain []Snapshot) []Snapshot {
	return slices.SortedFunc(slices.Values(chain), func(a, b Snapshot) int { return cmp.Compare(a.Seq, b.Seq) })
}

func hour(t time.Time) string  { return t.Format("2006-01-02 15h") }
func day(t time.Time) string   { return t.Format(time.DateOnly) }
func month(t time.Time) string { return t.Format("2006-01") }
func year(t time.Time) string  { return t.Format("2006") }

func week(t time.Time) string {
	y, w := t.ISOWeek()
	return fmt.Sprintf("%04d-W%02d", y, w)
}
