package ui

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Progress replaces the progress line, on a terminal only. path may be "".
func (u *Printer) Progress(path, format string, args ...any) {
	if u.JSON || u.Quiet || !u.Terminal {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if path != "" {
		path = Quote(path)
	}
	// A line that wraps could not be replaced, and some terminals wrap when
	// the last column is written to.
	line := fit(harmless(fmt.Sprintf(format, args...)), path, columns(u.Err)-1)
	fmt.Fprintf(u.Err, "\r\x1b[K%s", line)
	u.live = true
}

// fit puts text and as much of the end of a path behind each other as go into
// so many columns.
func fit(text, path string, columns int) string {
	const apart, least = 2, 8
	line := []rune(text)
	if wide(line) > columns {
		for wide(line) > columns-1 && len(line) > 0 {
			line = line[:len(line)-1]
		}
		return string(line) + "…"
	}
	room := columns - wide(line) - apart
	end := []rune(path)
	if wide(end) > room {
		if room < least {
			return text
		}
		for wide(end) > room-1 {
			end = end[1:]
		}
		end = append([]rune("…"), end...)
	}
	if len(end) == 0 {
		return text
	}
	return text + strings.Repeat(" ", apart) + string(end)
}

// wide is how many columns a text takes at most: from Hangul on, letters may
// take two.
func wide(text []rune) int {
	n := len(text)
	for _, r := range text {
		if r >= 0x1100 && r != '…' {
			n++
		}
	}
	return n
}

// columns is the width of the terminal that w is.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return 80
}
