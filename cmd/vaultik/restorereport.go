package main

import (
	"sync"
	"time"
	"unicode/utf8"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/restore"
)

// restoreWatcher passes on the news of a restore: problems at once, progress
// five times a second on a terminal, once a second as JSON.
type restoreWatcher struct {
	ui    *ui.Printer
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
	if w.ui.JSON {
		text, raw := pathOf(p.Path)
		w.ui.Result(struct {
			Type    string              `json:"message_type"`
			Kind    restore.ProblemKind `json:"kind"`
			Path    string              `json:"path"`               // bytes that are not UTF-8 are replaced
			Raw     []byte              `json:"path_raw,omitempty"` // then all of them, in base64
			Message string              `json:"message"`
		}{"problem", p.Kind, text, raw, p.Err.Error()})
		return
	}
	w.ui.Warn("%s: %v", ui.Quote(p.Path), p.Err)
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
	w.ui.Result(struct {
		Type   string `json:"message_type"`
		Action string `json:"action"`
		Path   string `json:"path"`
		Raw    []byte `json:"path_raw,omitempty"`
	}{"action", act.Kind, text, raw})
	w.ui.Say("would %s %s", act.Kind, ui.Quote(act.Path))
}

func (w *restoreWatcher) progress(p *restore.Progress) {
	every := 200 * time.Millisecond
	if w.ui.JSON {
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
	if w.ui.JSON && !w.ui.Quiet {
		w.ui.Result(struct {
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
		w.ui.Progress("", "planning: %s", ui.Plural(p.Entries, "entry", "entries"))
	case "verify":
		w.ui.Progress("", "verifying: %s of %s files, %s%s", ui.Count(p.Entries), ui.Count(p.Total), ui.Size(p.Bytes), eta(left))
	default:
		w.ui.Progress("", "restored %s of %s entries, %s of %s%s", ui.Count(p.Entries), ui.Count(p.Total), ui.Size(p.Bytes), ui.Size(p.TotalBytes), eta(left))
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
	a.ui.Result(struct {
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
	a.ui.Say("%s %s, %s, %s; %s as they should be, %s kept", verb, ui.Plural(n.Files, "file", "files"), ui.Size(n.Bytes),
		ui.Plural(n.Directories+n.Symlinks+n.Specials+n.Links, "other entry", "other entries"), ui.Count(r.Same), ui.Count(r.Kept))
	if o.Delete {
		a.ui.Say("%s %s", map[bool]string{false: "deleted", true: "would delete"}[o.DryRun], ui.Plural(deleted(o, r), "entry", "entries"))
	}
	if o.DryRun {
		a.ui.Say("it takes %s of %s from the store", ui.Size(r.BlobBytes), ui.Plural(r.Blobs, "blob", "blobs"))
	} else {
		a.ui.Say("fetched %s in %s, in %s", ui.Size(r.Fetched), ui.Plural(r.Requests, "request", "requests"), ui.Duration(took))
	}
	if o.Verify && !o.DryRun {
		a.ui.Say("read back %s, %s", ui.Plural(r.Verified, "file", "files"), ui.Size(r.VerifyRead))
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
			a.ui.Note("%s %s: only root restores that", ui.Count(s.n), s.what)
		}
	}
	if r.Unsupported > 0 {
		a.ui.Warn("%s could not be set: the file system there has none of that kind", ui.Plural(r.Unsupported, "extended attribute", "extended attributes"))
	}
	if r.Problems > 0 {
		a.ui.Warn("%s, told above; the rest is there", ui.Plural(r.Problems, "problem", "problems"))
	}
}
