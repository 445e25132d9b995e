package setup

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"strings"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/metastore/index"
)

// farewell says what was made and what to do now.
func (s *Plan) farewell() {
	u := s.UI
	u.Result(struct {
		Type       string   `json:"message_type"`
		Writer     string   `json:"writer"`
		Store      string   `json:"store"`
		Config     string   `json:"config"`
		State      string   `json:"state"`
		Kit        string   `json:"kit"` // "" on a further machine
		Root       string   `json:"root_key"`
		Signer     string   `json:"signer"`
		Recipients []string `json:"recipients"`
	}{"init", s.Writer, s.URL.String(), s.Where.Config, s.stateDir(), s.Kit, s.RootKey.String(), s.signer.Public().String(), s.Recipients})

	u.Say("Writer:  %s", s.Writer)
	u.Say("Store:   %s", s.URL)
	u.Say("Config:  %s", ui.Quote(s.Where.Config))
	u.Say("State:   %s", ui.Quote(s.stateDir()))
	if s.Further {
		u.Say("")
		u.Say("This machine's signing key is not certified yet: until it is, its snapshots are")
		u.Say("not trusted. Where the recovery kit is, run")
		u.Say("")
		u.Say("  vaultik key certify %s --key %s \\", s.Writer, s.signer.Public())
		u.Say("    --store '%s' --kit KIT", s.URL)
		u.Say("")
		u.Say("\"vaultik backup\" works here at once, also from cron: vaultik backup --cron")
		return
	}
	u.Say("Kit:     %s", ui.Quote(s.Kit))
	u.Say("")
	u.Say("THE KIT IS THE ONLY WAY TO RESTORE. Nothing on this machine can replace it.")
	u.Say("Print it, or copy it to a stick: keep it in two places that this machine's thief")
	u.Say("or fire does not reach. Back up, and try the kit before you need it:")
	u.Say("")
	u.Say("  vaultik backup             # from cron: vaultik backup --cron")
	u.Say("  mkdir /tmp/vaultik && vaultik mount --identity %s latest /tmp/vaultik", ui.ShellQuote(s.Kit))
	u.Say("")
	u.Say("When the copies are made, remove it from here: whoever has it can read it all.")
	u.Say("")
	u.Say("  shred -u %s", ui.ShellQuote(s.Kit))
	if len(s.Recipients) == 1 {
		u.Say("")
		u.Say("A second recipient, kept elsewhere, would outlive the loss of this one: add its")
		u.Say("public key to \"recipients\" in the config.")
	}
	for _, path := range s.Paths {
		if state.Inside(s.kitFolder, path) {
			u.Warn("the recovery kit %q lies in %q, which is backed up: copy it to where neither this machine's thief nor its fire reaches, "+
				"and remove it from here before the first backup, or snapshots will contain it", s.Kit, path)
			break
		}
	}
}

// welcomeBack says what was brought back, and what could not be.
func (r *Revival) welcomeBack(s *Plan, x *index.Rebuilt, key NewKey) {
	u := r.UI
	var names []string
	for _, set := range s.sets {
		names = append(names, set.Name)
	}
	u.Result(struct {
		Type    string   `json:"message_type"`
		Writer  string   `json:"writer"`
		Store   string   `json:"store"`
		Config  string   `json:"config"`
		State   string   `json:"state"`
		Sets    []string `json:"sets"`
		Index   bool     `json:"index_rebuilt"`
		Signer  string   `json:"signer"` // a new one; "" if the old one is there
		NextRun uint64   `json:"next_run"`
	}{"revived", s.Writer, s.URL.String(), s.Where.Config, s.stateDir(), append([]string{}, names...), x != nil, key.String(), uint64(r.firstFree())})

	u.Say("Writer:  %s", s.Writer)
	u.Say("Store:   %s", s.URL)
	u.Say("Config:  %s", ui.Quote(s.Where.Config))
	u.Say("State:   %s", ui.Quote(s.stateDir()))
	for _, set := range s.sets {
		u.Say("Set:     %s, as on %s: %s", set.Name, ui.When(r.newest[set.Name].Started.Time()), ui.Quote(strings.Join(set.Paths, " ")))
	}
	if x != nil {
		u.Say("Index:   made anew from %s: %s, %s", r.Sources(*x),
			ui.Plural(x.Entries, "entry", "entries"), ui.Plural(x.Blobs, "blob", "blobs"))
	} else {
		u.Say("Index:   was there")
	}
	u.Say("")
	r.SayKey(key)
	u.Say("Not in the store, so look at the config before the next backup: excludes other than")
	u.Say("patterns, one_file_system, compression, limits, retention, and what runs vaultik, such")
	u.Say("as cron. Patterns from the command line or from files are in the config now.")
	for _, set := range s.sets {
		for _, path := range set.Paths {
			if _, err := os.Lstat(path); errors.Is(err, iofs.ErrNotExist) {
				u.Warn("set %s: %q is not there; restore it before the next backup, or take it out of the config", set.Name, path)
			}
		}
	}
	u.Say("")
	u.Say("If another machine goes on as %s, this one must not: remove the config again.", s.Writer)
}

// SayKey tells of a new signing key, if there is one.
func (r *Revival) SayKey(key NewKey) {
	switch {
	case key.Certify != "":
		r.UI.Say("the signing key was lost; a new one is made, and signs once it is certified; where the recovery kit is, run")
		r.UI.Say("")
		r.UI.Say("  %s", key.Certify)
	case !key.public.IsZero():
		r.UI.Say("the signing key was lost; a new one is made and certified from run %d on: %s", uint64(r.firstFree()), key.public)
	}
}

// Sources says from how many snapshots an index was made.
func (r *Revival) Sources(made index.Rebuilt) string {
	text := ui.Plural(made.Runs, "snapshot", "snapshots")
	if len(r.lost) > 0 {
		text += fmt.Sprintf(", %d of which without their metadata", len(r.lost))
	}
	return text
}
