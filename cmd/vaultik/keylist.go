package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
)

// signerLine is what key list and store info say of a signer.
type signerLine struct {
	N               int         `json:"n"`
	Key             string      `json:"key"`
	Role            remote.Role `json:"role"` // "" if it is not certified
	From            remote.Seq  `json:"from"` // the first run that it is in charge of, 0 if there is none
	To              remote.Seq  `json:"to"`   // the last one, 0 while it goes on
	PurgeMaintainer bool        `json:"purge_maintainer"`
	State           string      `json:"state"` // in charge, next, superseded, waiting, revoked, not trusted, maintainer
	Why             string      `json:"why"`   // of one that is not trusted
	Here            string      `json:"here"`  // "signs" or "waits" if this machine has the secret half
}

// signerLines describes a writer's signers by number. next is the writer's
// next run.
func signerLines(signers remote.Signers, next remote.Seq) []signerLine {
	lines := []signerLine{}
	for _, c := range signers.Certificates {
		l := signerLine{N: c.N, Key: c.Key.String(), Role: c.Role, From: c.From, PurgeMaintainer: c.PurgeMaintainer}
		r, revoked := signers.Revocation(c.Key)
		switch {
		case c.Role == remote.RoleMaintainer:
			l.State = "maintainer"
		default:
			l.From, l.To = charge(signers, c)
			in, _ := signers.InCharge(next)
			switch {
			case in.N == c.N:
				l.State = "in charge"
			case l.From > next:
				l.State = "next"
			default:
				l.State = "superseded"
			}
		}
		if revoked {
			l.State = "revoked"
			if c.Role == remote.RoleWriter && (l.To == 0 || l.To > r.Through) {
				l.To = r.Through
			}
			if r.Through < l.From {
				l.From, l.To = 0, 0
			}
		}
		lines = append(lines, l)
	}
	for _, err := range signers.Problems {
		p := (*remote.Problem)(nil)
		if !errors.As(err, &p) {
			continue
		}
		k, err := remote.ParseKey(p.Key)
		if err != nil || k.Kind != remote.KindSigner {
			continue // a revocation: told as a problem
		}
		l := signerLine{N: k.N, State: "not trusted", Why: p.Err.Error()}
		if errors.Is(p, remote.ErrWaiting) {
			l.State, l.Why = "waiting", ""
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b signerLine) int { return a.N - b.N })
	return lines
}

// charge is the first and the last run that a writer's certificate is in
// charge of: both 0 if it never is, the last 0 while nobody follows.
func charge(signers remote.Signers, c remote.Certificate) (from, to remote.Seq) {
	if first, _ := signers.InCharge(c.From); first.N != c.N {
		return 0, 0
	}
	for _, other := range signers.Certificates {
		if other.Role == remote.RoleWriter && other.From > c.From && (to == 0 || other.From-1 < to) {
			to = other.From - 1
		}
	}
	return c.From, to
}

// runs is the range for people.
func (l signerLine) runs() string {
	switch {
	case l.Role == "":
		return "-"
	case l.Role == remote.RoleMaintainer:
		return "forgets"
	case l.From == 0:
		return "none"
	case l.To == l.From:
		return fmt.Sprint(uint64(l.From))
	case l.To == 0:
		return fmt.Sprintf("%d…", uint64(l.From))
	}
	return fmt.Sprintf("%d…%d", uint64(l.From), uint64(l.To))
}

// state is the state for people.
func (l signerLine) state() string {
	text := l.State
	if l.PurgeMaintainer && l.State != "revoked" {
		text += ", may not forget"
	}
	switch l.Here {
	case "signs":
		text += ", this machine's"
	case "waits":
		text += ", made on this machine"
	}
	return text
}

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
			Type    string       `json:"message_type"`
			Writer  string       `json:"writer"`
			Signers []signerLine `json:"signers"`
		}{"signers", name, lines})
		for _, l := range lines {
			role := string(l.Role)
			if role == "" {
				role = "-"
			}
			rows = append(rows, []string{name, fmt.Sprint(l.N), role, l.runs(), l.state(), l.Key})
		}
		a.tell(r, problems)
	}
	a.ui.Table([]string{"WRITER", "<SIGNER", "ROLE", "<RUNS", "STATE", "KEY"}, rows)
	return r.verdict()
}

// signersOf describes a writer's signers, this machine's marked, and returns
// what is wrong with those that do not merely wait.
func (a *app) signersOf(ctx context.Context, r *reading, writer string) ([]signerLine, []error, error) {
	signers, err := remote.LoadSigners(ctx, r.store, r.root, writer)
	if err != nil {
		return nil, nil, err
	}
	next, err := nextInStore(ctx, r.store, writer)
	if err != nil {
		return nil, nil, err
	}
	lines := signerLines(signers, next)
	if err := nameKeys(ctx, r.store, writer, lines); err != nil {
		return nil, nil, err
	}
	if writer == r.own {
		if err := markOwn(lines, filepath.Join(r.where.State, writer)); err != nil {
			a.ui.Warn("this machine's own signing key: %v", err)
		}
	}
	problems := slices.DeleteFunc(slices.Clone(signers.Problems), func(err error) bool { return errors.Is(err, remote.ErrWaiting) })
	return lines, problems, nil
}

// nameKeys looks up the keys of signers that are not certified.
func nameKeys(ctx context.Context, s remote.Store, writer string, lines []signerLine) error {
	if !slices.ContainsFunc(lines, func(l signerLine) bool { return l.Key == "" }) {
		return nil
	}
	public, err := listSigners(ctx, s, writer)
	if err != nil {
		return err
	}
	for i := range lines {
		if key := public[lines[i].N]; lines[i].Key == "" && !key.IsZero() {
			lines[i].Key = key.String()
		}
	}
	return nil
}

// markOwn marks the signers whose secret halves are in the folder.
func markOwn(lines []signerLine, dir string) error {
	for _, f := range []struct{ name, word string }{{nextKeyFile, "waits"}, {state.SigningKeyFile, "signs"}} {
		key, err := readSigningKey(filepath.Join(dir, f.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range lines {
			if lines[i].Key == key.Public().String() {
				lines[i].Here = f.word
			}
		}
	}
	return nil
}

// nextInStore is the run after the newest whose manifest lies in the store,
// whoever signed it.
func nextInStore(ctx context.Context, store remote.Store, writer string) (remote.Seq, error) {
	var newest remote.Seq
	for info, err := range store.List(ctx, remote.MetadataPrefix(writer)) {
		if err != nil {
			return 0, fmt.Errorf("list the snapshots of writer %q: %w", writer, err)
		}
		if k, err := remote.ParseKey(info.Key); err == nil && k.Kind == remote.KindManifest && !k.Signature {
			newest = max(newest, k.Seq)
		}
	}
	return newest + 1, nil
}
