package main

import (
	"fmt"
	"strings"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/remote/audit"
)

// coverageLine is what JSON says of what was read on this machine.
type coverageLine struct {
	Read      audit.Tally `json:"read"` // in this round
	All       audit.Tally `json:"all"`
	Began     string      `json:"began"`
	LastBegan string      `json:"last_round_began"` // "" if there was none
	LastEnded string      `json:"last_round_ended"`
}

// summary says what was looked at, and what that proves.
func (r *auditReport) summary(s audit.Result, o audit.Options) {
	line := struct {
		Type         string             `json:"message_type"`
		Writers      int                `json:"writers"`
		Snapshots    int                `json:"snapshots"`
		Forgotten    int                `json:"forgotten"`
		Named        audit.Tally        `json:"needed"`
		Unreferenced audit.Tally        `json:"unreferenced"`
		Pending      audit.Tally        `json:"pending"`
		Sums         int64              `json:"checksums"`
		NoSums       int64              `json:"no_checksums"`
		Read         audit.Tally        `json:"read"`
		Coverage     *coverageLine      `json:"coverage"`
		FirstLook    []string           `json:"first_look"`
		Findings     map[audit.Kind]int `json:"findings"`
	}{
		"summary", s.Writers, s.Snapshots, s.Forgotten, s.Named, s.Unreferenced, s.Pending,
		s.Sums, s.NoSums, s.Read, nil, append([]string{}, s.Unknown...), r.kinds,
	}
	if c := s.Coverage; c != nil {
		line.Coverage = &coverageLine{Read: c.Read, All: c.All, Began: stamp(c.Began)}
		if c.Round != nil {
			line.Coverage.LastBegan, line.Coverage.LastEnded = stamp(c.Round.Began), stamp(c.Round.Ended)
		}
	}
	r.ui.Result(line)

	r.ui.Say("%s of %s; needed: %s, %s", ui.Plural(int64(s.Snapshots), "snapshot", "snapshots"), ui.Plural(int64(s.Writers), "writer", "writers"),
		ui.Plural(s.Named.Objects, "object", "objects"), ui.Size(s.Named.Bytes))
	if s.Unreferenced.Objects > 0 {
		r.ui.Say("%s more, %s, are needed by none; \"vaultik prune\" deletes them", ui.Count(s.Unreferenced.Objects), ui.Size(s.Unreferenced.Bytes))
	}
	if s.Pending.Objects > 0 {
		r.ui.Say("%s more, %s, are of runs that are under way, or were broken off", ui.Count(s.Pending.Objects), ui.Size(s.Pending.Bytes))
	}
	r.ui.Say("%s", proof(s, o))
	for _, line := range r.files {
		r.ui.Say("%s", line)
	}
	if r.code == 0 {
		r.ui.Say("the store is as it should be, as far as that shows")
	}
	if len(s.Unknown) > 0 {
		r.ui.Say("first look from this machine at writer %s: that newer snapshots were hidden could not be seen; from now on it can", strings.Join(s.Unknown, ", "))
	}
}

// proof says what the audit shows, and what it does not.
func proof(s audit.Result, o audit.Options) string {
	var said []string
	switch {
	case !o.Sums:
		said = append(said, "presence and sizes were checked as the store lists them")
	case s.Sums > 0:
		said = append(said, fmt.Sprintf("checksums that the store recorded at upload: %s right; they prove the upload, not what is on its disks today", ui.Count(s.Sums)))
	}
	if s.NoSums > 0 {
		said = append(said, fmt.Sprintf("the store has recorded no checksum of %s; only --read shows whether the bytes are right", ui.Plural(s.NoSums, "object", "objects")))
	}
	if o.Read != nil {
		said = append(said, fmt.Sprintf("read and hashed: %s of %s", ui.Plural(s.Read.Objects, "object", "objects"), ui.Size(s.Read.Bytes)))
	}
	if c := s.Coverage; c != nil {
		said = append(said, covered(*c))
	}
	return strings.Join(said, "\n")
}

// covered says what was read on this machine, and when.
func covered(c audit.Coverage) string {
	var text string
	if !c.Began.IsZero() && c.All.Bytes > 0 {
		text = fmt.Sprintf("read on this machine since %s: %.1f%% of the bytes; ", day(c.Began), 100*float64(c.Read.Bytes)/float64(c.All.Bytes))
	}
	if c.Round == nil {
		return text + "it was never read as a whole on this machine"
	}
	if day(c.Round.Began) == day(c.Round.Ended) {
		return text + "it was last read as a whole on " + day(c.Round.Ended)
	}
	return text + fmt.Sprintf("it was last read as a whole between %s and %s", day(c.Round.Began), day(c.Round.Ended))
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// stamp is a time for programs, "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
