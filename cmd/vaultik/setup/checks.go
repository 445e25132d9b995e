package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
)

// RefuseExisting stops before files that are there already are in the way.
func (s *Plan) RefuseExisting() error {
	if _, err := os.Lstat(s.Where.Config); err == nil {
		return fmt.Errorf("the config %q is there already: this machine is set up; edit it to add paths or sets, "+
			"or move it away to start a new writer (--config names another file)", s.Where.Config)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the config: %w", err)
	}
	if s.Kit == "" {
		return nil
	}
	if _, err := os.Lstat(s.Kit); err == nil {
		return fmt.Errorf("the recovery kit %q is there already and is never overwritten; choose another --kit FILE", s.Kit)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for the recovery kit: %w", err)
	}
	return nil
}

// refuseSecondRoot stops where this would be a further machine and nobody said
// so: a second root key makes every reader distrust one half of the store.
func (s *Plan) refuseSecondRoot(ctx context.Context) error {
	if s.Further {
		return nil
	}
	names, err := remote.ListWriters(ctx, s.store)
	if errors.Is(err, remote.ErrDenied) || err == nil && len(names) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the store %s has writers already, %s, and with them a root key: for a further machine give --root and --recipient as their kit or config states them; "+
		"for keys of its own, choose a store of its own, in another folder or prefix", s.URL, ui.QuoteAll(names))
}

// probe tries what the store can do, and tells what it cannot.
func (s *Plan) probe(ctx context.Context) error {
	can, err := remote.Probe(ctx, s.store, s.Random)
	if err != nil {
		return fmt.Errorf("try the store: %w", err)
	}
	for _, w := range can.Warnings() {
		s.UI.Warn("%s", w)
	}
	return nil
}

// CheckKit finds the folder that the kit will lie in, which is neither the
// store nor missing. If it is below what is backed up, farewell warns.
func (s *Plan) CheckKit() error {
	if s.Further {
		return nil
	}
	s.kitFolder = filepath.Dir(s.Kit)
	if s.Kit == "" {
		var err error
		if s.kitFolder, err = os.Getwd(); err != nil {
			return fmt.Errorf("find the folder for the recovery kit: %w; give --kit FILE", err)
		}
	}
	if info, err := os.Stat(s.kitFolder); err != nil || !info.IsDir() {
		return fmt.Errorf("there is no folder %q for the recovery kit; make it, or mount its disk", s.kitFolder)
	}
	if s.URL.Folder() != "" && state.Inside(s.kitFolder, s.URL.Folder()) {
		return fmt.Errorf("the recovery kit must not lie in the store, %q, which it opens: whoever got hold of the store could read it all; give --kit FILE elsewhere", s.URL.Folder())
	}
	return nil
}
