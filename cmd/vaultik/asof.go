package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/retention"
)

func asOfFlag() cli.Flag {
	return &cli.StringFlag{Name: "as-of", Usage: "the store as it was at `TIME`, in a bucket with versions: 2026-01-31, \"2026-01-31 18:00\", 2026-01-31T18:00:00Z, or 2d for two days ago"}
}

// moments are the ways to write one, in local time unless a zone is named.
var moments = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", time.RFC3339, "2006-01-02 15:04:05Z07:00"}

// parseMoment reads a point in time. A day is meant with its first moment.
func parseMoment(text string, now time.Time) (time.Time, error) {
	for _, layout := range moments {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if span, err := retention.ParseSpan(text); err == nil {
		return span.Before(now), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 2026-01-31, \"2026-01-31 18:00\", 2026-01-31T18:00:00Z, or 2d for two days ago", text)
}

// pastStore is a store as it was, closed with the one that it was taken from.
type pastStore struct {
	remote.Store
	now stores.Store
}

func (s pastStore) Close() error         { return s.now.Close() }
func (s pastStore) Unwrap() remote.Store { return s.Store }

// goBack puts the store as it was in the place of the store, for --as-of.
func (a *app) goBack(c *cli.Context, r *reading) error {
	text := c.String("as-of")
	if text == "" {
		return nil
	}
	at, err := parseMoment(text, a.now())
	if err != nil {
		return fmt.Errorf("--as-of: %w", err)
	}
	if at.After(a.now()) {
		return fmt.Errorf("--as-of: %s is in the future", at.Format(time.RFC3339))
	}
	store, keeps := remote.AsVersioned(r.store)
	if keeps {
		keeps, err = store.KeepsVersions(c.Context)
		if errors.Is(err, remote.ErrDenied) {
			keeps, err = true, nil // the listing will show it
		}
	}
	switch {
	case err != nil:
		return err
	case !keeps:
		return fmt.Errorf("--as-of: store %s keeps no versions, so that nobody can see what it was; this needs a bucket with versioning", r.url)
	}
	r.store, r.past = pastStore{remote.AsOf(store, at), r.store}, true
	return nil
}
