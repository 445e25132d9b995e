package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// retentionConfig is a policy in the config: [retention], and for one set
// [sets.NAME.retention].
type retentionConfig struct {
	KeepLast    keepCount      `toml:"keep_last"`
	KeepHourly  keepCount      `toml:"keep_hourly"`
	KeepDaily   keepCount      `toml:"keep_daily"`
	KeepWeekly  keepCount      `toml:"keep_weekly"`
	KeepMonthly keepCount      `toml:"keep_monthly"`
	KeepYearly  keepCount      `toml:"keep_yearly"`
	KeepWithin  retention.Span `toml:"keep_within"`
	KeepTag     []string       `toml:"keep_tag"`
	OlderThan   retention.Span `toml:"older_than"`
	SetAside    []string       `toml:"set_aside"`
	MinAge      retention.Span `toml:"min_age"`
}

var retentionKeys = []string{
	"keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within", "keep_tag", "older_than", "set_aside", "min_age",
}

// keepCount is how many of something a rule keeps.
type keepCount int

func (k *keepCount) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return fmt.Errorf("%q is not a number of snapshots, such as 7", text)
	}
	*k = keepCount(n)
	return nil
}

func (r *retentionConfig) policy() retention.Policy {
	if r == nil {
		return retention.Policy{}
	}
	return retention.Policy{
		Last: int(r.KeepLast), Hourly: int(r.KeepHourly), Daily: int(r.KeepDaily), Weekly: int(r.KeepWeekly),
		Monthly: int(r.KeepMonthly), Yearly: int(r.KeepYearly),
		Within: r.KeepWithin, Tags: r.KeepTag, OlderThan: r.OlderThan, Aside: r.SetAside, MinAge: r.MinAge,
	}
}

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

// policies are the rules that count: the options, or else the config's.
type policies struct {
	given  bool             // by options
	option retention.Policy // MinAge too
	conf   *config          // nil: there is none
}

func readPolicies(c *cli.Context, conf *config) (policies, error) {
	p := policies{conf: conf}
	o := &p.option
	for name, field := range map[string]*int{
		"keep-last": &o.Last, "keep-hourly": &o.Hourly, "keep-daily": &o.Daily, "keep-weekly": &o.Weekly, "keep-monthly": &o.Monthly, "keep-yearly": &o.Yearly,
	} {
		if !c.IsSet(name) {
			continue
		}
		var n keepCount
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
		p.given = p.given || !slices.Contains([]string{"min-age", "set-aside"}, f.Names()[0]) && c.IsSet(f.Names()[0])
	}
	return p, nil
}

// of is the policy for a set. Options count instead of the config, and a set's
// own section instead of the general one, but for min_age, which holds until
// something else is said, and set_aside, of which all counts.
func (p policies) of(set string) retention.Policy {
	var general, own *retentionConfig
	if p.conf != nil {
		general, own = p.conf.Retention, p.conf.Sets[name{set}].Retention
	}
	policy := general.policy()
	aside := slices.Concat(policy.Aside, own.policy().Aside, p.option.Aside)
	least := policy.MinAge
	if own != nil {
		policy = own.policy()
	}
	if p.given {
		policy = p.option
	}
	if own != nil && !own.MinAge.IsZero() {
		least = own.MinAge
	}
	if !p.option.MinAge.IsZero() {
		least = p.option.MinAge
	}
	policy.MinAge, policy.Aside = least, aside
	return policy
}
