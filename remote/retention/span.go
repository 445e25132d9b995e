package retention

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Span is a length of time as people say it: months and years are those of the
// calendar. The zero Span is none at all.
type Span struct {
	years, months, weeks, days, hours int
}

// maxCount bounds each number of a span, so that no sum of them leaves the
// years that a time can be in.
const maxCount = 9999

// units are in the order in which a span names them.
var units = []struct {
	name  string
	field func(*Span) *int
}{
	{"y", func(s *Span) *int { return &s.years }},
	{"mo", func(s *Span) *int { return &s.months }},
	{"w", func(s *Span) *int { return &s.weeks }},
	{"d", func(s *Span) *int { return &s.days }},
	{"h", func(s *Span) *int { return &s.hours }},
}

var errSpan = errors.New("write a time span like 12h, 30d, 6w, 3mo or 1y, or several together, the greatest first: 1y6mo")

// ParseSpan reads "12h", "30d", "6w", "3mo", "1y", or several of these one
// after the other, the greatest first. There is no span of no length.
func ParseSpan(text string) (Span, error) {
	var s Span
	rest, from := text, 0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n < 1 || n > maxCount || rest[0] == '0' {
			return Span{}, fmt.Errorf("%q: %w; each number is from 1 to %d", text, errSpan, maxCount)
		}
		rest = rest[digits:]
		letters := len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))
		i := from
		for i < len(units) && units[i].name != rest[:letters] {
			i++
		}
		if i == len(units) {
			return Span{}, fmt.Errorf("%q: %w", text, errSpan)
		}
		*units[i].field(&s) = n
		rest, from = rest[letters:], i+1
	}
	if s.IsZero() {
		return Span{}, fmt.Errorf("%q: %w", text, errSpan)
	}
	return s, nil
}

// IsZero reports whether s is none at all.
func (s Span) IsZero() bool { return s == Span{} }

// String is what ParseSpan reads; "" for none.
func (s Span) String() string {
	var b strings.Builder
	for _, u := range units {
		if n := *u.field(&s); n > 0 {
			b.WriteString(strconv.Itoa(n) + u.name)
		}
	}
	return b.String()
}

// UnmarshalText is ParseSpan.
func (s *Span) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSpan(string(text))
	return err
}

// MarshalText is String.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Before returns the time that lies s before t, in UTC: first the years and
// months, by the calendar, then the rest. A month before March 31 is the last
// day of February.
func (s Span) Before(t time.Time) time.Time {
	t = t.UTC()
	year, month, day := t.Date()
	first := time.Date(year-s.years, month-time.Month(s.months), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	midnight := first.AddDate(0, 0, min(day, last)-1)
	midnight = midnight.AddDate(0, 0, -7*s.weeks-s.days)
	clock := t.Sub(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))
	return midnight.Add(clock - time.Duration(s.hours)*time.Hour)
}
