package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/check"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// auditFile, in the state folder, says how far stores were read.
const auditFile = "audit.json"

func (a *app) auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "check that the store still has what its snapshots need; needs an identity for --deep only", ArgsUsage: "[SNAPSHOT…]",
		Description: "Checks signatures and the chain, and that each object that a snapshot needs is\n" +
			"there, in its size and with its checksum as the store recorded it at upload.\n" +
			"That proves the upload, not today's bytes; --read does. A share or an amount\n" +
			"goes on where the last one on this machine ended, until all was read; with\n" +
			"N/T, the T runs together read everything.\n\n" +
			"With an identity, the files that are hurt by what is found are listed; with\n" +
			"--deep, everything is decrypted and every chunk checked.\n\n" +
			"With SNAPSHOT, only the objects of those are looked at.\n" + snapshotNames,
		OnUsageError: usageError,
		Flags: readingFlags(
			&cli.BoolFlag{Name: "quick", Usage: "believe the store's listing, and ask for no object"},
			&cli.GenericFlag{Name: "read", Value: new(readFlag), Usage: "download and hash everything, or a `PART`: 5%, 20GiB, or 3/7 for the third of seven"},
			&cli.BoolFlag{Name: "delete-rotten", Usage: "with --read: delete what is not what its name says, if the next backup uploads it again; " +
				"what could still be read of it is then gone, so restore first what the source has lost"},
			&cli.BoolFlag{Name: "deep", Usage: "decrypt everything, check every chunk and every tree, and list the files that are damaged; needs an identity"},
			&cli.StringSliceFlag{Name: "max-age", Usage: "fail if a set has no snapshot newer than `AGE`, such as 26h; SET=40d, WRITER/SET=8w or SET=off say otherwise for some; may be repeated"},
			&cli.StringFlag{Name: "writer", Usage: "only the writer `NAME`"}),
		Action: a.audit,
	}
}

func (a *app) audit(c *cli.Context) (err error) {
	read := c.Generic("read").(*readFlag)
	if c.Bool("delete-rotten") && !read.set {
		return errors.New("--delete-rotten needs --read: only what was read can be found to be rotten")
	}
	subset, err := read.subset()
	if err != nil {
		return err
	}
	ages, err := parseAges(c.StringSlice("max-age"))
	if err != nil {
		return err
	}
	r, err := a.open(c, c.Bool("deep"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if cached, ok := r.store.(cachedStore); ok { // what it holds is not what is to be looked at
		r.store = cached.store
		if err := cached.Cache.Close(); err != nil {
			return err
		}
	}
	names, err := r.writers(c.Context, c.String("writer"))
	if err != nil {
		return err
	}
	scope := r.url.String()
	if only := c.String("writer"); only != "" {
		scope += " " + only
	}
	o := audit.Options{
		Store: r.store, StoreID: r.url.String(), Root: r.root, Seen: r.seen, Writers: names,
		Sums: !c.Bool("quick"), MaxAge: ages.of, Now: a.now,
	}
	var some []fs.Snapshot
	if c.Args().Present() {
		if some, err = a.chosen(c, r); err != nil {
			return err
		}
		o.Only = make(map[string][]remote.Seq)
		for _, s := range some {
			o.Only[s.Writer] = append(o.Only[s.Writer], s.Seq)
		}
	}
	if read.set {
		o.Read = &audit.Read{Subset: subset, Delete: c.Bool("delete-rotten")}
	}
	if err := a.remember(r, &o, scope); err != nil {
		return err
	}
	report := newAuditReport(a.ui, a.now)
	o.Report, o.Progress = report.found, report.progress
	result, err := audit.Run(c.Context, o)
	if err != nil {
		report.flush()
		return err
	}
	if err := r.noneCertified(report.uncertifiedErrors(), names); err != nil {
		return err
	}
	if o.Only == nil && c.String("writer") == "" {
		for _, f := range ages.idle() {
			report.tell(f)
		}
	}
	report.flush()
	if r.id == nil && len(report.lost) > 0 {
		a.ui.Warn("which files are hurt, \"vaultik audit --identity KIT\" tells")
	}
	if r.id != nil && (c.Bool("deep") || len(report.lost) > 0) {
		if err := a.auditFiles(c, r, report, names, some); err != nil {
			return err
		}
	}
	report.summary(result, o)
	return report.verdict()
}

// remember lets an audit go on reading where the last one ended. Some snapshots
// have no rotation of their own.
func (a *app) remember(r *reading, o *audit.Options, scope string) (err error) {
	if o.Only != nil {
		if o.Read != nil && (o.Read.Subset.Percent > 0 || o.Read.Subset.Bytes > 0) {
			return errors.New("--read: of some snapshots everything is read, or a slice as in --read=3/7; leave the share or the snapshots out")
		}
		return nil
	}
	if err := state.MakePrivate(r.where.State); err != nil {
		if o.Read != nil {
			a.ui.Warn("what is read cannot be remembered: %v", err)
		}
		return nil
	}
	o.Scope = scope
	o.Memory, err = audit.OpenMemory(filepath.Join(r.where.State, auditFile))
	return err
}

// chosen are the snapshots that the words name.
func (a *app) chosen(c *cli.Context, r *reading) (some []fs.Snapshot, err error) {
	catalog, err := a.quietCatalog(c.Context, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()
	for _, word := range c.Args().Slice() {
		s, err := catalog.Resolve(word, r.own)
		if err != nil {
			return nil, err
		}
		if w := c.String("writer"); w != "" && w != s.Writer {
			return nil, fmt.Errorf("%q is a snapshot of writer %q, not of %q", word, s.Writer, w)
		}
		if !slices.ContainsFunc(some, func(t fs.Snapshot) bool { return t.Hash == s.Hash }) {
			some = append(some, s)
		}
	}
	return some, nil
}

// quietCatalog reads the store's snapshots, and leaves it to the audit to say
// what is wrong with it.
func (a *app) quietCatalog(ctx context.Context, r *reading) (*fs.Catalog, error) {
	catalog, err := r.newCatalog(nil)
	if err != nil {
		return nil, err
	}
	if _, err := catalog.Refresh(ctx); err != nil && len(catalog.Snapshots()) == 0 {
		return nil, errors.Join(err, catalog.Close())
	}
	return catalog, nil
}

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
