package retention

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/remote"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// history makes a chain from literal lines "SEQ SET TIME [#tag …]".
func history(t testing.TB, text string) []Snapshot {
	t.Helper()
	var chain []Snapshot
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var seq remote.Seq
		if _, err := fmt.Sscan(words[0], &seq); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse("2006-01-02T15:04Z", words[2])
		if err != nil {
			t.Fatal(err)
		}
		s := Snapshot{ID: "host-" + words[0], Set: words[1], Seq: seq, Finished: at, Stored: at}
		for _, tag := range words[3:] {
			s.Tags = append(s.Tags, strings.TrimPrefix(tag, "#"))
		}
		chain = append(chain, s)
	}
	return chain
}

// told is a plan in words, a line a snapshot.
func told(of []Verdict) []string {
	var lines []string
	for _, v := range of {
		word := "forget"
		if v.Keep {
			word = "keep"
		}
		var why []string
		for _, r := range v.Reasons {
			why = append(why, r.String())
		}
		lines = append(lines, fmt.Sprintf("%d %s: %s", uint64(v.Seq), word, strings.Join(why, ", ")))
	}
	return lines
}

func span(t testing.TB, text string) Span {
	t.Helper()
	s, err := ParseSpan(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const autumn = `
	1 home 2026-08-31T03:00Z #before-move
	2 home 2026-10-04T03:00Z
	3 home 2026-10-05T03:00Z
	4 home 2026-11-23T03:00Z
	5 mail 2026-11-23T04:00Z
	6 home 2026-11-24T03:00Z
	7 home 2026-11-24T21:00Z
	8 home 2026-11-24T21:40Z
	9 mail 2026-11-24T22:00Z`

func TestEachRuleTellsWhatItKeeps(t *testing.T) {
	for name, c := range map[string]struct {
		policy Policy
		set    string
		want   []string
	}{
		"last": {Policy{Last: 2}, "home", []string{
			"1 forget: no rule keeps it", "2 forget: no rule keeps it", "3 forget: no rule keeps it", "4 forget: no rule keeps it",
			"6 forget: no rule keeps it", "7 keep: last 2 of 2", "8 keep: newest of the set, last 1 of 2"}},
		"hourly": {Policy{Hourly: 2}, "home", []string{
			"1 forget: no rule keeps it", "2 forget: no rule keeps it", "3 forget: no rule keeps it", "4 forget: no rule keeps it",
			"6 keep: hourly 2 of 2 (2026-11-24 03h)", "7 forget: no rule keeps it", "8 keep: newest of the set, hourly 1 of 2 (2026-11-24 21h)"}},
		"days, weeks from Monday on, months": {Policy{Daily: 2, Weekly: 3, Monthly: 9}, "home", []string{
			"1 keep: monthly 3 of 9 (2026-08)", "2 keep: weekly 3 of 3 (2026-W40)",
			"3 keep: weekly 2 of 3 (2026-W41), monthly 2 of 9 (2026-10)", "4 keep: daily 2 of 2 (2026-11-23)",
			"6 forget: no rule keeps it", "7 forget: no rule keeps it",
			"8 keep: newest of the set, daily 1 of 2 (2026-11-24), weekly 1 of 3 (2026-W48), monthly 1 of 9 (2026-11)"}},
		"years": {Policy{Yearly: 1}, "mail", []string{
			"5 forget: no rule keeps it", "9 keep: newest of the writer, newest of the set, yearly 1 of 1 (2026)"}},
		"tags": {Policy{Tags: []string{"before-move", "x"}}, "home", []string{
			"1 keep: tag \"before-move\"", "2 forget: no rule keeps it", "3 forget: no rule keeps it", "4 forget: no rule keeps it",
			"6 forget: no rule keeps it", "7 forget: no rule keeps it", "8 keep: newest of the set"}},
		"within, from the newest on": {Policy{Within: span(t, "18h")}, "home", []string{
			"1 forget: no rule keeps it", "2 forget: no rule keeps it", "3 forget: no rule keeps it", "4 forget: no rule keeps it",
			"6 forget: no rule keeps it", "7 keep: within 18h of the set's newest", "8 keep: newest of the set, within 18h of the set's newest"}},
		"older alone": {Policy{OlderThan: span(t, "1mo")}, "home", []string{
			"1 forget: older than 1mo", "2 forget: older than 1mo", "3 forget: older than 1mo", "4 keep: not older than 1mo",
			"6 keep: not older than 1mo", "7 keep: not older than 1mo", "8 keep: newest of the set, not older than 1mo"}},
		"older beside others": {Policy{Monthly: 2, OlderThan: span(t, "1mo")}, "home", []string{
			"1 forget: older than 1mo, no rule keeps it", "2 forget: older than 1mo, no rule keeps it", "3 keep: monthly 2 of 2 (2026-10)",
			"4 keep: not older than 1mo", "6 keep: not older than 1mo", "7 keep: not older than 1mo",
			"8 keep: newest of the set, monthly 1 of 2 (2026-11), not older than 1mo"}},
		"older than all": {Policy{OlderThan: span(t, "1h")}, "mail", []string{
			"5 forget: older than 1h", "9 keep: newest of the writer, newest of the set"}},
		"no such set": {Policy{Last: 1}, "music", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.policy.Apply(history(t, autumn), c.set, now)
			if diff := cmp.Diff(c.want, told(got)); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A machine that was off for a year loses nothing of its last month.
func TestWithinIsMeasuredFromTheNewestAndOlderFromNow(t *testing.T) {
	chain := history(t, "1 home 2025-10-01T00:00Z\n2 home 2025-10-20T00:00Z\n3 home 2025-10-21T00:00Z")
	of, err := Policy{Within: span(t, "1mo")}.Apply(chain, "home", now)
	if err != nil || slices.ContainsFunc(of, func(v Verdict) bool { return !v.Keep }) {
		t.Errorf("%v %q", err, told(of))
	}
	of, err = Policy{OlderThan: span(t, "1y")}.Apply(chain, "home", now)
	if err != nil || of[0].Keep || of[1].Keep || !of[2].Keep {
		t.Errorf("%v %q", err, told(of))
	}
}

func TestAnEmptyPolicyIsRefused(t *testing.T) {
	for _, p := range []Policy{{}, {MinAge: span(t, "30d")}} {
		if _, err := p.Apply(history(t, autumn), "home", now); !errors.Is(err, ErrEmpty) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := (Policy{Daily: -1}).Apply(history(t, autumn), "home", now); err == nil {
		t.Error("a negative number is accepted")
	}
}

// The store's times decide, not those that are claimed, nor this machine's.
func TestWhatTheStoreTookRecentlyStays(t *testing.T) {
	chain := history(t, autumn)
	chain[1].Stored = chain[len(chain)-1].Stored.Add(-29 * 24 * time.Hour) // planted: it claims to be of October 4
	chain[2].Stored = time.Time{}
	policy := Policy{Last: 1, MinAge: span(t, "30d")}
	want := []string{
		"1 forget: no rule keeps it", "2 keep: the store took it less than 30d before the writer's newest",
		"3 keep: the store does not say whether it is there for 30d"}
	for _, at := range []time.Time{now, now.AddDate(1, 0, 0)} {
		got, err := policy.Apply(chain, "home", at)
		if diff := cmp.Diff(want, told(got)[:3]); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	got := told(Named(chain, []remote.Seq{1, 2, 8, 9}, span(t, "30d")))
	want = []string{"1 forget: named", want[1], "8 keep: newest of the set, the store took it less than 30d before the writer's newest",
		"9 keep: newest of the writer, newest of the set, the store took it less than 30d before the writer's newest"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
}

func TestTimesThatCannotBeTrueStopTheRulesThatGoByThem(t *testing.T) {
	for name, c := range map[string]struct {
		chain string
		want  []string // seqs and what they contradict, of set home
	}{
		"a clock that stood at its beginning": {"1 home 2026-11-01T00:00Z\n2 home 1970-01-01T00:01Z\n3 home 2026-11-03T00:00Z", []string{"2 against 1"}},
		"the first run's clock was ahead":     {"1 home 2026-11-20T00:00Z\n2 home 2026-11-01T00:00Z\n3 home 2026-11-02T00:00Z", []string{"1 against 2"}},
		"the newest is before others":         {"1 home 2026-11-01T00:00Z\n2 home 2026-11-02T00:00Z\n3 home 2026-11-01T12:00Z", []string{"3 against 2"}},
		"far in the future":                   {"1 home 2026-11-01T00:00Z\n2 home 2027-11-02T00:00Z\n3 home 2026-11-03T00:00Z", []string{"2 in the future"}},
		"another set shows it":                {"1 mail 2026-11-01T00:00Z\n2 home 2026-10-01T00:00Z\n3 mail 2026-11-02T00:00Z", []string{"2 against 1"}},
		"the other set's matter":              {"1 home 2026-11-01T00:00Z\n2 mail 2026-10-01T00:00Z\n3 home 2026-11-02T00:00Z", nil},
		"a clock that was set right":          {"1 home 2026-11-01T01:00Z\n2 home 2026-11-01T00:30Z\n3 home 2026-11-02T00:00Z", nil},
		"another machine's clock":             {"1 home 2026-11-01T01:00Z\n2 home 2026-11-26T11:00Z", nil},
	} {
		t.Run(name, func(t *testing.T) {
			chain := history(t, c.chain)
			for _, policy := range []Policy{{Daily: 1}, {Last: 1, Within: span(t, "1d")}, {OlderThan: span(t, "1h")}} {
				of, err := policy.Apply(chain, "home", now)
				var got []string
				if e := (*TimesError)(nil); errors.As(err, &e) {
					for _, k := range e.Culprits {
						what := "in the future"
						if k.Against != nil {
							what = fmt.Sprintf("against %d", uint64(k.Against.Seq))
						}
						got = append(got, fmt.Sprintf("%d %s", uint64(k.Seq), what))
						if !strings.Contains(err.Error(), k.ID) {
							t.Errorf("%v does not name %s", err, k.ID)
						}
					}
					if slices.ContainsFunc(of, func(v Verdict) bool { return !v.Keep }) {
						t.Errorf("something would go: %q", told(of))
					}
				} else if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("culprits (-want +got):\n%s", diff)
				}
			}
			if _, err := (Policy{Last: 1, Tags: []string{"x"}}).Apply(chain, "home", now); err != nil {
				t.Errorf("rules that do not go by time: %v", err)
			}
		})
	}
}

// A person who knows that a clock was wrong says so of the snapshots that are
// named: then the rules go on with the others, and those stay.
func TestWhatIsSetAsideStaysAndStopsNothing(t *testing.T) {
	chain := history(t, "1 home 2026-11-01T00:00Z\n2 home 2026-11-02T00:00Z\n3 home 1970-01-01T00:01Z\n4 home 2026-11-03T00:00Z\n5 home 2027-11-04T00:00Z")
	policy := Policy{Daily: 1, Within: span(t, "12h")}
	got, err := policy.Apply(chain, "home", now)
	want := []string{
		"1 keep: claimed times of this set are not to be trusted", "2 keep: claimed times of this set are not to be trusted",
		"3 keep: its time cannot be true: it claims 1970-01-01T00:01:00Z, before 2026-11-02T00:00:00Z (run 2), which it follows",
		"4 keep: claimed times of this set are not to be trusted",
		"5 keep: newest of the writer, newest of the set, its time cannot be true: it claims 2027-11-04T00:00:00Z, which is in the future (it is " + say(now) + " here)",
	}
	if diff := cmp.Diff(want, told(got)); err == nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}

	policy.Aside = []string{chain[2].ID, chain[4].ID, "another"}
	got, err = policy.Apply(chain, "home", now)
	want = []string{
		"1 forget: no rule keeps it", "2 forget: no rule keeps it", "3 keep: set aside",
		"4 keep: within 12h of the set's newest, daily 1 of 1 (2026-11-03)", "5 keep: newest of the writer, newest of the set, set aside",
	}
	if diff := cmp.Diff(want, told(got)); err != nil || diff != "" {
		t.Errorf("set aside: %v (-want +got):\n%s", err, diff)
	}
	for _, s := range chain {
		policy.Aside = append(policy.Aside, s.ID)
	}
	if got, err := policy.Apply(chain, "home", now); err != nil || slices.ContainsFunc(got, func(v Verdict) bool { return !v.Keep }) {
		t.Errorf("all of them: %v %q", err, told(got))
	}
}

// plans draws a chain whose times ascend, and a policy.
func plans(rt *rapid.T) ([]Snapshot, Policy) {
	n := rapid.IntRange(1, 60).Draw(rt, "snapshots")
	at := now.AddDate(-3, 0, 0)
	var chain []Snapshot
	for i := range n {
		at = at.Add(time.Duration(rapid.IntRange(0, 500).Draw(rt, "hours")) * time.Hour / 2)
		at = at.Add(min(0, now.Sub(at)))
		s := Snapshot{Seq: remote.Seq(i*2 + 1), Set: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "set"), Finished: at, Stored: at}
		if rapid.IntRange(0, 9).Draw(rt, "tagged") == 0 {
			s.Tags = []string{"t"}
		}
		chain = append(chain, s)
	}
	return chain, policies(rt)
}

func policies(rt *rapid.T) Policy {
	count := func(name string) int { return rapid.IntRange(0, 5).Draw(rt, name) }
	p := Policy{Last: count("last"), Hourly: count("hourly"), Daily: count("daily"), Weekly: count("weekly"), Monthly: count("monthly"), Yearly: count("yearly")}
	spans := rapid.SampledFrom([]string{"", "", "", "30d", "3mo", "1y"})
	for _, s := range []*Span{&p.Within, &p.OlderThan, &p.MinAge} {
		if text := spans.Draw(rt, "span"); text != "" {
			*s, _ = ParseSpan(text)
		}
	}
	if rapid.Bool().Draw(rt, "tags") {
		p.Tags = []string{"t"}
	}
	return p
}

func gone(t *rapid.T, p Policy, chain []Snapshot) map[remote.Seq]bool {
	out := make(map[remote.Seq]bool)
	for _, set := range []string{"a", "b"} {
		of, err := p.Apply(chain, set, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range of {
			if len(v.Reasons) == 0 {
				t.Errorf("no reason for %+v", v)
			}
			if !v.Keep {
				out[v.Seq] = true
			}
		}
	}
	return out
}

// Whatever the policy: the newest stay, the order in which snapshots are given
// is of no consequence, a further keep rule or a longer one never forgets more,
// and a second time there is nothing to forget.
func TestPoliciesAreMonotone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		chain, p := plans(rt)
		if p.Empty() {
			return
		}
		out := gone(rt, p, chain)
		newest := map[string]remote.Seq{}
		for _, s := range chain {
			newest[s.Set] = s.Seq
		}
		for _, seq := range newest {
			if out[seq] {
				rt.Errorf("%d is the newest of its set", seq)
			}
		}
		shuffled := slices.Clone(chain)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(out, gone(rt, p, shuffled)); diff != "" {
			rt.Errorf("in another order:\n%s", diff)
		}
		more := p
		q := policies(rt)
		more.Last, more.Hourly, more.Daily = p.Last+q.Last, p.Hourly+q.Hourly, p.Daily+q.Daily
		more.Weekly, more.Monthly, more.Yearly = p.Weekly+q.Weekly, p.Monthly+q.Monthly, p.Yearly+q.Yearly
		more.Tags = append(slices.Clone(p.Tags), q.Tags...)
		if more.Within.IsZero() {
			more.Within = q.Within
		}
		for seq := range gone(rt, more, chain) {
			if !out[seq] {
				rt.Errorf("%+v forgets %d, which %+v keeps", more, seq, p)
			}
		}
		rest := slices.DeleteFunc(slices.Clone(chain), func(s Snapshot) bool { return out[s.Seq] })
		if again := gone(rt, p, rest); len(again) > 0 {
			rt.Errorf("a second time %v go", again)
		}
	})
}
