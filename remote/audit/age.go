package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"git.eeqj.de/sneak/vaultik/remote"
)

var (
	errStale = errors.New("too old")
	errClock = errors.New("a time that cannot be")
)

// checkAge looks at the newest snapshot of each set, by its number: that is
// signed and cannot be turned back. The time that it claims counts only as far
// as it is possible. It cannot lie ahead, nor can a manifest have come to the
// store long before its run had finished. modified are the store's times.
func (a *auditor) checkAge(state *remote.WriterState, modified map[remote.Seq]time.Time) {
	sets := make(map[string]*remote.Manifest)
	for _, v := range state.Snapshots {
		if only := a.Only[state.Writer]; a.Only == nil || slices.Contains(only, v.Manifest.Seq) {
			sets[v.Manifest.Set] = v.Manifest
		}
	}
	if len(sets) == 0 && a.MaxAge != nil && a.MaxAge(state.Writer, "") > 0 {
		a.Report(Finding{Kind: Stale, Writer: state.Writer, Err: fmt.Errorf("%w: it has no snapshot at all", errStale)})
	}
	for _, set := range slices.Sorted(maps.Keys(sets)) {
		a.checkSet(state.Writer, set, sets[set], modified[sets[set].Seq])
	}
}

func (a *auditor) checkSet(writer, set string, m *remote.Manifest, stored time.Time) {
	report := func(kind Kind, format string, args ...any) {
		a.Report(Finding{Kind: kind, Writer: writer, Set: set, Key: remote.ManifestKey(writer, m.Seq), Err: fmt.Errorf(format, args...)})
	}
	now := a.Now()
	claimed, err := time.Parse(time.RFC3339, m.Finished)
	if err != nil {
		report(Clock, "%w: %q", errClock, m.Finished)
		return
	}
	since, by := claimed, "by the writer's clock"
	if !stored.IsZero() && stored.Before(claimed) {
		since, by = stored, "by the store's clock"
	}
	switch {
	case claimed.After(now.Add(clockSkew)):
		report(Clock, "%w: it says that it was finished at %s, which is %s ahead; a clock is wrong, there or here", errClock, m.Finished, span(claimed.Sub(now)))
	case !stored.IsZero() && claimed.After(stored.Add(clockSkew)):
		report(Clock, "%w: it says that it was finished at %s, but the store has had it since %s; a clock is wrong, there or in the store",
			errClock, m.Finished, stored.UTC().Format(time.RFC3339))
	}
	if a.MaxAge == nil {
		return
	}
	limit := a.MaxAge(writer, set)
	if limit <= 0 || now.Sub(since) <= limit {
		return
	}
	second := ""
	if !stored.IsZero() && stored.Sub(claimed).Abs() > clockSkew {
		second = fmt.Sprintf("; by the store's clock it came at %s", stored.UTC().Format(time.RFC3339))
		if since.Equal(stored) {
			second = fmt.Sprintf("; it claims %s itself", m.Finished)
		}
	}
	report(Stale, "%w: the newest snapshot of set %q, %s, is %s old %s, more than %s%s", errStale, set, m.Snapshot, span(now.Sub(since)), by, span(limit), second)
}

// span is a time span as people say it: the two greatest units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.Round(time.Second).String()
}
