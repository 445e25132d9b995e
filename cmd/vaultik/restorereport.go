package main

import (
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"git.eeqj.de/sneak/vaultik/fs/restore"
)

// restoreWatcher passes on the news of a restore: problems at once, progress
// five times a second on a terminal, once a second as JSON.
type restoreWatcher struct {
	ui    *ui
	now   func() time.Time
	began time.Time
	list  bool // every path that would be made or replaced

	mu    sync.Mutex
	last  time.Time
	phase string
	start time.Time // of the phase
}

func (w *restoreWatcher) report(e restore.Event) {
	switch {
	case e.Problem != nil:
		w.problem(e.Problem)
	case e.Action != nil:
		w.action(e.Action)
	case e.Progress != nil:
		w.progress(e.Progress)
	}
}

func (w *restoreWatcher) problem(p *restore.Problem) {
	if w.ui.json {
		text, raw := pathOf(p.Path)
		w.ui.result(struct {
			Type    string              `json:"message_type"`
			Kind    restore.ProblemKind `json:"kind"`
			Path    string              `json:"path"`               // bytes that are not UTF-8 are replaced
			Raw     []byte              `json:"path_raw,omitempty"` // then all of them, in base64
			Message string              `json:"message"`
		}{"problem", p.Kind, text, raw, p.Err.Error()})
		return
	}
	w.ui.warn("%s: %v", quote(p.Path), p.Err)
}

// pathOf is a path for JSON: its text, and its bytes if it is not UTF-8.
func pathOf(p string) (text string, raw []byte) {
	if !utf8.ValidString(p) {
		raw = []byte(p)
	}
	return p, raw
}

func (w *restoreWatcher) action(act *restore.Action) {
	if !w.list && act.Kind != "delete" {
		return
	}
	text, raw := pathOf(act.Path)
	w.ui.result(struct {
		Type   string `json:"message_type"`
		Action string `json:"action"`
		Path   string `json:"path"`
		Raw    []byte `json:"path_raw,omitempty"`
	}{"action", act.Kind, text, raw})
	w.ui.say("would %s %s", act.Kind, quote(act.Path))
}

func (w *restoreWatcher) progress(p *restore.Progress) {
	every := 200 * time.Millisecond
	if w.ui.json {
		every = time.Second
	}
	w.mu.Lock()
	now := w.now()
	if w.phase != p.Phase {
		w.phase, w.start = p.Phase, now
	}
	due := now.Sub(w.last) >= every
	if due {
		w.last = now
	}
	took := now.Sub(w.start)
	w.mu.Unlock()
	if !due {
		return
	}
	left := remaining(p, took)
	if w.ui.json && !w.ui.quiet {
		w.ui.result(struct {
			Type       string  `json:"message_type"`
			Phase      string  `json:"phase"`
			Entries    int64   `json:"entries"`
			Total      int64   `json:"entries_total"`
			Bytes      int64   `json:"bytes"`
			TotalBytes int64   `json:"bytes_total"`
			Left       float64 `json:"seconds_left"` // 0: not known
		}{"status", p.Phase, p.Entries, p.Total, p.Bytes, p.TotalBytes, left.Seconds()})
		return
	}
	switch p.Phase {
	case "plan":
		w.ui.progress("", "planning: %s", plural(p.Entries, "entry", "entries"))
	case "verify":
		w.ui.progress("", "verifying: %s of %s files, %s%s", count(p.Entries), count(p.Total), size(p.Bytes), eta(left))
	default:
		w.ui.progress("", "restored %s of %s entries, %s of %s%s", count(p.Entries), count(p.Total), size(p.Bytes), size(p.TotalBytes), eta(left))
	}
}

// perEntry is what an entry counts beside its bytes when time is estimated.
const perEntry = 32 << 10

// remaining estimates the time left, 0 if nothing can be said yet.
func remaining(p *restore.Progress, took time.Duration) time.Duration {
	done, all := p.Bytes+p.Entries*perEntry, p.TotalBytes+p.Total*perEntry
	if p.TotalBytes == 0 {
		done, all = p.Entries, p.Total
	}
	if took < time.Second || done <= 0 || all <= done {
		return 0
	}
	return time.Duration(float64(took) * float64(all-done) / float64(done))
}

func eta(left time.Duration) string {
	if left == 0 {
		return ""
	}
	return ", " + left.Round(time.Second).String() + " left"
}

