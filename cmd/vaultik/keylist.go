package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/signing"
	"git.eeqj.de/sneak/vaultik/remote"
)

func (a *app) keyList(c *cli.Context) (err error) {
	r, err := a.open(c, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := r.writers(c.Context, "")
	if err != nil {
		return err
	}
	names := c.Args().Slice()
	for _, name := range names {
		if _, err := pick(all, name); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		names = all
	}
	var rows [][]string
	for _, name := range names {
		lines, problems, err := a.signersOf(c.Context, r, name)
		if err != nil {
			return err
		}
		a.ui.Result(struct {
			Type    string         `json:"message_type"`
			Writer  string         `json:"writer"`
			Signers []signing.Line `json:"signers"`
		}{"signers", name, lines})
		for _, l := range lines {
			role := string(l.Role)
			if role == "" {
				role = "-"
			}
			rows = append(rows, []string{name, fmt.Sprint(l.N), role, l.Runs(), l.Describe(), l.Key})
		}
		a.tell(r, problems)
	}
	a.ui.Table([]string{"WRITER", "<SIGNER", "ROLE", "<RUNS", "STATE", "KEY"}, rows)
	return r.verdict()
}

// signersOf describes a writer's signers, this machine's marked, and returns
// what is wrong with those that do not merely wait.
func (a *app) signersOf(ctx context.Context, r *reading, writer string) ([]signing.Line, []error, error) {
	signers, err := remote.LoadSigners(ctx, r.store, r.root, writer)
	if err != nil {
		return nil, nil, err
	}
	next, err := signing.NextInStore(ctx, r.store, writer)
	if err != nil {
		return nil, nil, err
	}
	lines := signing.Lines(signers, next)
	if err := signing.NameKeys(ctx, r.store, writer, lines); err != nil {
		return nil, nil, err
	}
	if writer == r.own {
		if err := signing.MarkOwn(lines, filepath.Join(r.where.State, writer)); err != nil {
			a.ui.Warn("this machine's own signing key: %v", err)
		}
	}
	problems := slices.DeleteFunc(slices.Clone(signers.Problems), func(err error) bool { return errors.Is(err, remote.ErrWaiting) })
	return lines, problems, nil
}
