package retention

import "fmt"

// The rules that a Reason names.
const (
	RuleNewestOfWriter = "newest-of-writer"
	RuleNewestOfSet    = "newest-of-set"
	RuleLast           = "last"
	RuleHourly         = "hourly"
	RuleDaily          = "daily"
	RuleWeekly         = "weekly"
	RuleMonthly        = "monthly"
	RuleYearly         = "yearly"
	RuleTag            = "tag"
	RuleWithin         = "within"
	RuleNotOlder       = "not-older"
	RuleMinAge         = "min-age"
	RuleNoStoreTime    = "no-store-time"
	RuleTimes          = "times-not-trusted"
	RuleAside          = "set-aside"
	RuleOlder          = "older" // from here on: why it may go
	RuleNone           = "no-rule"
	RuleNamed          = "named"
)

// Reason is why a snapshot stays or goes.
type Reason struct {
	Rule  string `json:"rule"`
	N     int    `json:"n,omitempty"`     // it is the Nth that the rule keeps, from the newest on …
	Of    int    `json:"of,omitempty"`    // … of so many at most
	Value string `json:"value,omitempty"` // the hour, day …, the tag, the span, or what is wrong with its time
}

// String says it for people.
func (r Reason) String() string {
	switch r.Rule {
	case RuleNewestOfWriter:
		return "newest of the writer"
	case RuleNewestOfSet:
		return "newest of the set"
	case RuleLast:
		return fmt.Sprintf("last %d of %d", r.N, r.Of)
	case RuleTag:
		return fmt.Sprintf("tag %q", r.Value)
	case RuleWithin:
		return "within " + r.Value + " of the set's newest"
	case RuleNotOlder:
		return "not older than " + r.Value
	case RuleMinAge:
		return "the store took it less than " + r.Value + " before the writer's newest"
	case RuleNoStoreTime:
		return "the store does not say whether it is there for " + r.Value
	case RuleTimes:
		if r.Value != "" {
			return "its time cannot be true: " + r.Value
		}
		return "claimed times of this set are not to be trusted"
	case RuleAside:
		return "set aside"
	case RuleOlder:
		return "older than " + r.Value
	case RuleNone:
		return "no rule keeps it"
	case RuleNamed:
		return "named"
	}
	return fmt.Sprintf("%s %d of %d (%s)", r.Rule, r.N, r.Of, r.Value)
}
