// Skips runs "go test -json …", given as its arguments, and prints what go test
// would print without -json, and at the end which tests were skipped and why.
// It fails if a test fails, or if one is skipped that is not expected to be:
// that a program or a permission is missing shall not pass for success.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// expected are the tests that may be skipped where everything is there.
var expected = regexp.MustCompile(`^git\.eeqj\.de/sneak/vaultik/(` + strings.Join([]string{
	// Made by hand, once for each version of the format.
	`integration\.TestMakeGoldenStores`,
	// Processes that tests start.
	`fs/fusefs\.(TestMountUntilKilled|TestProgram)`,
	// Where the disk below an overlay has no room for large attributes.
	`fs/fusefs\.TestAnOverlayOverAMountIsAFileSystem/XAttrLarge`,
	// Inputs that a fuzz target has no use for.
	`[a-z0-9/]+\.Fuzz\w+/.*`,
	// For users who are not root.
	`remote/dir\.TestWhatTheUserMayNotDoIsDenied`,
	// Needs age 1.3, which Debian has not yet; integration builds one.
	`remote/blob\.TestStockProgramsPrintTheChunks/hybrid`,
	`remote/seal\.TestStockProgramsOpenIt/hybrid`,
	// For stores in folders.
	`(fs/diskcache|remote/mem|remote/storetest)\.Test.*/folders_are_what_the_keys_say`,
}, "|") + `)$`)

// event is a line of what go test -json prints; "go doc test2json" explains.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// name is what a test is called in messages.
func (e event) name() string { return e.Package + "." + e.Test }

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command given; want one such as go test -json")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	reported := report(lines, out)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return reported
}

// report prints what happened; it returns an error if something was skipped
// that was not expected to be.
func report(lines io.Reader, out io.Writer) error {
	said := map[string][]string{} // what tests said that are not done yet
	skipped := map[string]string{}
	r := bufio.NewReader(lines)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line) // go itself, about a flag
			} else {
				e.tell(out, said, skipped)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return judge(out, skipped)
}

// tell prints what a person wants to read of an event at once: packages, and
// all that a test said that failed.
func (e event) tell(out io.Writer, said map[string][]string, skipped map[string]string) {
	switch {
	case e.Test == "" && e.Output != "" && e.Output != "PASS\n":
		fmt.Fprint(out, e.Output)
	case e.Test == "" && e.Action == "fail": // and took with it the tests that are not done
		for _, name := range slices.Sorted(maps.Keys(said)) {
			if strings.HasPrefix(name, e.Package+".") {
				fmt.Fprint(out, strings.Join(said[name], ""))
				delete(said, name)
			}
		}
	case e.Action == "output":
		said[e.name()] = append(said[e.name()], e.Output)
	case e.Action == "fail":
		fmt.Fprint(out, strings.Join(said[e.name()], ""))
		delete(said, e.name())
	case e.Action == "pass":
		delete(said, e.name())
	case e.Action == "skip" && e.Test != "": // without a test, it is a package that has none
		skipped[e.name()] = reason(said[e.name()])
		delete(said, e.name())
	}
}

// reason is what a test said when it was skipped.
func reason(said []string) string {
	for _, line := range slices.Backward(said) {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "===") && !strings.HasPrefix(text, "---") {
			return text
		}
	}
	return "no reason given"
}

// judge lists what was skipped.
func judge(out io.Writer, skipped map[string]string) error {
	unexpected := 0
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		word := "skipped, as expected"
		if !expected.MatchString(name) {
			word = "SKIPPED"
			unexpected++
		}
		fmt.Fprintf(out, "%s: %s: %s\n", word, name, skipped[name])
	}
	if unexpected > 0 {
		return fmt.Errorf("%d tests were skipped that should have run: install what they need, or list them in integration/skips", unexpected)
	}
	return nil
}
