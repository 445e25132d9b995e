package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// app is one run of the program, with all it takes from its surroundings.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	root           bool // run by root: the system's folders instead of the user's
	now            func() time.Time
	random         io.Reader
	hostname       func() (string, error)

	ui     *ui.Printer // made from the options before a command runs
	source string      // of a mount, in the mount table; "" if mount(8) did not ask for it
}

func newApp() *app {
	return &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		env: os.Getenv, root: os.Geteuid() == 0,
		now: time.Now, random: rand.Reader, hostname: os.Hostname,
	}
}

// route is the usual one. A store that is slow is news for the person who
// waits, not for a log in which the run ends well.
func (a *app) route() stores.Route {
	return stores.Route{Slow: func(why error) { a.ui.Note("the store does not answer (%v), trying again", why) }}
}

// storeAddress is the store that the person named for this run, "" for the usual
// one.
func (a *app) storeAddress(c *cli.Context) string {
	return cmp.Or(c.String("store"), a.env("VAULTIK_STORE"))
}

// run does what args say and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	a.ui = &ui.Printer{Out: a.stdout, Err: a.stderr}
	c := a.cli()
	switch h, err := helperCalled(args, c.Commands); {
	case err != nil:
		a.ui.Fail(err, helperUsage)
		return helperUsage
	case h != nil:
		return a.help(ctx, h)
	}
	return a.command(ctx, c, args)
}

// command is run for a command line of this program.
func (a *app) command(ctx context.Context, c *cli.App, args []string) int {
	args, err := askHelp(args, c.Commands)
	var unknown error
	if err == nil {
		args, unknown = arrange(args, c.Flags, c.Commands)
		err = c.RunContext(ctx, args)
	}
	a.ui.Done()
	if err == nil {
		return 0
	}
	if unknown != nil {
		err = unknown // cli has only one dash for it
	}
	var e *exitError
	told := errors.As(err, &e) && e.err == nil // the person knows what was wrong
	switch interrupted := ctx.Err() != nil; {
	case told && (!interrupted || e.code == exitCode(errInterrupted)):
		return e.code
	case interrupted && (told || errors.Is(err, context.Canceled)):
		err = errInterrupted // what was going on in detail is of no interest
	case interrupted:
		err = fmt.Errorf("%w: %w", errInterrupted, err)
	}
	code := exitCode(err)
	switch {
	case ctx.Err() != nil:
		a.ui.EndLine()
	case e != nil:
		code = e.code
	}
	a.ui.Fail(err, code)
	return code
}

func (a *app) cli() *cli.App {
	c := &cli.App{
		CustomAppHelpTemplate: appHelp,
		Name:                  "vaultik",
		Usage:                 "back up to an object store with keys that cannot read it back, restore through a mount or into a folder",
		Description: "Begin with \"vaultik init --store URL PATH…\", then \"vaultik backup\".\n" +
			"Stores: file:///folder, or s3://bucket/prefix?endpoint=https://host:port&region=…&path_style=…\n\n" + exitHelp(),
		Writer: a.stdout, ErrWriter: a.stderr, Reader: a.stdin,
		HideVersion: true, HideHelpCommand: true,
		UseShortOptionHandling: false, DisableSliceFlagSeparator: true,
		ExitErrHandler: func(*cli.Context, error) {}, // run does it
		OnUsageError:   usageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "config `FILE` (VAULTIK_CONFIG)"},
			&cli.StringFlag{Name: "store", Usage: "store `URL` (VAULTIK_STORE; default: the config's)"},
			&cli.BoolFlag{Name: "json", Usage: "print results as JSON, one object a line with a message_type"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only what is wrong"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print more"},
			&cli.BoolFlag{Name: "no-color", Usage: "no colours (NO_COLOR)"},
			&cli.BoolFlag{Name: "version", Usage: "what the version command prints"},
		},
		Before: func(c *cli.Context) error {
			terminal := ui.IsTerminal(a.stderr) && a.env("TERM") != "dumb"
			a.ui = &ui.Printer{
				Out: a.stdout, Err: a.stderr,
				JSON: c.Bool("json"), Quiet: c.Bool("quiet"), Verbose: c.Bool("verbose"),
				Terminal: terminal, Color: terminal && !c.Bool("no-color") && a.env("NO_COLOR") == "",
			}
			return nil
		},
		Action: func(c *cli.Context) error {
			switch name := c.Args().First(); {
			case name != "":
				return unknownCommand("vaultik", name, c.App.Commands)
			case c.Bool("version"):
				return a.version(c)
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			a.initCommand(), a.backupCommand(), a.mountCommand(), a.restoreCommand(), a.snapshotCommand(),
			a.pruneCommand(), a.auditCommand(), a.storeCommand(), a.keyCommand(), a.indexCommand(), a.versionCommand(),
		},
	}
	for _, command := range c.Commands {
		command.CustomHelpTemplate, command.HideHelpCommand = commandHelp, true
		for _, below := range command.Subcommands {
			below.CustomHelpTemplate, below.HideHelpCommand = commandHelp, true
		}
	}
	return c
}

// group is a command that only holds others.
func group(name, usage string, commands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: commands, OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return unknownCommand("vaultik "+name, word, commands)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// unknownCommand says what was perhaps meant by a word after parent.
func unknownCommand(parent, word string, commands []*cli.Command) error {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	if near := ui.Nearest(word, names); near != "" {
		return fmt.Errorf("no command \"%s %s\"; did you mean \"%s %s\"?", parent, word, parent, near)
	}
	return fmt.Errorf("no command \"%s %s\"; \"%s --help\" lists them", parent, word, parent)
}

// usageError is for options that are wrong: the reason, without all the help.
func usageError(c *cli.Context, err error, _ bool) error {
	name := "vaultik"
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return fmt.Errorf("%w; see \"%s --help\"", err, name)
}

// words checks the number of a command's words; most < 0 is any number.
func words(c *cli.Context, least, most int) error {
	n := c.Args().Len()
	if n < least || most >= 0 && n > most {
		return errors.New(strings.TrimRight(fmt.Sprintf("usage: %s [options] %s", c.Command.HelpName, c.Command.ArgsUsage), " "))
	}
	return nil
}
