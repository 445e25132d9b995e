package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) snapshotCommand() *cli.Command {
	create := a.backupCommand()
	create.Name, create.Usage = "create", "the same as \"vaultik backup\""
	verify := a.auditCommand()
	verify.Name, verify.Usage = "verify", "the same as \"vaultik audit\""
	return group("snapshot", "list, show, create, verify or forget snapshots",
		&cli.Command{
			Name: "list", Usage: "list the snapshots that are trusted; needs no identity", OnUsageError: usageError,
			Flags: readingFlags(
				&cli.StringFlag{Name: "writer", Usage: "only those of the writer `NAME`"},
				&cli.StringFlag{Name: "set", Usage: "only those of the set `NAME`"},
				&cli.StringSliceFlag{Name: "tag", Usage: "only those with the tag `TEXT`; of several, with all of them"}),
			Action: a.snapshotList,
		},
		&cli.Command{
			Name: "show", Usage: "show what a signed manifest says; needs no identity", ArgsUsage: "SNAPSHOT",
			Description:  snapshotNames + "\n\nWith an identity also what only the encrypted metadata say: host, paths and excludes.",
			OnUsageError: usageError, Flags: readingFlags(), Action: a.snapshotShow,
		},
		create,
		verify,
		a.purgeCommand(),
	)
}

const snapshotNames = "SNAPSHOT is an id or the beginning of one, latest, SET@latest, or one of these\n" +
	"behind WRITER/."

// snapshotLine is what JSON says of a snapshot.
type snapshotLine struct {
	Type     string      `json:"message_type"`
	Snapshot string      `json:"snapshot"`
	Writer   string      `json:"writer"`
	Set      string      `json:"set"`
	Tags     []string    `json:"tags"`
	Seq      remote.Seq  `json:"seq"`
	Started  string      `json:"started"`
	Finished string      `json:"finished"`
	Files    int64       `json:"files"`
	Bytes    int64       `json:"bytes"`
	New      int64       `json:"bytes_new"`
	Stored   int64       `json:"bytes_stored"`
	Manifest remote.Hash `json:"manifest"` // SHA-256 of the manifest's object
}

func lineOf(s fs.Snapshot) snapshotLine {
	t := s.Manifest.Totals
	return snapshotLine{
		"snapshot", s.ID, s.Writer, s.Set, s.Manifest.Tags, s.Seq, s.Started.Format(time.RFC3339), s.Finished.Format(time.RFC3339),
		t.Files, t.Bytes, t.NewBytes, t.StoredBytes, s.Hash,
	}
}

func (a *app) snapshotList(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()

	all, err := choose(catalog, c.String("writer"), c.String("set"))
	if err != nil {
		return err
	}
	tags := c.StringSlice("tag")
	all = slices.DeleteFunc(all, func(s fs.Snapshot) bool { return !hasAll(s.Manifest.Tags, tags) })
	if len(all) == 0 {
		a.ui.Print("no snapshots")
		return r.verdict()
	}
	var rows [][]string
	header := []string{"SNAPSHOT", "SET", "FINISHED", "<ENTRIES", "<SIZE", "<NEW", "<STORED"}
	tagged := slices.ContainsFunc(all, func(s fs.Snapshot) bool { return len(s.Manifest.Tags) > 0 })
	if tagged {
		header = append(header, "TAGS")
	}
	for _, s := range all {
		a.ui.Result(lineOf(s))
		t := s.Manifest.Totals
		row := []string{s.ID, s.Set, ui.When(s.Finished), ui.Count(t.Files), ui.Size(t.Bytes), ui.Size(t.NewBytes), ui.Size(t.StoredBytes)}
		if tagged {
			row = append(row, ui.QuoteAll(s.Manifest.Tags))
		}
		rows = append(rows, row)
	}
	a.ui.Table(header, rows)
	return r.verdict()
}

// hasAll reports whether a snapshot's tags hold all of some.
func hasAll(tags, want []string) bool {
	return !slices.ContainsFunc(want, func(t string) bool { return !slices.Contains(tags, t) })
}

// choose are the snapshots of one writer and one set, where these are not "".
// Names that are nobody's are errors, which list the choices.
func choose(c *fs.Catalog, writer, set string) ([]fs.Snapshot, error) {
	all := c.Snapshots()
	if writer != "" {
		if _, err := pick(c.Writers(), writer); err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(s fs.Snapshot) bool { return s.Writer != writer })
		for _, err := range c.Problems() {
			if u := (*remote.Uncertified)(nil); errors.As(err, &u) && u.Writer == writer {
				return nil, err
			}
		}
	}
	if set == "" || len(all) == 0 {
		return all, nil
	}
	sets := make(map[string]bool)
	for _, s := range all {
		sets[s.Set] = true
	}
	if !sets[set] {
		return nil, fmt.Errorf("there is no snapshot of a set %q; there are some of %s", set, ui.QuoteAll(slices.Sorted(maps.Keys(sets))))
	}
	return slices.DeleteFunc(all, func(s fs.Snapshot) bool { return s.Set != set }), nil
}

