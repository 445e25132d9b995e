package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/config"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// readFlag is the value of --read: nothing, which means all, or a part.
type readFlag struct {
	set  bool
	part string // "" for all
}

// IsBoolFlag lets the option stand without a value.
func (*readFlag) IsBoolFlag() bool { return true }

// parts are values that no snapshot is called by, so that they may stand behind
// the option without a "=".
var parts = regexp.MustCompile(`^([0-9.]+%|[0-9.]+ ?[kKMGTP]i?B|[0-9]+/[0-9]+)$`)

func (*readFlag) takes(word string) bool { return parts.MatchString(word) }

// String implements flag.Value.
func (r *readFlag) String() string { return r.part }

// Set implements flag.Value. What is wrong with a part is said later, since the
// flag package would call it a boolean.
func (r *readFlag) Set(value string) error {
	*r = readFlag{set: value != "false"}
	if value != "true" && value != "false" { // those are no value
		r.part = value
	}
	return nil
}

func (r *readFlag) subset() (audit.Subset, error) {
	if r.part == "" {
		return audit.Subset{}, nil
	}
	s, err := parseSubset(r.part)
	if err != nil {
		err = fmt.Errorf("--read: %w", err)
	}
	return s, err
}

var (
	shares   = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)%$`)
	slicesOf = regexp.MustCompile(`^([0-9]{1,6})/([0-9]{1,6})$`)
)

func parseSubset(text string) (audit.Subset, error) {
	if m := shares.FindStringSubmatch(text); m != nil {
		if percent, err := strconv.ParseFloat(m[1], 64); err == nil && percent > 0 && percent <= 100 {
			return audit.Subset{Percent: percent}, nil
		}
		return audit.Subset{}, fmt.Errorf("%q is no share: more than 0%%, at most 100%%", text)
	}
	if m := slicesOf.FindStringSubmatch(text); m != nil {
		n, errN := strconv.Atoi(m[1])
		of, errOf := strconv.Atoi(m[2])
		if errN != nil || errOf != nil || n < 1 || n > of {
			return audit.Subset{}, fmt.Errorf("%q is no slice: 1/7, 2/7 … 7/7 are the seven of seven", text)
		}
		return audit.Subset{Slice: n, Of: of}, nil
	}
	size, err := config.ParseSize(text)
	if err != nil {
		return audit.Subset{}, fmt.Errorf("%q is neither a share such as 5%%, nor a size such as 20GiB, nor a slice such as 3/7", text)
	}
	return audit.Subset{Bytes: int64(size)}, nil
}

var spans = regexp.MustCompile(`^([0-9]{1,6})(h|d|w|mo|y)$`)

// parseAge reads a span of time; a month has 30 days.
func parseAge(text string) (time.Duration, error) {
	units := map[string]time.Duration{"h": 1, "d": 24, "w": 7 * 24, "mo": 30 * 24, "y": 365 * 24}
	if m := spans.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		age := time.Duration(n) * units[m[2]] * time.Hour
		if err == nil && n > 0 && age/(units[m[2]]*time.Hour) == time.Duration(n) {
			return age, nil
		}
	}
	return 0, fmt.Errorf("%q is no span of time; write 26h, 30d, 6w, 3mo or 1y", text)
}

// maxAges is what --max-age says.
type maxAges struct {
	all  time.Duration
	by   map[string]time.Duration // by SET and WRITER/SET; 0: any age
	used map[string]bool          // names that some set has
}

func parseAges(words []string) (maxAges, error) {
	ages := maxAges{by: make(map[string]time.Duration), used: make(map[string]bool)}
	for _, word := range words {
		name, text, named := strings.Cut(word, "=")
		if !named {
			name, text = "", word
		}
		var age time.Duration
		var err error
		if !named || text != "off" {
			age, err = parseAge(text)
		}
		switch {
		case err != nil:
			return ages, fmt.Errorf("--max-age %s: %w", word, err)
		case named:
			ages.by[name] = age
		default:
			ages.all = age
		}
	}
	return ages, nil
}

func (m maxAges) of(writer, set string) time.Duration {
	for _, name := range []string{writer + "/" + set, set} {
		if age, ok := m.by[name]; ok && set != "" {
			m.used[name] = true
			return age
		}
	}
	return m.all
}

// idle are findings about ages of sets of which there is no snapshot: one that
// is misspelt, or was given another name, must not look like one that is fresh.
func (m maxAges) idle() (found []audit.Finding) {
	for _, name := range slices.Sorted(maps.Keys(m.by)) {
		if m.by[name] == 0 || m.used[name] {
			continue
		}
		what := fmt.Sprintf("set %q", name)
		writer, set, both := strings.Cut(name, "/")
		if both {
			what = fmt.Sprintf("set %q of writer %q", set, writer)
		} else {
			writer, set = "", name
		}
		found = append(found, audit.Finding{Kind: audit.Stale, Writer: writer, Set: set,
			Err: fmt.Errorf("--max-age %s: there is no snapshot of %s, new or old", name, what)})
	}
	return found
}
