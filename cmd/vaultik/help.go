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

const appHelp = `{{.Name}} - {{.Usage}}

Usage: {{.Name}} [options] COMMAND [options] [words]

{{.Description}}

Commands:{{range .VisibleCommands}}
  {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

Options, before or after the command:{{range .VisibleFlags}}
  {{.}}{{end}}
`

// commandHelp is for commands with words and for those with commands of their
// own.
const commandHelp = `{{.HelpName}} - {{.Usage}}

Usage: {{.HelpName}} {{if .VisibleCommands}}COMMAND {{end}}[options]{{if .ArgsUsage}} {{.ArgsUsage}}{{else if .VisibleCommands}} [words]{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleCommands}}
Commands:{{range .VisibleCommands}}
  {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

"{{.HelpName}} COMMAND --help" has their options.
{{else}}
Options, also those of the program ("vaultik --help"), before or after the words:{{range .VisibleFlags}}
  {{.}}{{end}}
{{end}}`

// askHelp makes "help COMMAND" the same as "COMMAND --help".
func askHelp(args []string, commands []*cli.Command) ([]string, error) {
	if len(args) < 2 || args[1] != "help" {
		return args, nil
	}
	path := []string{"vaultik"}
	for _, word := range args[2:] {
		if strings.HasPrefix(word, "-") {
			continue
		}
		command := named(commands, word)
		if command == nil {
			return nil, unknownCommand(strings.Join(path, " "), word, commands)
		}
		path, commands = append(path, word), command.Subcommands
	}
	return append(path, "--help"), nil
}
