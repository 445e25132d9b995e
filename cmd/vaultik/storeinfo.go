package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) storeCommand() *cli.Command {
	return group("store", "look at the store as a whole",
		&cli.Command{
			Name: "info", Usage: "show the writers, whether they are trusted, and what they store; needs no identity",
			OnUsageError: usageError,
			Flags:        readingFlags(&cli.StringFlag{Name: "writer", Usage: "only the writer `NAME`"}),
			Action:       a.storeInfo,
		})
}

// writerLine is what JSON says of a writer.
type writerLine struct {
	Type      string       `json:"message_type"`
	Writer    string       `json:"writer"`
	Trusted   bool         `json:"trusted"` // the root key certified a signer of it
	Signers   []signerLine `json:"signers"`
	Snapshots int          `json:"snapshots"`
	Forgotten int          `json:"forgotten"`
	Latest    string       `json:"latest"`   // id of the newest snapshot, "" if there is none
	Finished  string       `json:"finished"` // when
	Objects   int64        `json:"objects"`
	Bytes     int64        `json:"bytes"`
	Problems  []string     `json:"problems"`
}

// look is a writer with all that store info shows of it.
type look struct {
	state    *remote.WriterState
	objects  int64
	bytes    int64
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
	names, err := remote.WritersToRead(c.Context, r.store, r.seen, r.url.String())
	if err == nil && len(names) == 0 {
		err = r.noWriter()
	}
	if err != nil {
		return err
	}
	if only := c.String("writer"); only != "" {
		if names, err = pick(names, only); err != nil {
			return err
		}
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

func pick(names []string, only string) ([]string, error) {
	for _, n := range names {
		if n == only {
			return []string{n}, nil
		}
	}
	return nil, fmt.Errorf("the store has no writer %q; it has %q", only, names)
}

// look reads a writer's manifests and adds up what lies in its folders.
func (a *app) look(ctx context.Context, r *reading, writer string) (look, error) {
	state, err := remote.ReadWriter(ctx, r.store, r.root, writer)
	if err != nil {
		return look{}, err
	}
	l := look{state: state, problems: state.Flaws(r.seen, r.url.String(), a.now())}
	for info, err := range r.store.List(ctx, remote.WriterPrefix(writer)) {
		if err != nil {
			return look{}, err
		}
		l.objects++
		l.bytes += info.Size
	}
	return l, nil
}

func (a *app) showStore(r *reading, looks []look) error {
	a.ui.print("Store:     %s", quote(r.url.String()))
	a.ui.print("Root key:  %s", r.root)
	var rows, signers [][]string
	var flaws []error
	var names []string
	for _, l := range looks {
		line := l.line()
		names, flaws = append(names, line.Writer), append(flaws, l.problems...)
		a.ui.result(line)
		for _, s := range line.Signers {
			signers = append(signers, []string{line.Writer, fmt.Sprint(s.N), string(s.Role), fmt.Sprint(uint64(s.From)), s.Key})
		}
		word := "UNTRUSTED"
		if line.Trusted {
			word = "trusted"
		}
		latest := "-"
		if line.Latest != "" {
			latest = line.Latest
		}
		rows = append(rows, []string{line.Writer, word, count(int64(line.Snapshots)), latest, count(l.objects), size(l.bytes)})
	}
	a.ui.print("")
	a.ui.table([]string{"WRITER", "SIGNER", "<SNAPSHOTS", "LATEST", "<OBJECTS", "<STORED"}, rows)
	if a.ui.verbose {
		a.ui.print("")
		a.ui.table([]string{"WRITER", "<SIGNER", "ROLE", "<FROM RUN", "KEY"}, signers)
	}
	if err := r.noneCertified(flaws, names); err != nil {
		return err
	}
	a.tell(r, flaws)
	return r.verdict()
}

func (l look) line() writerLine {
	line := writerLine{
		Type: "writer", Writer: l.state.Writer, Trusted: len(l.state.Signers.Certificates) > 0, Signers: []signerLine{},
		Snapshots: len(l.state.Snapshots), Forgotten: len(l.state.Forgotten),
		Objects: l.objects, Bytes: l.bytes, Problems: []string{},
	}
	line.Signers = signerLines(l.state.Signers, newestRun(l.state)+1)
	for _, p := range l.problems {
		line.Problems = append(line.Problems, p.Error())
	}
	if n := len(l.state.Snapshots); n > 0 {
		m := l.state.Snapshots[n-1].Manifest
		line.Latest = quote(m.Snapshot)
		if t, err := time.Parse(time.RFC3339, m.Finished); err == nil {
			line.Finished = t.Format(time.RFC3339)
		}
	}
	return line
}
