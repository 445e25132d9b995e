package signing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/remote"
)

// Line is what key list and store info say of a signer.
type Line struct {
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

// Lines describes a writer's signers by number. next is the writer's next run.
// Keys of signers that are not certified are for NameKeys to add.
func Lines(signers remote.Signers, next remote.Seq) []Line {
	lines := []Line{}
	for _, c := range signers.Certificates {
		l := Line{N: c.N, Key: c.Key.String(), Role: c.Role, From: c.From, PurgeMaintainer: c.PurgeMaintainer}
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
		l := Line{N: k.N, State: "not trusted", Why: p.Err.Error()}
		if errors.Is(p, remote.ErrWaiting) {
			l.State, l.Why = "waiting", ""
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b Line) int { return a.N - b.N })
	return lines
}

// Runs is the range From to To for people.
func (l Line) Runs() string {
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

// Describe is State for people, with what else is to be known.
func (l Line) Describe() string {
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

// NameKeys looks up the keys of signers that are not certified.
func NameKeys(ctx context.Context, s remote.Store, writer string, lines []Line) error {
	if !slices.ContainsFunc(lines, func(l Line) bool { return l.Key == "" }) {
		return nil
	}
	public, err := List(ctx, s, writer)
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

// MarkOwn marks the signers whose secret halves are in a writer's folder on this
// machine.
func MarkOwn(lines []Line, dir string) error {
	for _, f := range []struct{ name, word string }{{NextKeyFile, "waits"}, {state.SigningKeyFile, "signs"}} {
		key, err := ReadKey(filepath.Join(dir, f.name))
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

// NextInStore is the run after the newest whose manifest lies in the store,
// whoever signed it.
func NextInStore(ctx context.Context, store remote.Store, writer string) (remote.Seq, error) {
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