// restored says what a restore did, or would do.
func (a *app) restored(snapshot, dir string, o restore.Options, r *restore.Result, took time.Duration) {
	n := r.Done
	if o.DryRun {
		n = r.Planned
	}
	a.ui.result(struct {
		Type        string  `json:"message_type"`
		Snapshot    string  `json:"snapshot"`
		Target      string  `json:"target"`
		DryRun      bool    `json:"dry_run"`
		Files       int64   `json:"files"`
		Directories int64   `json:"directories"`
		Symlinks    int64   `json:"symlinks"`
		Specials    int64   `json:"specials"`
		Links       int64   `json:"links"`
		Bytes       int64   `json:"bytes"`
		Same        int64   `json:"unchanged"`
		Kept        int64   `json:"kept"`
		Excluded    int64   `json:"excluded"`
		Deleted     int64   `json:"deleted"`
		Problems    int64   `json:"problems"`
		Owners      int64   `json:"skipped_owners"`
		SetIDs      int64   `json:"skipped_setids"`
		Devices     int64   `json:"skipped_devices"`
		Attributes  int64   `json:"skipped_attributes"`
		Unsupported int64   `json:"unsupported_attributes"`
		Blobs       int64   `json:"blobs"`
		Requests    int64   `json:"requests"`
		Fetched     int64   `json:"bytes_fetched"`
		Verified    int64   `json:"verified"`
		Complete    bool    `json:"complete"`
		Seconds     float64 `json:"seconds"`
	}{
		"summary", snapshot, dir, o.DryRun, n.Files, n.Directories, n.Symlinks, n.Specials, n.Links, n.Bytes,
		r.Same, r.Kept, r.Excluded, deleted(o, r), r.Problems, r.Owners, r.SetIDs, r.Devices, r.Attributes, r.Unsupported,
		r.Blobs, r.Requests, fetched(o, r), r.Verified, !r.Incomplete(), took.Seconds(),
	})
	verb := "restored"
	if o.DryRun {
		verb = "would restore"
	}
	a.ui.say("%s %s, %s, %s; %s as they should be, %s kept", verb, plural(n.Files, "file", "files"), size(n.Bytes),
		plural(n.Directories+n.Symlinks+n.Specials+n.Links, "other entry", "other entries"), count(r.Same), count(r.Kept))
	if o.Delete {
		a.ui.say("%s %s", map[bool]string{false: "deleted", true: "would delete"}[o.DryRun], plural(deleted(o, r), "entry", "entries"))
	}
	if o.DryRun {
		a.ui.say("it takes %s of %s from the store", size(r.BlobBytes), plural(r.Blobs, "blob", "blobs"))
	} else {
		a.ui.say("fetched %s in %s, in %s", size(r.Fetched), plural(r.Requests, "request", "requests"), duration(took))
	}
	if o.Verify && !o.DryRun {
		a.ui.say("read back %s, %s", plural(r.Verified, "file", "files"), size(r.VerifyRead))
	}
	a.notRestored(r)
}

func deleted(o restore.Options, r *restore.Result) int64 {
	if o.DryRun {
		return r.Doomed
	}
	return r.Deleted
}

func fetched(o restore.Options, r *restore.Result) int64 {
	if o.DryRun {
		return r.BlobBytes
	}
	return r.Fetched
}

// notRestored sums up what was left out by design, and what went wrong.
func (a *app) notRestored(r *restore.Result) {
	for _, s := range []struct {
		n    int64
		what string
	}{
		{r.Owners, "belong to others than in the snapshot"},
		{r.SetIDs, "lack their setuid or setgid bit"},
		{r.Devices, "are devices, and were left out"},
		{r.Attributes, "extended attributes of the system were left out"},
	} {
		if s.n > 0 {
			a.ui.note("%s %s: only root restores that", count(s.n), s.what)
		}
	}
	if r.Unsupported > 0 {
		a.ui.warn("%s could not be set: the file system there has none of that kind", plural(r.Unsupported, "extended attribute", "extended attributes"))
	}
	if r.Problems > 0 {
		a.ui.warn("%s, told above; the rest is there", plural(r.Problems, "problem", "problems"))
	}
}

// ask puts a question, and leaves the cursor behind it.
func (u *ui) ask(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	fmt.Fprint(u.stdout, harmless(fmt.Sprintf(format, args...)))
}
