package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// A path is any bytes: where they are not UTF-8, a program gets them all.
func TestAProblemInJSONNamesThePathInFull(t *testing.T) {
	var out bytes.Buffer
	w := &watcher{ui: &ui.Printer{Out: &out, JSON: true}, set: "home", now: time.Now}
	for path, want := range map[string]string{
		"/home/ann/\xff": `"path":"/home/ann/\ufffd","path_raw":"L2hvbWUvYW5uL/8=","message":"no"}`,
		"/home/ann/ö":    `"path":"/home/ann/ö","message":"no"}`,
	} {
		out.Reset()
		w.report(backup.Event{Problem: &backup.Problem{Kind: backup.Unreadable, Path: path, Err: errors.New("no")}})
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q: got %s", path, out.String())
		}
	}
}

// The path stays on the progress line when an upload, which has none, is what
// is new.
func TestProgressKeepsThePath(t *testing.T) {
	var err bytes.Buffer
	now := time.Unix(1_800_000_000, 0)
	w := &watcher{ui: &ui.Printer{Err: &err, Terminal: true}, set: "home", now: func() time.Time { now = now.Add(time.Second); return now }}
	w.report(backup.Event{Progress: backup.Progress{Seen: 1, Path: "/home/ann/disk.img"}})
	err.Reset()
	w.report(backup.Event{Progress: backup.Progress{Seen: 1, Read: 1 << 20}})
	if got := err.String(); !strings.Contains(got, "read 1.0 MiB") || !strings.HasSuffix(got, "  /home/ann/disk.img") {
		t.Errorf("got %q", got)
	}
}
