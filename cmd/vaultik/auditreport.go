package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/check"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// auditReport tells what an audit finds.
type auditReport struct {
	ui    *ui.Printer
	now   func() time.Time
	last  time.Time // when the progress was shown
	kinds map[audit.Kind]int
	shown map[string]int // by writer and kind
	code  int

	uncertified []audit.Finding     // told at the end, if that is not all there is
	advice      []string            // each once
	texts       map[string][]string // findings by what is to be done about them
	short       map[string]bool     // keys of objects that have the wrong size
	deleted     int
	lost        map[string]bool // keys of blobs that are missing or damaged
	files       []string        // lines of the summary, about files
}

func newAuditReport(to *ui.Printer, now func() time.Time) *auditReport {
	return &auditReport{
		ui: to, now: now, kinds: make(map[audit.Kind]int), shown: make(map[string]int),
		texts: make(map[string][]string), short: make(map[string]bool), lost: make(map[string]bool),
	}
}

// oneKind is how many findings of one kind about one writer are told, unless
// somebody wants to read more.
const oneKind = 20

// findingLine is what JSON says of a finding.
type findingLine struct {
	Type      string     `json:"message_type"`
	Kind      audit.Kind `json:"kind"`
	Writer    string     `json:"writer"`
	Set       string     `json:"set,omitempty"`
	Key       string     `json:"key"`
	Message   string     `json:"message"`
	Harmless  bool       `json:"harmless"`
	Needed    int        `json:"snapshots_count"` // that need the object
	Snapshots []string   `json:"snapshots"`       // the oldest three of them, and the newest
	Pinned    bool       `json:"pinned"`
	Deleted   bool       `json:"deleted"`
	Advice    string     `json:"advice"`
}

func (r *auditReport) found(f audit.Finding) {
	if u := (*remote.Uncertified)(nil); errors.As(f.Err, &u) {
		r.uncertified = append(r.uncertified, f)
		return
	}
	r.tell(f)
}

func (r *auditReport) tell(f audit.Finding) {
	again := f.Kind == audit.Rotten && r.short[f.Key] // what is cut off has other bytes as well
	if !again {
		r.kinds[f.Kind]++
	}
	if f.Kind == audit.WrongSize {
		r.short[f.Key] = true
	}
	if !f.Harmless() {
		r.code = worse(r.code, exitCode(f.Err))
	}
	if f.Deleted {
		r.deleted++
	}
	if k, err := remote.ParseKey(f.Key); err == nil && k.Kind == remote.KindBlob && f.Lost() {
		r.lost[f.Key] = true
	}
	r.ui.Result(findingLine{
		"finding", f.Kind, f.Writer, f.Set, f.Key, f.Err.Error(), f.Harmless(),
		f.Needed, append([]string{}, f.Snapshots...), f.Pinned, f.Deleted, f.Advice,
	})
	if r.ui.JSON || again && !f.Deleted {
		return
	}
	if f.Advice != "" && !slices.Contains(r.advice, f.Advice) {
		r.advice = append(r.advice, f.Advice)
	}
	if !r.room(fmt.Sprintf("writer %q: %s", f.Writer, f.Kind)) {
		return
	}
	text := sentence(f)
	if f.Harmless() {
		r.ui.Note("%s", text)
		return
	}
	if f.Advice != "" {
		r.texts[f.Advice] = append(r.texts[f.Advice], text)
		return
	}
	r.ui.Warn("%s", text)
}

// room reports whether one more finding of a group is to be told.
func (r *auditReport) room(group string) bool {
	r.shown[group]++
	return r.shown[group] <= oneKind || r.ui.Verbose
}

// sentence is a finding as people read it.
func sentence(f audit.Finding) string {
	text := strings.ReplaceAll(f.Err.Error(), "\n", "; ")
	switch {
	case f.Kind == audit.Rollback || f.Kind == audit.Uncertified || f.Writer == "": // they say whose it is
	case f.Key == "" || f.Kind == audit.Stale:
		text = fmt.Sprintf("writer %q: %s", f.Writer, text)
	default:
		text = fmt.Sprintf("%q: %s", f.Key, text)
	}
	if f.Deleted {
		text += "; it was deleted"
	}
	switch {
	case f.Needed > len(f.Snapshots):
		last := len(f.Snapshots) - 1
		text += fmt.Sprintf("; needed by %s snapshots: %s … %s", ui.Count(int64(f.Needed)), strings.Join(f.Snapshots[:last], ", "), f.Snapshots[last])
	case f.Needed > 0:
		text += fmt.Sprintf("; needed by %s: %s", ui.Plural(int64(f.Needed), "snapshot", "snapshots"), strings.Join(f.Snapshots, ", "))
	case f.Pinned:
		text += "; no snapshot needs it, but the writer's next backups count on it"
	}
	return text
}

// uncertifiedErrors are what is wrong with writers that nobody certified.
func (r *auditReport) uncertifiedErrors() []error {
	var all []error
	for _, f := range r.uncertified {
		all = append(all, f.Err)
	}
	return all
}

// flush tells what was kept back: with what is to be done, all that it is about.
func (r *auditReport) flush() {
	for _, f := range r.uncertified {
		r.tell(f)
	}
	r.uncertified = nil
	for _, advice := range r.advice {
		for _, text := range r.texts[advice] {
			r.ui.Warn("%s", text)
		}
		r.ui.Warn("%s", advice)
	}
	r.advice, r.texts = nil, make(map[string][]string)
	r.more()
}

