package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/backup"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up all sets of the config, or those named", ArgsUsage: "[SET…]",
		OnUsageError: usageError,
		Description: "The options about leaving out add to what the config says, for this run only: what a\n" +
			"run leaves out is gone from the set, and the next run without the option stores it anew.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "tag", Usage: "keep `TEXT` with the snapshot, readable by whoever can read the store; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude", Aliases: []string{"e"}, Usage: "leave out what matches `PATTERN` (gitignore syntax); may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-file", Usage: "patterns from `FILE`; may be repeated"},
			&cli.StringSliceFlag{Name: "exclude-if-present", Usage: "leave out what is in folders that hold an entry `NAME`, but not the folder itself and that entry; may be repeated"},
			&cli.StringFlag{Name: "exclude-larger-than", Usage: "leave out files of more than `SIZE`, such as 100MiB"},
			&cli.BoolFlag{Name: "exclude-caches", Usage: "leave out what is in folders marked by a CACHEDIR.TAG"},
			&cli.BoolFlag{Name: "one-file-system", Aliases: []string{"x"}, Usage: "leave out what is mounted below the paths"},
			&cli.StringFlag{Name: "compression", Usage: "compress as `LEVEL`: fastest, default, better, max or off (default: the config's compression)"},
			&cli.StringFlag{Name: "limit-upload", Usage: "upload no faster than `RATE`, such as 500kB/s or 5MiB/s (default: the config's limit_upload)"},
			&cli.BoolFlag{Name: "cron", Usage: "print nothing unless something is wrong"},
		},
		Action: a.backup,
	}
}

