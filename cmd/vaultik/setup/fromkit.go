package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

// Given is what a person adds to what the kit and the store say.
type Given struct {
	Paths      []string // where there is no snapshot that tells them
	Recipients []string // public keys
	Fewer      bool     // go on without recipients whose public keys nobody gives
}

// SetUp makes everything that is not there: the writer's files, then the config,
// which is that of s, completed by what the snapshots and a person say. It tells what
// was brought back, and what could not be.
func (r *Revival) SetUp(ctx context.Context, s *Plan, g Given) (err error) {
	if err := r.choosePaths(g.Paths, s); err != nil {
		return err
	}
	if s.Recipients, err = r.recipients(g); err != nil {
		return err
	}
	index, err := r.needIndex(ctx)
	if err != nil {
		return err
	}
	if err := r.describe(ctx); err != nil {
		return err
	}
	if s.sets, err = r.sets(); err != nil {
		return err
	}
	if err := r.WriteSecret(); err != nil {
		return err
	}
	key, err := r.MakeKey(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.Where.Config), 0o755); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	if err := state.Create(s.Where.Config, []byte(s.configText())); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	r.UI.Done()
	r.welcomeBack(s, index, key)
	return nil
}

// recipients are the public keys that the newest snapshot is encrypted to. It
// has only their fingerprints: the keys themselves come from the kit and from
// --recipient.
func (r *Revival) recipients(g Given) ([]string, error) {
	known := slices.Clone(r.ID.Kit.Recipients)
	for _, key := range r.ID.Keys {
		switch key := key.(type) {
		case *age.HybridIdentity:
			known = append(known, key.Recipient().String())
		case *age.X25519Identity:
			known = append(known, key.Recipient().String())
		}
	}
	var keep []string
	add := func(recipient string) {
		if !slices.Contains(keep, recipient) {
			keep = append(keep, recipient)
		}
	}
	if len(r.snapshots) == 0 {
		for _, k := range known {
			add(k)
		}
	} else {
		newest := r.snapshots[len(r.snapshots)-1]
		var missing []string
		for _, print := range newest.Manifest.Recipients {
			i := slices.IndexFunc(slices.Concat(known, g.Recipients), func(k string) bool { return seal.Fingerprint(k) == print })
			if i < 0 {
				missing = append(missing, print)
				continue
			}
			add(slices.Concat(known, g.Recipients)[i])
		}
		if len(missing) > 0 {
			text := fmt.Sprintf("snapshot %s has %s that neither the kit nor --recipient names; public keys are not in the store, only their SHA-256: %s",
				newest.ID, ui.Plural(int64(len(missing)), "recipient", "recipients"), strings.Join(missing, ", "))
			if !g.Fewer {
				return nil, fmt.Errorf("%s; give each as --recipient, or --fewer-recipients to go on without (everything is then uploaded anew)", text)
			}
			r.UI.Warn("%s; they will not be able to read new snapshots, for which everything is uploaded anew", text)
		}
	}
	for i, recipient := range g.Recipients {
		if err := config.CheckRecipient(recipient); err != nil {
			return nil, fmt.Errorf("--recipient, number %d of them: %w", i+1, err)
		}
		add(recipient)
	}
	if _, err := seal.ParseRecipients(keep); err != nil {
		return nil, fmt.Errorf("recipients: %w", err)
	}
	return keep, nil
}

// sets are those of which there are snapshots, sorted by name, as the newest of
// each describes it.
func (r *Revival) sets() ([]config.TemplateSet, error) {
	var sets []config.TemplateSet
	for _, name := range slices.Sorted(maps.Keys(r.newest)) {
		about := r.newest[name]
		set := config.TemplateSet{Name: name}
		for _, path := range about.Roots {
			if !utf8.ValidString(path) {
				return nil, fmt.Errorf("set %q: path %q is not UTF-8, which a config cannot hold", name, path)
			}
			set.Paths = append(set.Paths, path)
		}
		for _, pattern := range about.Excludes {
			if !utf8.ValidString(pattern) {
				r.UI.Warn("set %q: exclude %q is not UTF-8, which a config cannot hold; put it into a file that exclude_file names", name, pattern)
				continue
			}
			set.Excludes = append(set.Excludes, pattern)
		}
		sets = append(sets, set)
	}
	for _, s := range r.snapshots {
		if _, known := r.newest[s.Set]; !known && !slices.ContainsFunc(sets, func(have config.TemplateSet) bool { return have.Name == s.Set }) {
			return nil, fmt.Errorf("what set %q backs up is lost with the metadata of its snapshots; write the config by hand: docs/CONFIG.md lists its keys", s.Set)
		}
	}
	return sets, nil
}

// choosePaths takes the paths from the command line where no snapshot tells
// them, and only there.
func (r *Revival) choosePaths(given []string, s *Plan) error {
	switch {
	case len(r.snapshots) > 0 && len(given) > 0:
		return errors.New("leave the PATHs out: the snapshots say what is backed up, and the config can be edited afterwards")
	case len(r.snapshots) == 0 && len(given) == 0:
		return fmt.Errorf("writer %q has no snapshot that says what to back up; name the PATHs", r.Writer)
	default:
		for _, word := range given {
			path, err := filepath.Abs(word)
			if err != nil {
				return err
			}
			s.Paths = append(s.Paths, path)
		}
	}
	return nil
}
