package main

import (
	"strings"
	"testing"

	"git.eeqj.de/sneak/vaultik/remote"
)

func TestHostNamesBecomeWriters(t *testing.T) {
	for host, want := range map[string]string{
		"ann":                      "ann",
		"ann.example.org":          "ann.example.org",
		"Ann's Laptop":             "Ann-s-Laptop",
		"-.":                       "host",
		"":                         "host",
		"büro":                     "b-ro",
		strings.Repeat("long", 40): strings.Repeat("long", 14),
	} {
		name := writerName(host)
		if name != want {
			t.Errorf("%q became %q, want %q", host, name, want)
		}
		if err := remote.CheckName(name); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
}
