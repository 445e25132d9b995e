package main

import (
	"strings"
	"testing"
)

func TestRates(t *testing.T) {
	for in, want := range map[string]byteRate{
		"5MiB/s": 5 << 20, "5MiB": 5 << 20, "500kB/s": 500_000, "500 KB/s": 500_000, "1.5MB/s": 1_500_000, "2M/s": 2_000_000, "4096B": 4096, " 1GiB /s ": 1 << 30,
	} {
		if got, err := parseRate(in); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "is not a rate", "fast": "is not a rate", "5000": "is not a rate", "0": "is not a rate", "-5MiB/s": "is not a rate", "5MiB/h": "is not a rate", "5MiB/s/s": "is not a rate",
		"/s": "is not a rate", "NaN": "is not a rate", "99999999EB/s": "is not a rate",
		"5Mb/s": "bits", "5Mbit/s": "bits", "8000kbit": "bits", "999B/s": "too slow",
	} {
		if got, err := parseRate(in); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "5MiB/s, in bytes") {
			t.Errorf("%q: %d, %v; want an error with %q and an example", in, got, err, says)
		}
	}
}