func (a *app) snapshotShow(c *cli.Context) (err error) {
	if err := words(c, 1, 1); err != nil {
		return err
	}
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	catalog, err := a.catalog(c.Context, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, catalog.Close()) }()
	s, err := catalog.Resolve(c.Args().First(), r.own)
	if err != nil {
		return err
	}
	sealed, err := a.unseal(c.Context, r, catalog, s)
	if err != nil {
		return err
	}
	m := s.Manifest
	a.ui.Result(struct {
		snapshotLine
		Previous   *remote.Hash      `json:"previous"`
		Version    string            `json:"version"`
		NewFiles   int64             `json:"files_new"`
		Rows       remote.Rows       `json:"rows"`
		Dumps      []remote.DumpPart `json:"dumps"`
		Recipients []string          `json:"recipients"`
		Parameters remote.Parameters `json:"parameters"`
		*sealedLine
	}{lineOf(s), m.Previous, m.Version, m.Totals.NewFiles, m.Rows, m.Dumps, m.Recipients, m.Parameters, sealed})

	previous := "none, it is the first"
	if m.Previous != nil {
		previous = m.Previous.String()
	}
	var dumped int64
	for _, d := range m.Dumps {
		dumped += d.Size
	}
	for _, l := range [][2]string{
		{"Snapshot", s.ID},
		{"Writer", s.Writer},
		{"Set", s.Set},
		{"Run", fmt.Sprint(uint64(s.Seq))},
		{"Started", ui.When(s.Started)},
		{"Finished", fmt.Sprintf("%s, after %s", ui.When(s.Finished), s.Finished.Sub(s.Started))},
		{"Vaultik", ui.Quote(m.Version)},
		{"Content", fmt.Sprintf("%s in %s", ui.Size(m.Totals.Bytes), ui.Plural(m.Totals.Files, "entry", "entries"))},
		{"New", fmt.Sprintf("%s in %s", ui.Size(m.Totals.NewBytes), ui.Plural(m.Totals.NewFiles, "entry", "entries"))},
		{"Stored", ui.Size(m.Totals.StoredBytes) + " of blobs"},
		{"Dump", fmt.Sprintf("%s in %s", ui.Size(dumped), ui.Plural(int64(len(m.Dumps)), "part", "parts"))},
		{"Blobs", ui.Count(m.Rows.Blobs)},
		{"Recipients", strings.Join(short(m.Recipients), " ")},
		{"Manifest", s.Hash.String()},
		{"Previous", previous},
	} {
		a.ui.Print("%-11s %s", l[0]+":", l[1])
	}
	for _, tag := range m.Tags {
		a.ui.Print("%-11s %s", "Tag:", ui.Quote(tag))
	}
	if sealed == nil {
		return nil
	}
	a.ui.Print("%-11s %s", "Host:", ui.Quote(sealed.Hostname))
	for _, l := range []struct {
		name  string
		items []string
	}{{"Path", sealed.Paths}, {"Exclude", sealed.Excludes}} {
		for _, item := range l.items {
			a.ui.Print("%-11s %s", l.name+":", ui.Quote(item))
		}
	}
	return nil
}

// sealedLine is what only a snapshot's encrypted metadata say of it.
type sealedLine struct {
	Hostname string   `json:"hostname"`
	Paths    []string `json:"paths"`
	Excludes []string `json:"excludes"`
}

// unseal reads it if an identity was given; without one it is nil.
func (a *app) unseal(ctx context.Context, r *reading, c *fs.Catalog, s fs.Snapshot) (_ *sealedLine, err error) {
	if r.id == nil {
		return nil, nil
	}
	if err := r.id.Check(s); err != nil {
		return nil, err
	}
	a.ui.Progress("", "loading the metadata of %s", s.ID)
	tree, err := c.OpenSnapshot(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	m := tree.Snapshot()
	list := func(items []string) []string { return append([]string{}, items...) } // JSON's [], not null
	return &sealedLine{m.Hostname, list(m.Roots), list(m.Excludes)}, nil
}

// short cuts fingerprints to what a person compares.
func short(prints []string) []string {
	out := make([]string, len(prints))
	for i, p := range prints {
		out[i] = p[:min(len(p), 16)]
	}
	return out
}
