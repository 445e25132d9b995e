package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// arrange moves options in front of the words they were written behind, since
// people write "vaultik mount DIR --identity KIT" as well as the reverse, and
// urfave/cli, as the standard library, reads options only up to the first
// word. Options of the program may stand anywhere, too. What follows "--" are
// words, as are lone dashes. An option nobody knows stays with its command,
// which then complains; unknown says so better. A second name of an option
// becomes the first, because urfave/cli refuses to add both up.
func arrange(args []string, global []cli.Flag, commands []*cli.Command) (out []string, unknown error) {
	if len(args) == 0 {
		return nil, nil
	}
	var path, words, programs, own []string
	var flags []cli.Flag
	level := commands
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			words = append(words, rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			if len(words) == 0 {
				if c := named(level, arg); c != nil {
					path, level, flags = append(path, arg), c.Subcommands, c.Flags
					continue
				}
			}
			words = append(words, arg)
			continue
		}
		name, value, attached := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		to := &own
		f := find(flags, name)
		if f == nil {
			if f = find(global, name); f != nil {
				to = &programs
			}
		}
		switch {
		case f != nil && name != f.Names()[0]:
			arg = "--" + f.Names()[0]
			if attached {
				arg += "=" + value
			}
		case f == nil && unknown == nil && !slices.Contains(cli.HelpFlag.Names(), name):
			unknown = unknownOption(arg[:len(arg)-len(strings.TrimLeft(arg, "-"))]+name, strings.Join(slices.Concat([]string{"vaultik"}, path), " "), slices.Concat(flags, global))
		}
		*to = append(*to, arg)
		if v, ok := optional(f); ok {
			if !attached && len(rest) > 0 && v.takes(rest[0]) {
				(*to)[len(*to)-1] += "=" + rest[0]
				rest = rest[1:]
			}
			continue
		}
		if f != nil && !attached && takesValue(f) && len(rest) > 0 {
			*to = append(*to, rest[0])
			rest = rest[1:]
		}
	}
	out = slices.Concat(args[:1], programs, path, own)
	if len(words) > 0 {
		if len(path) > 0 {
			out = append(out, "--")
		}
		out = append(out, words...)
	}
	return out, unknown
}

// unknownOption says what was perhaps meant by an option of command, as it was
// written.
func unknownOption(option, command string, flags []cli.Flag) error {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	if near := ui.Nearest(strings.TrimLeft(option, "-"), names); near != "" {
		return fmt.Errorf("no option %s; did you mean --%s? \"%s --help\" lists them all", option, near, command)
	}
	return fmt.Errorf("no option %s; \"%s --help\" lists them", option, command)
}

func named(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func find(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return flags[i]
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// optionalValue is the value of an option that may stand without one.
type optionalValue interface{ takes(word string) bool }

func optional(f cli.Flag) (optionalValue, bool) {
	g, ok := f.(*cli.GenericFlag)
	if !ok {
		return nil, false
	}
	v, ok := g.Value.(optionalValue)
	return v, ok
}
