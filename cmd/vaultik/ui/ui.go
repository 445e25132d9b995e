// Package ui says things to the person in front of vaultik, or with --json to
// the program: results on standard output, everything about the run on standard
// error, progress on a terminal in one line that replaces itself.
//
// It promises that no text can drive the terminal: what is printed as a message
// is escaped, and names that came from outside pass through Quote on their way
// into one. It decides nothing about how a command ends, knows no command, and
// reads no answers.
package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Printer talks to the person, or with --json to the program, in front of vaultik.
// Names that came from outside pass through Quote, because a file or a store
// may be called anything, escape sequences included. It is safe for
// concurrent use.
type Printer struct {
	Out, Err io.Writer
	JSON     bool // results as JSON lines instead of text
	Quiet    bool // nothing that is not asked for
	Verbose  bool
	Color    bool // on Err
	Terminal bool // Err is one: progress may be shown

	mu    sync.Mutex
	live  bool // a progress line is on the screen
	ended bool // EndLine was called
}

// Say tells what was done; --json and --quiet leave it out.
func (u *Printer) Say(format string, args ...any) {
	if !u.Quiet {
		u.Print(format, args...)
	}
}

// Print prints a line of what was asked for; --json leaves it out.
func (u *Printer) Print(format string, args ...any) {
	if u.JSON {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprintf(u.Out, format+"\n", args...)
}

// Note is for standard error: what is worth knowing beside the result.
func (u *Printer) Note(format string, args ...any) {
	if !u.Quiet {
		u.message("", "note", fmt.Sprintf(format, args...))
	}
}

// Warn is Note for what is wrong though the command goes on; --quiet does not
// hide it.
func (u *Printer) Warn(format string, args ...any) {
	u.message("\x1b[33m", "warning", fmt.Sprintf(format, args...))
}

// Fail says why the program ends.
func (u *Printer) Fail(err error, code int) {
	if u.JSON {
		u.record(u.Err, struct {
			Type    string `json:"message_type"`
			Code    int    `json:"code"`
			Message string `json:"message"`
		}{"exit_error", code, err.Error()})
		return
	}
	u.message("\x1b[31m", "error", err.Error())
}

func (u *Printer) message(color, kind, text string) {
	if u.JSON {
		u.record(u.Err, struct {
			Type    string `json:"message_type"`
			Message string `json:"message"`
		}{kind, text})
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if u.Color && color != "" {
		kind = color + kind + "\x1b[0m"
	}
	fmt.Fprintf(u.Err, "vaultik: %s: %s\n", kind, harmless(text))
}

// Result writes one JSON line to standard output, with --json only.
func (u *Printer) Result(v any) {
	if u.JSON {
		u.record(u.Out, v)
	}
}

func (u *Printer) record(w io.Writer, v any) {
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

// Table prints rows under a header in columns as wide as their longest cell.
// A "<" in front of a header says that its column's numbers stand at the
// right.
func (u *Printer) Table(header []string, rows [][]string) {
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
		u.Print("%s", strings.TrimRight(b.String(), " "))
	}
}

// clear takes the progress line away; mu is held.
func (u *Printer) clear() {
	if u.live {
		fmt.Fprint(u.Err, "\r\x1b[K")
		u.live = false
	}
}

// EndLine begins a new line on a terminal, once: where it was stands ^C.
func (u *Printer) EndLine() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.Terminal && !u.ended {
		u.clear()
		fmt.Fprintln(u.Err)
		u.ended = true
	}
}

// Done takes the progress line away when nothing else is to be said.
func (u *Printer) Done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
}

// IsTerminal reports whether w is a file that is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Ask puts a question, and leaves the cursor behind it.
func (u *Printer) Ask(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprint(u.Out, harmless(fmt.Sprintf(format, args...)))
}
