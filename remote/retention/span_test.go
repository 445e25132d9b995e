package retention

import (
	"testing"
	"time"
)

func TestSpansAreReadAsPeopleWriteThem(t *testing.T) {
	for _, c := range []struct {
		text, now, before string
	}{
		{"12h", "2026-03-31T10:20:30Z", "2026-03-30T22:20:30Z"},
		{"36h", "2026-03-01T10:00:00Z", "2026-02-27T22:00:00Z"},
		{"30d", "2026-03-31T10:20:30Z", "2026-03-01T10:20:30Z"},
		{"6w", "2026-03-31T10:20:30Z", "2026-02-17T10:20:30Z"},
		{"1mo", "2026-03-31T10:20:30Z", "2026-02-28T10:20:30Z"},
		{"1mo", "2028-03-31T10:20:30Z", "2028-02-29T10:20:30Z"},
		{"13mo", "2026-01-31T00:00:00Z", "2024-12-31T00:00:00Z"},
		{"1y", "2028-02-29T23:59:59Z", "2027-02-28T23:59:59Z"},
		{"1y6mo2w1d1h", "2026-08-20T00:30:00Z", "2025-02-04T23:30:00Z"},
		{"1d", "2026-03-29T12:00:00+02:00", "2026-03-28T10:00:00Z"},
	} {
		s, err := ParseSpan(c.text)
		now, bad := time.Parse(time.RFC3339, c.now)
		if err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if got := s.Before(now).Format(time.RFC3339); got != c.before || s.String() != c.text {
			t.Errorf("%s before %s is %s, want %s; it reads %s", c.text, c.now, got, c.before, s)
		}
	}
}

func TestWhatIsNoSpanIsRefused(t *testing.T) {
	for _, text := range []string{"", "0d", "5", "d", "5m", "5 d", "-5d", "5D", "1.5d", "05d", "1d1y", "1d1d", "10000d", "99999999999999999999h", "5d ", "1h30", "1yo", "١d"} {
		if s, err := ParseSpan(text); err == nil {
			t.Errorf("%q is read as %s", text, s)
		}
	}
}

func FuzzParseSpan(f *testing.F) {
	for _, seed := range []string{"12h", "30d", "6w", "3mo", "1y", "1y6mo2w1d1h", "0h", "9999y", "1m", ""} {
		f.Add(seed)
	}
	now := time.Date(2026, 3, 31, 10, 20, 30, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpan(text)
		if err != nil {
			return
		}
		if s.String() != text {
			t.Errorf("%q is read as %q", text, s)
		}
		if before := s.Before(now); !before.Before(now) {
			t.Errorf("%s before %v is %v", s, now, before)
		}
	})
}