func (a *app) backup(c *cli.Context) (err error) {
	if c.Bool("cron") {
		a.ui.Quiet = true
	}
	defer collectOften()()
	w, err := a.openWriter(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	worst := 0
	for _, set := range w.sets {
		err := a.backupSet(c, w, set)
		if err != nil && c.Context.Err() != nil {
			return fmt.Errorf("set %s was not finished; what was uploaded is kept, and the next run goes on from there", set.Name)
		}
		code := exitCode(err)
		if err != nil && !errors.Is(err, errIncomplete) {
			if len(w.sets) > 1 {
				err = fmt.Errorf("backup of %s: %w", set.Name, err)
			}
			a.ui.Fail(err, code)
		}
		worst = worse(worst, code)
	}
	if worst != 0 {
		return &exitError{code: worst}
	}
	return nil
}

// backupSet makes one snapshot and says what came of it.
func (a *app) backupSet(c *cli.Context, w *writing, set backup.Set) error {
	watch := &watcher{ui: a.ui, set: set.Name, now: a.now}
	conf := w.config
	if set.Name != w.sets[0].Name { // since the set before, a new key may have come into charge
		var err error
		if conf.Signer, err = a.signer(c.Context, w, conf.Store, conf.Index); err != nil {
			return err
		}
	}
	conf.Report = watch.report
	r, err := backup.Run(c.Context, conf, set)
	a.ui.Done()
	if err != nil {
		return err
	}
	if c.Bool("cron") {
		if !r.Incomplete() {
			return nil
		}
		a.ui.Quiet = false // what was saved belongs to what went wrong
		defer func() { a.ui.Quiet = true }()
	}
	a.summary(r)
	if r.Incomplete() {
		return errIncomplete
	}
	return nil
}

// summary says what a run did.
func (a *app) summary(r *backup.Result) {
	took := r.Finished.Sub(r.Started)
	a.ui.Result(struct {
		Type      string      `json:"message_type"`
		Snapshot  string      `json:"snapshot"`
		Set       string      `json:"set"`
		Seq       remote.Seq  `json:"seq"`
		Manifest  remote.Hash `json:"manifest"`
		Files     int64       `json:"files"`
		Changed   int64       `json:"changed"`
		Removed   int64       `json:"removed"`
		Bytes     int64       `json:"bytes"`
		BytesRead int64       `json:"bytes_read"`
		BytesNew  int64       `json:"bytes_new"`
		Stored    int64       `json:"bytes_stored"`
		Metadata  int64       `json:"bytes_metadata"`
		Blobs     int         `json:"blobs"`
		Forgotten int         `json:"forgotten"`     // purged snapshots that the run learnt of
		Retired   int         `json:"retired_blobs"` // mostly dead ones, to be pruned
		Moved     int64       `json:"bytes_moved"`   // read again and uploaded anew to that end, or for new recipients
		Former    int64       `json:"bytes_former"`  // of blobs that only former recipients can read
		Missed    int64       `json:"unreadable"`
		Complete  bool        `json:"complete"`
		Started   string      `json:"started"`
		Finished  string      `json:"finished"`
		Seconds   float64     `json:"seconds"`
	}{
		"summary", r.Snapshot, r.Set, r.Seq, r.Manifest, r.Entries, r.Changed, r.Removed, r.Bytes, r.Read, r.NewBytes, r.Stored, r.Metadata,
		r.Blobs, r.Forgotten, r.Retired, r.Moved, r.Former, r.Missed, !r.Incomplete(), r.Started.UTC().Format(time.RFC3339), r.Finished.UTC().Format(time.RFC3339), took.Seconds(),
	})
	a.ui.Say("set %s: %s, %s; %s new or changed, %s gone", r.Set,
		ui.Plural(r.Entries, "entry", "entries"), ui.Size(r.Bytes), ui.Count(r.Changed), ui.Count(r.Removed))
	a.ui.Say("read %s, %s of it new; stored %s in %s, and %s of metadata, in %s",
		ui.Size(r.Read), ui.Size(r.NewBytes), ui.Size(r.Stored), ui.Plural(int64(r.Blobs), "blob", "blobs"), ui.Size(r.Metadata), ui.Duration(took))
	for _, set := range r.Closed {
		a.ui.Say("set %s is closed: all of its snapshots were purged", set)
	}
	if r.Retired > 0 {
		a.ui.Say("retired %s of %s, mostly unused", ui.Plural(int64(r.Retired), "blob", "blobs"), ui.Size(r.RetiredBytes))
	}
	if r.Moved > 0 {
		a.ui.Say("moved %s of what was stored to new blobs", ui.Size(r.Moved))
	}
	if r.Former > 0 {
		a.ui.Note("%s of what this snapshot needs can be read by the former recipients only; the next runs upload it anew, as reseal_per_run says", ui.Size(r.Former))
	}
	if r.Missed > 0 {
		a.ui.Say("snapshot %s saved, but %s could not be read", r.Snapshot, ui.Plural(r.Missed, "source", "sources"))
		return
	}
	a.ui.Say("snapshot %s saved", r.Snapshot)
}

// watcher passes on the news of a run: problems at once, progress five times
// a second on a terminal, once a second as JSON.
type watcher struct {
	ui  *ui.Printer
	set string
	now func() time.Time

	mu   sync.Mutex
	last time.Time
	path string // the last one that was looked at
}

func (w *watcher) report(e backup.Event) {
	if e.Problem != nil {
		w.problem(*e.Problem)
		return
	}
	every := 200 * time.Millisecond
	if w.ui.JSON {
		every = time.Second
	}
	p := e.Progress
	w.mu.Lock()
	if p.Path == "" {
		p.Path = w.path // uploads know none
	}
	w.path = p.Path
	now := w.now()
	due := now.Sub(w.last) >= every
	if due {
		w.last = now
	}
	w.mu.Unlock()
	if !due {
		return
	}
	if w.ui.JSON && !w.ui.Quiet {
		w.ui.Result(struct {
			Type    string `json:"message_type"`
			Set     string `json:"set"`
			Files   int64  `json:"files"`
			Changed int64  `json:"changed"`
			Read    int64  `json:"bytes_read"`
			New     int64  `json:"bytes_new"`
			Stored  int64  `json:"bytes_stored"`
		}{"status", w.set, p.Seen, p.Changed, p.Read, p.NewBytes, p.Stored})
		return
	}
	w.ui.Progress(p.Path, "%s: %s entries, %s changed, read %s, stored %s",
		w.set, ui.Count(p.Seen), ui.Count(p.Changed), ui.Size(p.Read), ui.Size(p.Stored))
}

// problem tells one: what is missing always, the rest unless --quiet, and
// files that went away with --verbose only.
func (w *watcher) problem(p backup.Problem) {
	missing := p.Kind == backup.Unreadable || p.Kind == backup.Lost
	if w.ui.JSON {
		var raw []byte
		if !utf8.ValidString(p.Path) {
			raw = []byte(p.Path)
		}
		w.ui.Result(struct {
			Type    string             `json:"message_type"`
			Set     string             `json:"set"`
			Kind    backup.ProblemKind `json:"kind"`
			Path    string             `json:"path"`               // bytes that are not UTF-8 are replaced
			Raw     []byte             `json:"path_raw,omitempty"` // then all of them, in base64
			Message string             `json:"message"`
		}{"problem", w.set, p.Kind, p.Path, raw, p.Err.Error()})
		return
	}
	text := p.Err.Error()
	if p.Path != "" {
		text = fmt.Sprintf("%s: %s: %v", p.Kind, ui.Quote(p.Path), p.Err)
	}
	if missing {
		w.ui.Warn("%s", text)
	} else if p.Kind != backup.Vanished || w.ui.Verbose { // temporary files come and go all the time
		w.ui.Note("%s", text)
	}
}