// more says how many findings of a group were not told.
func (r *auditReport) more() {
	for _, group := range slices.Sorted(maps.Keys(r.shown)) {
		if n := r.shown[group] - oneKind; n > 0 && !r.ui.Verbose && !r.ui.JSON {
			r.ui.Warn("%s: %s more; --verbose names them all", group, ui.Count(int64(n)))
		}
	}
	clear(r.shown)
}

func (r *auditReport) progress(p audit.Progress) {
	if !r.due() {
		return
	}
	if p.Writer != "" {
		r.ui.Progress("", "writer %s: asked for %s of %s objects", p.Writer, ui.Count(p.Done.Objects), ui.Count(p.Total.Objects))
		return
	}
	r.ui.Progress("", "read %s of %s, %s of %s objects", ui.Size(p.Done.Bytes), ui.Size(p.Total.Bytes), ui.Count(p.Done.Objects), ui.Count(p.Total.Objects))
}

// due reports whether the progress is to be shown once more.
func (r *auditReport) due() bool {
	now := r.now()
	if now.Sub(r.last) < 200*time.Millisecond {
		return false
	}
	r.last = now
	return true
}

// verdict is how the command ends.
func (r *auditReport) verdict() error {
	if r.code == 0 {
		return nil
	}
	var parts []string
	say := func(one, many string, kinds ...audit.Kind) {
		n := 0
		for _, k := range kinds {
			n += r.kinds[k]
		}
		if n > 0 {
			parts = append(parts, ui.Plural(int64(n), one, many))
		}
	}
	say("thing not trusted", "things not trusted", audit.NotTrusted, audit.Gap, audit.Rollback)
	say("object missing", "objects missing", audit.Missing, audit.Unlisted)
	say("object damaged", "objects damaged", audit.WrongSize, audit.WrongSum, audit.Rotten, audit.Unsteady, audit.Corrupt, audit.Unsupported)
	say("file damaged", "files damaged", fileKind)
	say("thing out of reach", "things out of reach", audit.Unreadable)
	say("set too old", "sets too old", audit.Stale)
	say("impossible time", "impossible times", audit.Clock)
	text := "the store is not as it should be: " + strings.Join(parts, ", ")
	if r.deleted > 0 {
		text += fmt.Sprintf("; %s deleted, which the next backup replaces", ui.Plural(int64(r.deleted), "object was", "objects were"))
	}
	return &exitError{code: r.code, err: errors.New(text)}
}

// fileKind counts damaged files among an audit's findings.
const fileKind audit.Kind = "file"

// file tells what is wrong with a snapshot's metadata, a blob or a file. What is
// there after all, because it is elsewhere, is nothing wrong.
func (r *auditReport) file(f check.Finding) {
	if f.Kind == check.KindBlob && r.lost[f.Key] {
		return // told already
	}
	if !f.Healed {
		r.code = worse(r.code, exitCode(f.Err))
		switch f.Kind {
		case check.KindFile:
			r.kinds[fileKind]++
		case check.KindBlob, check.KindDump:
			r.kinds[audit.Corrupt]++
		}
	}
	if r.ui.JSON {
		var raw []byte
		if !utf8.ValidString(f.Path) {
			raw = []byte(f.Path)
		}
		r.ui.Result(struct {
			Type     string     `json:"message_type"`
			Kind     check.Kind `json:"kind"`
			Writer   string     `json:"writer"`
			Snapshot string     `json:"snapshot"` // "" of a blob
			Key      string     `json:"key"`
			Path     string     `json:"path"`               // bytes that are not UTF-8 are replaced
			Raw      []byte     `json:"path_raw,omitempty"` // then all of them, in base64
			Bytes    int64      `json:"bytes_lost"`
			Healed   bool       `json:"healed"`
			Message  string     `json:"message"`
		}{"damage", f.Kind, f.Snapshot.Writer, f.Snapshot.ID, f.Key, f.Path, raw, f.Bytes, f.Healed, f.Err.Error()})
		return
	}
	group, text := string(f.Kind), fmt.Sprintf("%q: %v", f.Key, f.Err)
	switch {
	case f.Kind == check.KindFile:
		group, text = "files of snapshot "+f.Snapshot.ID, fmt.Sprintf("%s:%s: %s of it are lost: %v", f.Snapshot.ID, ui.Quote(f.Path), ui.Size(f.Bytes), f.Err)
	case f.Kind == check.KindDump:
		text = fmt.Sprintf("snapshot %s: %v", f.Snapshot.ID, f.Err)
	}
	switch {
	case f.Healed && r.ui.Verbose:
		r.ui.Note("%s:%s is read from what a newer backup uploaded", f.Snapshot.ID, ui.Quote(f.Path))
	case !f.Healed && r.room(group):
		r.ui.Warn("%s", text)
	}
}

func (r *auditReport) checking(p check.Progress) {
	if r.due() {
		r.ui.Progress("", "decrypted %s of %s in blobs, %d of %d snapshots", ui.Size(p.Blobs.Bytes), ui.Size(p.AllBlobs.Bytes), p.Snapshots, p.AllSnapshots)
	}
}
