package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// ui talks to the person, or with --json to the program, in front of vaultik.
// Names that came from outside pass through quote, because a file or a store
// may be called anything, escape sequences included. It is safe for
// concurrent use.
type ui struct {
	stdout, stderr io.Writer
	json           bool // results as JSON lines instead of text
	quiet          bool // nothing that is not asked for
	verbose        bool
	color          bool // on stderr
	terminal       bool // stderr is one: progress may be shown

	mu    sync.Mutex
	live  bool // a progress line is on the screen
	ended bool // endLine was called
}

// say tells what was done; --json and --quiet leave it out.
func (u *ui) say(format string, args ...any) {
	if !u.quiet {
		u.print(format, args...)
	}
}

// print prints a line of what was asked for; --json leaves it out.
func (u *ui) print(format string, args ...any) {
	if u.json {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintf(u.stdout, format+"\n", args...)
}

// note is for standard error: what is worth knowing beside the result.
func (u *ui) note(format string, args ...any) {
	if !u.quiet {
		u.message("", "note", fmt.Sprintf(format, args...))
	}
}

// warn is note for what is wrong though the command goes on; --quiet does not
// hide it.
func (u *ui) warn(format string, args ...any) {
	u.message("\x1b[33m", "warning", fmt.Sprintf(format, args...))
}

// fail says why the program ends.
func (u *ui) fail(err error, code int) {
	if u.json {
		u.record(u.stderr, struct {
			Type    string `json:"message_type"`
			Code    int    `json:"code"`
			Message string `json:"message"`
		}{"exit_error", code, err.Error()})
		return
	}
	u.message("\x1b[31m", "error", err.Error())
}

func (u *ui) message(color, kind, text string) {
	if u.json {
		u.record(u.stderr, struct {
			Type    string `json:"message_type"`
			Message string `json:"message"`
		}{kind, text})
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if u.color && color != "" {
		kind = color + kind + "\x1b[0m"
	}
	fmt.Fprintf(u.stderr, "vaultik: %s: %s\n", kind, harmless(text))
}

// result writes one JSON line to standard output, with --json only.
func (u *ui) result(v any) {
	if u.json {
		u.record(u.stdout, v)
	}
}

func (u *ui) record(w io.Writer, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("internal error: a message that is no JSON: " + err.Error())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	w.Write(escaped(b.Bytes()))
}

// escaped escapes what a terminal could obey or misread in a line of JSON,
// where such characters can only stand in strings.
func escaped(line []byte) []byte {
	var out []byte
	for _, r := range string(line) {
		switch high, low := utf16.EncodeRune(r); {
		case r == '\n' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case high == utf8.RuneError: // r needs one code unit
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

// table prints rows under a header in columns as wide as their longest cell.
// A "<" in front of a header says that its column's numbers stand at the
// right.
func (u *ui) table(header []string, rows [][]string) {
	left := make([]bool, len(header))
	width := make([]int, len(header))
	for i, h := range header {
		header[i] = strings.TrimPrefix(h, "<")
		left[i] = header[i] == h
	}
	all := append([][]string{header}, rows...)
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if left[i] {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
		}
		u.print("%s", strings.TrimRight(b.String(), " "))
	}
}

// clear takes the progress line away; mu is held.
func (u *ui) clear() {
	if u.live {
		fmt.Fprint(u.stderr, "\r\x1b[K")
		u.live = false
	}
}

// endLine begins a new line on a terminal, once: where it was stands ^C.
func (u *ui) endLine() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.terminal && !u.ended {
		u.clear()
		fmt.Fprintln(u.stderr)
		u.ended = true
	}
}

// done takes the progress line away when nothing else is to be said.
func (u *ui) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
}

// quote returns a name as it is if that can do no harm and mislead nobody,
// else in Go's quotes.
func quote(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || r == '"' || r == '\\' || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(s)
	}
	return s
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

// size says bytes for people: "1.2 GiB".
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// count writes a number with its thousands apart: "1,234,567".
func count(n int64) string { return humanize.Comma(n) }

// plural is count with its noun: "1 file", "2 files".
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// when is a time as tables show it: in UTC, as in the snapshots' ids.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// isTerminal reports whether w is a file that is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
