package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange moves options in front of the words they were written behind, since
// people write "vaultik mount DIR --identity KIT" as well as the reverse, and
// urfave/cli, as the standard library, reads options only up to the first
// word. Options of the program may stand anywhere, too. What follows "--" are
// words, as are lone dashes. An option nobody knows stays with its command,
// which then complains.
func arrange(args []string, global []cli.Flag, commands []*cli.Command) []string {
	if len(args) == 0 {
		return nil
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
		name, _, attached := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		to := &own
		f := find(flags, name)
		if f == nil {
			if f = find(global, name); f != nil {
				to = &programs
			}
		}
		*to = append(*to, arg)
		if f != nil && !attached && takesValue(f) && len(rest) > 0 {
			*to = append(*to, rest[0])
			rest = rest[1:]
		}
	}
	out := slices.Concat(args[:1], programs, path, own)
	if len(words) > 0 {
		if len(path) > 0 {
			out = append(out, "--")
		}
		out = append(out, words...)
	}
	return out
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
