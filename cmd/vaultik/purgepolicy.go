package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// policyFlags are the rules as options.
func policyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "keep-last", Usage: "keep the newest `N` snapshots"},
		&cli.StringFlag{Name: "keep-hourly", Usage: "keep the newest snapshot of each of the newest `N` hours that have one"},
		&cli.StringFlag{Name: "keep-daily", Usage: "likewise of `N` days"},
		&cli.StringFlag{Name: "keep-weekly", Usage: "likewise of `N` weeks, from Monday on"},
		&cli.StringFlag{Name: "keep-monthly", Usage: "likewise of `N` months"},
		&cli.StringFlag{Name: "keep-yearly", Usage: "likewise of `N` years"},
		&cli.StringFlag{Name: "keep-within", Usage: "keep what is not older than the set's newest by more than `SPAN`: 12h, 30d, 6w, 3mo, 1y"},
		&cli.StringSliceFlag{Name: "keep-tag", Usage: "keep what has the tag `TEXT`; may be repeated"},
		&cli.StringFlag{Name: "older-than", Usage: "forget only what is older than `SPAN`, counted from now; without a --keep option, all of it"},
		&cli.StringSliceFlag{Name: "set-aside", Usage: "keep the snapshot `ID`, and let no rule go by its time, which a wrong clock made; may be repeated"},
		&cli.StringFlag{Name: "min-age", Usage: "forget nothing that the store took less than `SPAN` before the writer's newest, by its own clock"},
	}
}

func readPolicies(c *cli.Context, conf *config.Config) (config.Policies, error) {
	p := config.Policies{Config: conf}
	o := &p.Option
	for name, field := range map[string]*int{
		"keep-last": &o.Last, "keep-hourly": &o.Hourly, "keep-daily": &o.Daily, "keep-weekly": &o.Weekly, "keep-monthly": &o.Monthly, "keep-yearly": &o.Yearly,
	} {
		if !c.IsSet(name) {
			continue
		}
		var n config.KeepCount
		if err := n.UnmarshalText([]byte(c.String(name))); err != nil {
			return p, fmt.Errorf("--%s: %w", name, err)
		}
		*field = int(n)
	}
	for name, field := range map[string]*retention.Span{"keep-within": &o.Within, "older-than": &o.OlderThan, "min-age": &o.MinAge} {
		if !c.IsSet(name) {
			continue
		}
		var err error
		if *field, err = retention.ParseSpan(c.String(name)); err != nil {
			return p, fmt.Errorf("--%s: %w", name, err)
		}
	}
	o.Tags, o.Aside = c.StringSlice("keep-tag"), c.StringSlice("set-aside")
	for _, tag := range o.Tags {
		if err := remote.CheckTag(tag); err != nil {
			return p, fmt.Errorf("--keep-tag: no snapshot has such a tag: %w", err)
		}
	}
	for _, f := range policyFlags() {
		p.Given = p.Given || !slices.Contains([]string{"min-age", "set-aside"}, f.Names()[0]) && c.IsSet(f.Names()[0])
	}
	return p, nil
}
