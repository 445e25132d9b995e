package main

import (
	"fmt"
	"strings"
)

// byteRate is in bytes per second: "5MiB/s". 0 is no limit.
type byteRate int64

// leastRate is one at which a backup still gets somewhere, and servers do not
// take its connections for idle ones.
const leastRate = 1000

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
