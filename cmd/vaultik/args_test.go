package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Options may stand before or behind the words and the command.
func TestOptionsMayStandAnywhere(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "vaultik"},
		{"backup", "vaultik backup"},
		{"backup home --json -q", "vaultik --json -q backup -- home"},
		{"mount DIR --identity kit", "vaultik mount --identity kit -- DIR"},
		{"mount --identity=kit latest DIR --store URL", "vaultik --store URL mount --identity=kit -- latest DIR"},
		{"key certify ann --kit K --store URL", "vaultik --store URL key certify --kit K -- ann"},
		{"--config C snapshot list --writer ann", "vaultik --config C snapshot list --writer ann"},
		{"init --store URL -- --odd -name", "vaultik --store URL init -- --odd -name"},
		{"backup --exclude -x home", "vaultik backup --exclude -x -- home"},
		{"backup backup", "vaultik backup -- backup"},
		{"backup --nonsense home", "vaultik backup --nonsense -- home"},
		{"snapshot show - --json", "vaultik --json snapshot show -- -"},
		{"nonsense --json", "vaultik --json nonsense"},
		{"--help", "vaultik --help"},
		{"mount --help", "vaultik mount --help"},
	} {
		a := newApp()
		a.ui = &ui{}
		program := a.cli()
		got := arrange(append([]string{"vaultik"}, strings.Fields(c.in)...), program.Flags, program.Commands)
		if d := cmp.Diff(strings.Fields(c.want), got); d != "" {
			t.Errorf("vaultik %s (-want +got):\n%s", c.in, d)
		}
	}
}

// Whatever is typed, nothing is lost and nothing is invented.
func FuzzArrangeKeepsEveryWord(f *testing.F) {
	f.Add("mount DIR --identity kit --json -- x")
	f.Add("--store")
	f.Add("backup --tag=a --tag b -q -v - --")
	a := newApp()
	a.ui = &ui{}
	program := a.cli()
	f.Fuzz(func(t *testing.T, line string) {
		in := append([]string{"vaultik"}, strings.Fields(line)...)
		left := map[string]int{}
		for _, w := range arrange(in, program.Flags, program.Commands) {
			left[w]++
		}
		for _, w := range in {
			left[w]--
		}
		delete(left, "--") // a mark, not a word
		for w, n := range left {
			if n != 0 {
				t.Errorf("%q: %q is there %+d times too often", line, w, n)
			}
		}
	})
}
