package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) snapshotCommand() *cli.Command {
	create := a.backupCommand()
	create.Name, create.Usage = "create", "the same as \"vaultik backup\""
	return group("snapshot", "list, show or create snapshots",
		&cli.Command{
			Name: "list", Usage: "list the snapshots that are trusted; needs no identity", OnUsageError: usageError,
			Flags: readingFlags(
				&cli.StringFlag{Name: "writer", Usage: "only those of the writer `NAME`"},
				&cli.StringFlag{Name: "set", Usage: "only those of the set `NAME`"}),
			Action: a.snapshotList,
		},
		&cli.Command{
			Name: "show", Usage: "show what a signed manifest says; needs no identity", ArgsUsage: "SNAPSHOT",
			Description:  snapshotNames,
			OnUsageError: usageError, Flags: readingFlags(), Action: a.snapshotShow,
		},
		create,
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
		"snapshot", s.ID, s.Writer, s.Set, s.Seq, s.Started.Format(time.RFC3339), s.Finished.Format(time.RFC3339),
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

	all := catalog.Snapshots()
	if w := c.String("writer"); w != "" && !slices.ContainsFunc(all, func(s fs.Snapshot) bool { return s.Writer == w }) {
		return fmt.Errorf("no snapshot of a writer %q is there that is trusted; \"vaultik store info\" shows the writers", w)
	}
	all = slices.DeleteFunc(all, func(s fs.Snapshot) bool {
		return c.String("writer") != "" && s.Writer != c.String("writer") || c.String("set") != "" && s.Set != c.String("set")
	})
	if len(all) == 0 {
		a.ui.print("no snapshots")
		return nil
	}
	var rows [][]string
	for _, s := range all {
		a.ui.result(lineOf(s))
		t := s.Manifest.Totals
		rows = append(rows, []string{s.ID, s.Set, when(s.Finished), count(t.Files), size(t.Bytes), size(t.NewBytes), size(t.StoredBytes)})
	}
	a.ui.table([]string{"SNAPSHOT", "SET", "FINISHED", "<FILES", "<SIZE", "<NEW", "<STORED"}, rows)
	return nil
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
	m := s.Manifest
	a.ui.result(struct {
		snapshotLine
		Previous   *remote.Hash      `json:"previous"`
		Version    string            `json:"version"`
		NewFiles   int64             `json:"files_new"`
		Rows       remote.Rows       `json:"rows"`
		Dumps      []remote.DumpPart `json:"dumps"`
		Recipients []string          `json:"recipients"`
		Parameters remote.Parameters `json:"parameters"`
	}{lineOf(s), m.Previous, m.Version, m.Totals.NewFiles, m.Rows, m.Dumps, m.Recipients, m.Parameters})

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
		{"Started", when(s.Started)},
		{"Finished", fmt.Sprintf("%s, after %s", when(s.Finished), s.Finished.Sub(s.Started))},
		{"Vaultik", quote(m.Version)},
		{"Content", fmt.Sprintf("%s in %s", size(m.Totals.Bytes), plural(m.Totals.Files, "entry", "entries"))},
		{"New", fmt.Sprintf("%s in %s", size(m.Totals.NewBytes), plural(m.Totals.NewFiles, "entry", "entries"))},
		{"Stored", size(m.Totals.StoredBytes) + " of blobs"},
		{"Dump", fmt.Sprintf("%s in %s", size(dumped), plural(int64(len(m.Dumps)), "part", "parts"))},
		{"Blobs", count(m.Rows.Blobs)},
		{"Recipients", strings.Join(short(m.Recipients), " ")},
		{"Manifest", s.Hash.String()},
		{"Previous", previous},
	} {
		a.ui.print("%-11s %s", l[0]+":", l[1])
	}
	return nil
}

// short cuts fingerprints to what a person compares.
func short(prints []string) []string {
	out := make([]string, len(prints))
	for i, p := range prints {
		out[i] = p[:min(len(p), 16)]
	}
	return out
}
