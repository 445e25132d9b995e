package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagHelp is an option's line in a command's help: its names and what it takes,
// a tab, and what it does, with its default if it has one. The library's own
// names every option that may be repeated twice, and tells of each switch that
// it is off.
func flagHelp(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	value, usage := placeholder(d.GetUsage())
	if _, ok := optional(f); ok {
		value = "[=" + value + "]"
	} else if d.TakesValue() {
		value = " " + value
	}
	var names []string
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+name+value)
	}
	switch text := d.GetDefaultText(); text {
	case "", "false", "0", `""`:
	default:
		usage += " (default: " + strings.Trim(text, `"`) + ")"
	}
	return fmt.Sprintf("%s\t%s", strings.Join(names, ", "), usage)
}

// placeholder is what stands in backquotes in an option's usage, and the usage
// without them.
func placeholder(usage string) (value, text string) {
	before, rest, _ := strings.Cut(usage, "`")
	value, after, ok := strings.Cut(rest, "`")
	if !ok {
		return "", usage
	}
	return value, before + value + after
}
