package main

import (
	"fmt"
	"time"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/kit"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "set this machine up to back up PATHs to a store", ArgsUsage: "PATH…",
		OnUsageError: usageError,
		Description: "Writes the config with a set \"default\" of the PATHs, the writer's signing key, and\n" +
			"the recovery kit, without which nothing can be restored. Asks nothing.\n\n" +
			"On a further machine of the same store, give --root and --recipient as the first\n" +
			"machine's kit states them: no identity and no kit are made there.\n\n" +
			"On a machine that was set up and has lost its files, --from-kit KIT brings them back\n" +
			"from the store, and PATHs are left out: its newest snapshots say what they were.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "kit", Usage: "write the recovery kit to `FILE` (default: ./vaultik-recovery-kit-WRITER.txt)"},
			&cli.StringFlag{Name: "writer", Usage: "the writer's `NAME` (default: the host's name, with a number if it is taken)"},
			&cli.StringSliceFlag{Name: "recipient", Usage: "encrypt to this age `KEY` as well, or with --root instead; may be repeated"},
			&cli.StringFlag{Name: "root", Usage: "the public root `KEY` of the store's other writers: this is a further machine"},
			&cli.StringFlag{Name: "object-lock", Usage: "lock every object against deletion for `TIME`, such as 30d, in a bucket made with object lock"},
			&cli.StringFlag{Name: "object-lock-mode", Usage: "`MODE` of the locks: compliance (default; nobody can lift them) or governance"},
			&cli.StringFlag{Name: "from-kit", Usage: "bring back what this machine had: config, keys and index of the writer that it is, with the recovery kit `FILE`"},
			&cli.BoolFlag{Name: "fewer-recipients", Usage: "with --from-kit: go on without recipients whose public keys are not given"},
			&cli.BoolFlag{Name: "x25519", Usage: "make a classic age identity instead of a post-quantum one, for age older than 1.3"},
		},
		Action: func(c *cli.Context) error {
			if c.IsSet("from-kit") {
				return a.fromKit(c)
			}
			s, err := a.planInit(c)
			if err != nil {
				return err
			}
			return s.run(c.Context)
		},
	}
}

// keys makes the secrets: the age identity and the root key of a first
// machine, and everybody's signing key and chunker secret.
func (s *setup) keys() (err error) {
	if s.signer, err = remote.GenerateSigningKey(s.app.random); err != nil {
		return fmt.Errorf("make the signing key: %w", err)
	}
	if s.further {
		return nil
	}
	if s.root, err = remote.GenerateSigningKey(s.app.random); err != nil {
		return fmt.Errorf("make the root key: %w", err)
	}
	s.rootPublic = s.root.Public()
	var own string
	if s.classic {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return fmt.Errorf("make the age identity: %w", err)
		}
		s.identity, own = id.String(), id.Recipient().String()
	} else {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return fmt.Errorf("make the age identity: %w", err)
		}
		s.identity, own = id.String(), id.Recipient().String()
	}
	s.recipients = append([]string{own}, s.recipients...)
	if _, err := seal.ParseRecipients(s.recipients); err != nil {
		hint := "if they are classic age1… keys, add --x25519, so that they can share a file with this machine's own"
		if s.classic {
			hint = "post-quantum age1pq1… keys cannot share a file with the classic one that --x25519 makes"
		}
		return fmt.Errorf("--recipient: %w (%s)", err, hint)
	}
	return nil
}

// kitText is the recovery kit.
func (s *setup) kitText() string {
	k := kit.Kit{
		Store: s.url.String(), Writer: s.writer, Made: s.app.now().UTC().Truncate(time.Second), By: buildInfo().Version,
		Root: s.root, Identity: s.identity, Recipients: s.recipients,
	}
	return k.Text()
}

// farewell says what was made and what to do now.
func (s *setup) farewell() {
	u := s.app.ui
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
	}{"init", s.writer, s.url.String(), s.where.Config, s.stateDir(), s.kit, s.rootPublic.String(), s.signer.Public().String(), s.recipients})

	u.Say("Writer:  %s", s.writer)
	u.Say("Store:   %s", s.url)
	u.Say("Config:  %s", ui.Quote(s.where.Config))
	u.Say("State:   %s", ui.Quote(s.stateDir()))
	if s.further {
		u.Say("")
		u.Say("This machine's signing key is not certified yet: until it is, its snapshots are")
		u.Say("not trusted. Where the recovery kit is, run")
		u.Say("")
		u.Say("  vaultik key certify %s --key %s \\", s.writer, s.signer.Public())
		u.Say("    --store '%s' --kit KIT", s.url)
		u.Say("")
		u.Say("\"vaultik backup\" works here at once, also from cron: vaultik backup --cron")
		return
	}
	u.Say("Kit:     %s", ui.Quote(s.kit))
	u.Say("")
	u.Say("THE KIT IS THE ONLY WAY TO RESTORE. Nothing on this machine can replace it.")
	u.Say("Print it, or copy it to a stick: keep it in two places that this machine's thief")
	u.Say("or fire does not reach. Back up, and try the kit before you need it:")
	u.Say("")
	u.Say("  vaultik backup             # from cron: vaultik backup --cron")
	u.Say("  mkdir /tmp/vaultik && vaultik mount --identity %s latest /tmp/vaultik", ui.ShellQuote(s.kit))
	u.Say("")
	u.Say("When the copies are made, remove it from here: whoever has it can read it all.")
	u.Say("")
	u.Say("  shred -u %s", ui.ShellQuote(s.kit))
	if len(s.recipients) == 1 {
		u.Say("")
		u.Say("A second recipient, kept elsewhere, would outlive the loss of this one: add its")
		u.Say("public key to \"recipients\" in the config.")
	}
	for _, path := range s.paths {
		if state.Inside(s.kitFolder, path) {
			u.Warn("the recovery kit %q lies in %q, which is backed up: copy it to where neither this machine's thief nor its fire reaches, "+
				"and remove it from here before the first backup, or snapshots will contain it", s.kit, path)
			break
		}
	}
}
