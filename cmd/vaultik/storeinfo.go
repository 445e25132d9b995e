package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func (a *app) storeCommand() *cli.Command {
	return group("store", "look at the store as a whole",
		&cli.Command{
			Name: "info", Usage: "show the writers, their sets and keys, what they store and who can read it; needs no identity",
			OnUsageError: usageError,
			Flags:        readingFlags(&cli.StringFlag{Name: "writer", Usage: "only the writer `NAME`"}),
			Action:       a.storeInfo,
		},
		a.renewCommand())
}

// look is a writer with all that store info shows of it.
type look struct {
	state    *remote.WriterState
	signers  []signing.Line
	kinds    kindsLine
	problems []error
}

func (a *app) storeInfo(c *cli.Context) (err error) {
	if err := words(c, 0, 0); err != nil {
		return err
	}
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	names, err := r.writers(c.Context, c.String("writer"))
	if err != nil {
		return err
	}
	looks := make([]look, len(names))
	g, ctx := errgroup.WithContext(c.Context)
	g.SetLimit(4) // each of them fetches in parallel as well
	for i, name := range names {
		g.Go(func() (err error) {
			looks[i], err = a.look(ctx, r, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return a.showStore(r, looks)
}

// look reads a writer's manifests and adds up what lies in its folders.
func (a *app) look(ctx context.Context, r *reading, writer string) (look, error) {
	var l look
	state, err := remote.SurveyChain(ctx, r.store, r.root, writer, l.kinds.add)
	if err != nil {
		return look{}, err
	}
	l.state, l.problems = state, state.Flaws(r.seen, r.url.String(), a.now())
	l.signers = signing.Lines(state.Signers, signing.NewestRun(state)+1)
	if err := signing.NameKeys(ctx, r.store, writer, l.signers); err != nil {
		return look{}, err
	}
	if writer == r.own {
		if err := signing.MarkOwn(l.signers, filepath.Join(r.where.State, writer)); err != nil {
			a.ui.Warn("this machine's own signing key: %v", err)
		}
	}
	if len(state.Signers.Certificates) > 0 {
		return l, nil // all of it was listed
	}
	for info, err := range r.store.List(ctx, remote.WriterPrefix(writer)) {
		if err != nil {
			return look{}, err
		}
		l.kinds.add(info)
	}
	return l, nil
}

func (a *app) showStore(r *reading, looks []look) error {
	a.ui.Print("Store:     %s", ui.Quote(r.url.String()))
	a.ui.Print("Root key:  %s", r.root)
	var rows, sets, recipients, signers [][]string
	var flaws []error
	var names []string
	yours := r.yours()
	for _, l := range looks {
		line := l.line(yours)
		names, flaws = append(names, line.Writer), append(flaws, l.problems...)
		a.ui.Result(line)
		word := "UNTRUSTED"
		if line.Trusted {
			word = "trusted"
		}
		latest := "-"
		if line.Latest != "" {
			latest = line.Latest
		}
		k := line.Kinds
		rows = append(rows, []string{line.Writer, word, ui.Count(int64(line.Snapshots)), latest, ui.Count(line.Objects), ui.Size(line.Bytes), ui.Size(k.Blobs.Bytes), ui.Size(k.Metadata.Bytes)})
		for _, s := range line.Sets {
			sets = append(sets, []string{line.Writer, s.Set, ui.Count(int64(s.Snapshots)), s.Latest, strings.Replace(s.Finished, "T", " ", 1), ui.Count(s.Files), ui.Size(s.Bytes)})
		}
		for _, p := range line.Recipients {
			reads := fmt.Sprintf("%s of %s", ui.Count(int64(p.Snapshots)), ui.Count(int64(line.Snapshots)))
			recipients = append(recipients, []string{line.Writer, short([]string{p.Fingerprint})[0], reads, p.whose()})
		}
		for _, s := range line.Signers {
			signers = append(signers, []string{line.Writer, fmt.Sprint(s.N), s.Runs(), s.Describe(), s.Key})
		}
	}
	for _, t := range []struct {
		header []string
		rows   [][]string
	}{
		{[]string{"WRITER", "SIGNER", "<SNAPSHOTS", "LATEST", "<OBJECTS", "<STORED", "<BLOBS", "<METADATA"}, rows},
		{[]string{"WRITER", "SET", "<SNAPSHOTS", "LATEST", "FINISHED", "<ENTRIES", "<SIZE"}, sets},
		{[]string{"WRITER", "RECIPIENT", "<READS", "WHOSE"}, recipients},
		{[]string{"WRITER", "<SIGNER", "<RUNS", "STATE", "KEY"}, signers},
	} {
		if len(t.rows) > 0 {
			a.ui.Print("")
			a.ui.Table(t.header, t.rows)
		}
	}
	if err := r.noneCertified(flaws, names); err != nil {
		return err
	}
	for _, l := range looks {
		a.tellUnreadable(r, l.state)
	}
	a.tell(r, flaws)
	return r.verdict()
}

// yours are the fingerprints of the recipients that this machine knows: the
// config's, and that of the identity if one was given.
func (r *reading) yours() map[string][]string {
	yours := make(map[string][]string)
	if r.conf != nil {
		for _, recipient := range r.conf.PublicKeys() {
			print := seal.Fingerprint(recipient)
			yours[print] = append(yours[print], "config")
		}
	}
	if r.id != nil {
		for _, print := range r.id.Fingerprints() {
			yours[print] = append(yours[print], "identity")
		}
	}
	return yours
}

func (p recipientLine) whose() string {
	if len(p.Yours) == 0 {
		return "not known here"
	}
	return "yours (" + strings.Join(p.Yours, ", ") + ")"
}

// tellUnreadable notes if a recipient of the config cannot read all snapshots
// of this machine: those from before it was added.
func (a *app) tellUnreadable(r *reading, w *remote.WriterState) {
	if r.conf == nil || w.Writer != r.own {
		return
	}
	for _, recipient := range r.conf.PublicKeys() {
		print := seal.Fingerprint(recipient)
		closed, newest := 0, ""
		for _, s := range w.Snapshots {
			if !slices.Contains(s.Manifest.Recipients, print) {
				closed++
				newest = s.Manifest.Snapshot
			}
		}
		if closed > 0 {
			a.ui.Note("the recipient %s of the config cannot read %s of writer %s, the newest of them %s: they were made before it was added",
				short([]string{print})[0], ui.Plural(int64(closed), "snapshot", "snapshots"), w.Writer, ui.Quote(newest))
		}
	}
}
