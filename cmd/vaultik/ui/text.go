package ui

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Quote returns a name as it is if that can do no harm and mislead nobody,
// else in Go's quotes.
func Quote(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || r == '"' || r == '\\' || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
}

// QuoteAll is a list of words in one cell or line.
func QuoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, ", ")
}

// harmless escapes what a terminal could obey, line breaks excepted.
func harmless(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// ShellQuote makes a word of a command line of any path.
func ShellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Size says bytes for people: "1.2 GiB".
func Size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Count writes a number with its thousands apart: "1,234,567".
func Count(n int64) string { return humanize.Comma(n) }

// Plural is Count with its noun: "1 file", "2 files".
func Plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// When is a time as tables show it: in UTC, as in the snapshots' ids.
func When(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// Duration is a time span as people say it, with as many digits as they read.
func Duration(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
