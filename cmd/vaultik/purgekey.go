package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
)

// purgeKey signs tombstones.
type purgeKey struct {
	remote.SigningKey
	own  bool // this machine's, as the writer that it is
	root bool // the kit's root key, which certifies itself as a maintainer
}

// kitAlone reads a kit for its root key and its store. It may hold no age
// identity.
func kitAlone(path string) (*kit.Identity, error) {
	k, err := kit.Read(path)
	if err != nil {
		return nil, err
	}
	return &kit.Identity{Kit: k, From: path}, nil
}

// chooseKey finds the key to sign with. A dry run can do without, but then it
// does not know whether the key will be good for what it plans.
func (p *purge) chooseKey(c *cli.Context) error {
	switch path := c.String("key"); {
	case path != "":
		text, err := state.ReadFile(path, 4096)
		if err != nil {
			return fmt.Errorf("--key: %w", err)
		}
		key, err := remote.ParseSigningKey(string(text))
		if err != nil {
			return fmt.Errorf("--key %q: %w", path, err)
		}
		p.key = &purgeKey{SigningKey: key}
	case c.String("kit") != "":
		if !p.r.id.Kit.Root.Public().Equal(p.r.root) {
			return errors.New("--kit and --root are of two root keys; leave one of them out")
		}
		p.key = &purgeKey{SigningKey: p.r.id.Kit.Root, root: true}
	case p.dry && (p.r.own == "" || p.writer != "" && p.writer != p.r.own):
	case p.r.own == "":
		return errors.New("no key to sign with: this machine is no writer of that store; add --key FILE with a maintainer's secret key, or --kit KIT")
	case p.writer != "" && p.writer != p.r.own:
		return fmt.Errorf("this machine is writer %q and cannot sign for %q; add --key FILE with a maintainer's secret key, or --kit KIT", p.r.own, p.writer)
	default:
		path := filepath.Join(p.r.where.State, p.r.own, state.SigningKeyFile)
		text, err := state.ReadFile(path, 4096)
		if err != nil && p.dry {
			return nil // it is another user's, perhaps
		}
		if err != nil {
			return fmt.Errorf("signing key of writer %q: %w", p.r.own, err)
		}
		key, err := remote.ParseSigningKey(string(text))
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		p.key = &purgeKey{SigningKey: key, own: true}
	}
	return nil
}

// mayForget looks, before anybody is asked, whether the key is good for what
// is planned. Of all writers those that it is not for are left out.
func (p *purge) mayForget() error {
	if p.key == nil {
		return nil
	}
	var all []*writerPlan
	for _, plan := range p.plans {
		err := p.mayBury(plan.signers, plan.stones)
		switch {
		case err == nil:
			all = append(all, plan)
		case p.dry && (p.key.own || p.writer != "" || len(p.names) > 0):
			p.ui.Warn("this would fail: %v", err)
			p.code = worse(p.code, exitCode(err))
			all = append(all, plan)
		case p.key.own || p.writer != "" || len(p.names) > 0:
			return err
		default:
			p.ui.Warn("writer %q is left out: %v", plan.writer, err)
			p.code = worse(p.code, exitCode(remote.ErrNotTrusted))
		}
	}
	p.plans = all
	return nil
}

// mayBury looks at the newest run: a key that may forget it may forget those
// before it.
func (p *purge) mayBury(signers remote.Signers, stones []remote.Tombstone) error {
	if len(stones) == 0 || p.key.root {
		return nil
	}
	newest := slices.MaxFunc(stones, func(a, b remote.Tombstone) int { return cmp.Compare(a.Seq, b.Seq) })
	return signers.MayForget(p.key.SigningKey, newest.Seq)
}

// certified returns the signers of a writer with the key among them. The root
// key is above all signers but is none; to sign tombstones it certifies
// itself as a maintainer, once.
func (p *purge) certified(ctx context.Context, writer string, signers remote.Signers) (remote.Signers, error) {
	if !p.key.root {
		return signers, nil
	}
	for _, c := range signers.Certificates {
		if c.Role == remote.RoleMaintainer && c.Key.Equal(p.key.Public()) {
			return signers, nil
		}
	}
	object := p.key.Public().File()
	for n := 1; ; n++ {
		key := remote.SignerKey(writer, n)
		err := p.r.store.Put(ctx, key, object)
		if errors.Is(err, remote.ErrExists) {
			there, err := stores.Fetch(ctx, p.r.store, key, kit.MaxSize)
			if err != nil {
				return signers, err
			}
			if !bytes.Equal(there, object) {
				continue
			}
		} else if err != nil {
			return signers, fmt.Errorf("certify the root key as a maintainer of writer %q: %w", writer, err)
		}
		certificate := remote.SignCertificate(p.key.SigningKey, remote.Certificate{N: n, Key: p.key.Public(), Role: remote.RoleMaintainer, Writer: writer})
		if err := p.r.store.Put(ctx, remote.SignatureKey(key), certificate); err != nil && !errors.Is(err, remote.ErrExists) {
			return signers, fmt.Errorf("certify the root key as a maintainer of writer %q: %w", writer, err)
		}
		p.ui.Note("the root key is now a maintainer of writer %q, as its signer %d", writer, n)
		return remote.LoadSigners(ctx, p.r.store, p.r.root, writer)
	}
}
