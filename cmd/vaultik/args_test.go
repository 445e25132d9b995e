package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// Options may stand before or behind the words and the command.
func TestOptionsMayStandAnywhere(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "vaultik"},
		{"backup", "vaultik backup"},
		{"backup home --json -q", "vaultik --json --quiet backup -- home"},
		{"backup -e A --exclude B -e=C", "vaultik backup --exclude A --exclude B --exclude=C"},
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
		a.ui = &ui.Printer{}
		program := a.cli()
		got, _ := arrange(append([]string{"vaultik"}, strings.Fields(c.in)...), program.Flags, program.Commands)
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
	a.ui = &ui.Printer{}
	program := a.cli()
	f.Fuzz(func(t *testing.T, line string) {
		in := append([]string{"vaultik"}, strings.Fields(line)...)
		left := map[string]int{}
		// Options may come out by their other name, for which the count of
		// words stays.
		out, _ := arrange(in, program.Flags, program.Commands)
		value := func(w string) string {
			if strings.HasPrefix(w, "-") && w != "-" && w != "--" {
				_, v, attached := strings.Cut(w, "=")
				return fmt.Sprintf("-option %q %v", v, attached)
			}
			return w
		}
		for _, w := range out {
			left[value(w)]++
		}
		for _, w := range in {
			left[value(w)]--
		}
		delete(left, "--") // a mark, not a word
		for w, n := range left {
			if n != 0 {
				t.Errorf("%q: %q is there %+d times too often", line, w, n)
			}
		}
	})
}

func TestAnOptionNobodyKnowsIsNamedAsItWasTyped(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"backup --bogus", `vaultik: error: no option --bogus; "vaultik backup --help" lists them` + "\n"},
		{"backup --bogus=secret x", `vaultik: error: no option --bogus; "vaultik backup --help" lists them` + "\n"},
		{"--bogus backup", `vaultik: error: no option --bogus; "vaultik --help" lists them` + "\n"},
		{"snapshot list --wrtier x", `vaultik: error: no option --wrtier; did you mean --writer? "vaultik snapshot list --help" lists them all` + "\n"},
	} {
		b := newBench(t)
		if code := b.vaultik(strings.Fields(c.line)...); code != 1 || b.err.String() != c.want {
			t.Errorf("vaultik %s: exit code %d, %q, want %q", c.line, code, b.err.String(), c.want)
		}
	}
	b := newBench(t)
	if code := b.vaultik("backup", "-h"); code != 0 || !strings.Contains(b.out.String(), "--exclude") {
		t.Errorf("help: exit code %d\n%s%s", code, b.out.String(), b.err.String())
	}
}

// Both names of an option that may be repeated add up.
func TestExcludesOfBothNamesAddUp(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"one", "two", "three"} {
		if err := os.WriteFile(b.dir+"/source/"+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--store", b.store(), "--kit", b.dir + "/kit.txt", b.dir + "/source"}, {"backup", "--json", "-e", "one", "--exclude", "two"}} {
		if code := b.vaultik(args...); code != 0 {
			t.Fatalf("vaultik %q: exit code %d\n%s", args, code, b.err.String())
		}
	}
	everything := strings.Count(b.dir, "/") + 3 // the folders, "/", the source and a file
	if want := fmt.Sprintf(`"files":%d,`, everything); !strings.Contains(b.out.String(), want) {
		t.Errorf("want %s in %s", want, b.out.String())
	}
}
