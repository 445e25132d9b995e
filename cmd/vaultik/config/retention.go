package config

import (
	"fmt"
	"slices"
	"strconv"

	"git.eeqj.de/sneak/vaultik/remote/retention"
)

// Retention is a policy in the config: [retention], and for one set
// [sets.NAME.retention].
type Retention struct {
	KeepLast    KeepCount      `toml:"keep_last"`
	KeepHourly  KeepCount      `toml:"keep_hourly"`
	KeepDaily   KeepCount      `toml:"keep_daily"`
	KeepWeekly  KeepCount      `toml:"keep_weekly"`
	KeepMonthly KeepCount      `toml:"keep_monthly"`
	KeepYearly  KeepCount      `toml:"keep_yearly"`
	KeepWithin  retention.Span `toml:"keep_within"`
	KeepTag     []string       `toml:"keep_tag"`
	OlderThan   retention.Span `toml:"older_than"`
	SetAside    []string       `toml:"set_aside"`
	MinAge      retention.Span `toml:"min_age"`
}

var retentionKeys = []string{
	"keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within", "keep_tag", "older_than", "set_aside", "min_age",
}

// KeepCount is how many of something a rule keeps.
type KeepCount int

// UnmarshalText reads a number; 0 is no rule.
func (k *KeepCount) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return fmt.Errorf("%q is not a number of snapshots, such as 7", text)
	}
	*k = KeepCount(n)
	return nil
}

func (r *Retention) policy() retention.Policy {
	if r == nil {
		return retention.Policy{}
	}
	return retention.Policy{
		Last: int(r.KeepLast), Hourly: int(r.KeepHourly), Daily: int(r.KeepDaily), Weekly: int(r.KeepWeekly),
		Monthly: int(r.KeepMonthly), Yearly: int(r.KeepYearly),
		Within: r.KeepWithin, Tags: r.KeepTag, OlderThan: r.OlderThan, Aside: r.SetAside, MinAge: r.MinAge,
	}
}

// Policies are the rules that count: the options, or else the config's.
type Policies struct {
	Given  bool             // the options say what is kept, the config does not count
	Option retention.Policy // MinAge and Aside count without Given, too
	Config *Config          // nil: there is none
}

// Of is the policy for a set. Options count instead of the config, and a set's
// own section instead of the general one, but for min_age, which holds until
// something else is said, and set_aside, of which all counts.
func (p Policies) Of(set string) retention.Policy {
	var general, own *Retention
	if p.Config != nil {
		general = p.Config.Retention
		if s, ok := p.Config.Set(set); ok {
			own = s.Retention
		}
	}
	policy := general.policy()
	aside := slices.Concat(policy.Aside, own.policy().Aside, p.Option.Aside)
	least := policy.MinAge
	if own != nil {
		policy = own.policy()
	}
	if p.Given {
		policy = p.Option
	}
	if own != nil && !own.MinAge.IsZero() {
		least = own.MinAge
	}
	if !p.Option.MinAge.IsZero() {
		least = p.Option.MinAge
	}
	policy.MinAge, policy.Aside = least, aside
	return policy
}
