package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/check"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// fileKind counts damaged files among an audit's findings.
const fileKind audit.Kind = "file"

// auditFiles says which files are hurt: with --deep by everything that can be
// wrong with what the snapshots need, otherwise by the blobs that were found to
// be lost, of which none is read. some are the snapshots that are looked at, nil
// for all of these writers.
func (a *app) auditFiles(c *cli.Context, r *reading, report *auditReport, writers []string, some []fs.Snapshot) (err error) {
	catalog, err := a.quietCatalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()
	if some == nil {
		some = slices.DeleteFunc(catalog.Snapshots(), func(s fs.Snapshot) bool { return !slices.Contains(writers, s.Writer) })
	}
	if err := r.id.Check(some...); err != nil {
		return err
	}
	o := check.Options{Catalog: catalog, Snapshots: some, Report: report.file, Progress: report.checking}
	var result check.Result
	if c.Bool("deep") {
		result, err = check.Run(c.Context, o)
		report.files = append(report.files, fmt.Sprintf("decrypted and checked: %s in %s, %s, and the metadata of %s",
			ui.Plural(result.Chunks.Count, "chunk", "chunks"), ui.Plural(result.Blobs.Count, "blob", "blobs"), ui.Size(result.Chunks.Bytes), ui.Plural(int64(result.Snapshots), "snapshot", "snapshots")))
	} else {
		result, err = check.Damaged(c.Context, o, slices.Sorted(maps.Keys(report.lost)))
	}
	report.more()
	report.files = append(report.files, damage(result.Damaged, result.Healed))
	return err
}

// damage says how many files are damaged, and how many are not because of a
// newer backup.
func damage(damaged, healed int64) string {
	text := "no file is damaged"
	if damaged > 0 {
		text = "files damaged, as often as snapshots show them: " + ui.Count(damaged)
	}
	if healed > 0 {
		text += fmt.Sprintf("; %s that were are whole again, because a newer backup uploaded what was lost", ui.Count(healed))
	}
	return text
}

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
