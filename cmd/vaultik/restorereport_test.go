package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/restore"
)

func TestTheTimeLeftIsEstimated(t *testing.T) {
	for _, c := range []struct {
		p    restore.Progress
		took time.Duration
		want time.Duration
	}{
		{restore.Progress{Entries: 0, Total: 100, TotalBytes: 1 << 30}, time.Minute, 0},                                                    // nothing to go by
		{restore.Progress{Entries: 1, Total: 100, Bytes: 1, TotalBytes: 100}, time.Second / 2, 0},                                          // too early
		{restore.Progress{Entries: 100, Total: 400, Bytes: 1 << 30, TotalBytes: 4 << 30}, time.Minute, 3 * time.Minute},                    // a quarter of it
		{restore.Progress{Entries: 100, Total: 400}, time.Minute, 3 * time.Minute},                                                         // without bytes
		{restore.Progress{Entries: 1000, Total: 2000, Bytes: 1000 * perEntry, TotalBytes: 1000 * perEntry}, time.Minute, 30 * time.Second}, // entries take time as well
		{restore.Progress{Entries: 400, Total: 400, Bytes: 4 << 30, TotalBytes: 4 << 30}, time.Minute, 0},
	} {
		if got := remaining(&c.p, c.took); got != c.want {
			t.Errorf("%+v after %v: %v, want %v", c.p, c.took, got, c.want)
		}
	}
}

func TestARestoreShowsItsProgress(t *testing.T) {
	var screen bytes.Buffer
	now := time.Unix(0, 0)
	w := &restoreWatcher{ui: &ui.Printer{Err: &screen, Terminal: true}, now: func() time.Time { return now }}
	for _, p := range []restore.Progress{
		{Phase: "plan", Entries: 12345},
		{Phase: "restore", Total: 100, TotalBytes: 1 << 30},
		{Phase: "restore", Entries: 25, Total: 100, Bytes: 1 << 28, TotalBytes: 1 << 30},
		{Phase: "restore", Entries: 26, Total: 100, Bytes: 1 << 28, TotalBytes: 1 << 30}, // too soon
		{Phase: "verify", Entries: 50, Total: 100, Bytes: 1 << 20},
	} {
		now = now.Add(10 * time.Second)
		if p.Entries == 26 {
			now = now.Add(-10*time.Second + time.Millisecond)
		}
		w.report(restore.Event{Progress: &p})
	}
	lines := strings.Split(screen.String(), "\r\x1b[K")[1:]
	want := []string{
		"planning: 12,345 entries",
		"restored 0 of 100 entries, 0 B of 1.0 GiB",
		"restored 25 of 100 entries, 256 MiB of 1.0 GiB, 30s left",
		"verifying: 50 of 100 files, 1.0 MiB",
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the screen shows\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
