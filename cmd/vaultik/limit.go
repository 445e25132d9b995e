package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"
)

// byteRate is in bytes per second: "5MiB/s". 0 is no limit.
type byteRate int64

const (
	// leastRate is one at which a backup still gets somewhere, and servers do
	// not take its connections for idle ones.
	leastRate = 1000
	// rateBurst is what may go out at once after a pause, in bytes.
	rateBurst = 256 << 10
)

func (r *byteRate) UnmarshalText(text []byte) (err error) {
	*r, err = parseRate(string(text))
	return err
}

// parseRate reads what parseSize does, with or without "/s" behind it. Bits
// are refused: people who write 5Mb/s often mean them.
func parseRate(s string) (byteRate, error) {
	const write = "write for example 500kB/s or 5MiB/s, in bytes per second"
	text := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "/s"))
	n, err := parseSize(text)
	switch {
	case strings.HasSuffix(text, "b") || strings.HasSuffix(text, "bit"):
		return 0, fmt.Errorf("%q could be in bits; %s", s, write)
	case err != nil:
		return 0, fmt.Errorf("%q is not a rate; %s", s, write)
	case n < leastRate:
		return 0, fmt.Errorf("%q is too slow to get anywhere, the least is 1kB/s; %s", s, write)
	}
	return byteRate(n), nil
}

// uploadLimit is what all uploads of a run share: the option's rate, else the
// config's.
func uploadLimit(c *cli.Context, conf *config) (*rate.Limiter, error) {
	r := conf.LimitUpload
	if s := c.String("limit-upload"); c.IsSet("limit-upload") {
		var err error
		if r, err = parseRate(s); err != nil {
			return nil, fmt.Errorf("--limit-upload: %w", err)
		}
	}
	if r == 0 {
		return nil, nil
	}
	return rate.NewLimiter(rate.Limit(r), rateBurst), nil
}
