package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// parseRuns reads "7" or "7-9".
func parseRuns(text string) (from, to remote.Seq, err error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	var both [2]remote.Seq
	for i, s := range []string{first, last} {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < 1 || remote.Seq(n) > remote.MaxSeq {
			return 0, 0, fmt.Errorf("--missing %q is not the number of a run, such as 7, or two, such as 7-9", text)
		}
		both[i] = remote.Seq(n)
	}
	return both[0], both[1], nil
}

// closeGap declares manifests of one writer lost.
func (p *purge) closeGap(c *cli.Context, writers []string, runs string) error {
	from, to, err := parseRuns(runs)
	if err != nil {
		return err
	}
	if len(writers) != 1 {
		return fmt.Errorf("--missing is about one writer; add --writer NAME, one of %s", ui.QuoteAll(writers))
	}
	state, err := remote.ReadChain(c.Context, p.r.store, p.r.root, writers[0])
	if err != nil {
		return fmt.Errorf("writer %q: %w", writers[0], err)
	}
	p.ui.Done()
	for _, err := range state.Flaws(p.r.seen, p.r.url.String(), p.now()) {
		if !errors.As(err, new(*remote.Problem)) && errors.Is(err, remote.ErrNotTrusted) {
			return err // the store shows something else than it did before
		}
		p.ui.Warn("%v", err)
	}
	stones, err := state.Lost(from, to, p.now())
	if err != nil {
		return err
	}
	for _, t := range stones {
		how := "its hash is known from the run after it"
		if t.Manifest == remote.LostHash(t.Writer, t.Seq) {
			how = "nobody knows its hash any more"
		}
		p.ui.Print("run %d of %s: no manifest, no tombstone; %s", uint64(t.Seq), t.Writer, how)
	}
	if len(stones) == 0 {
		p.ui.Say("nothing is missing there: all of these runs were forgotten")
		return nil
	}
	if p.dry {
		p.ui.Say("%s would be declared lost", ui.Plural(int64(len(stones)), "snapshot", "snapshots"))
		return nil
	}
	if err := p.mayBury(state.Signers, stones); err != nil {
		return err
	}
	question := fmt.Sprintf("declare %s lost for good? (a copy of the store may have them)", ui.Plural(int64(len(stones)), "snapshot", "snapshots"))
	if ok, err := p.ask(c, question); err != nil || !ok {
		return err
	}
	signers, err := p.certified(c.Context, state.Writer, state.Signers)
	if err != nil {
		return err
	}
	if err := remote.Bury(c.Context, p.r.store, signers, stones, p.key.SigningKey); err != nil {
		return err
	}
	for _, t := range stones {
		p.ui.Result(struct {
			Type   string     `json:"message_type"`
			Writer string     `json:"writer"`
			Seq    remote.Seq `json:"seq"`
		}{"lost", t.Writer, t.Seq})
	}
	p.ui.Say("%s declared lost; what else is wrong with writer %s, \"vaultik store info\" says", ui.Plural(int64(len(stones)), "snapshot", "snapshots"), state.Writer)
	return nil
}
