package daemon

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The log of all mounts together is bounded, whoever moves it.
func TestTheLogOfMountsIsBounded(t *testing.T) {
	dir := t.TempDir()
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	one, err := OpenLog(dir, "/one", now)
	if err != nil {
		t.Fatal(err)
	}
	two, err := OpenLog(dir, "/two", now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { one.file.Close(); two.file.Close() }()
	line := []byte(strings.Repeat("x", 1000) + "\n")
	for range 3000 {
		for _, l := range []*Log{one, two} {
			if _, err := l.Write(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"/mount.log", "/mount.log.old"} {
		if i, err := os.Stat(dir + name); err != nil || i.Size() > logLimit+2000 {
			t.Errorf("%s: %v", name, err)
		}
	}
	last, err := os.ReadFile(dir + "/mount.log")
	if err != nil || !strings.Contains(string(last), " /one: x") || !strings.Contains(string(last), " /two: x") {
		t.Error("one of the two does not write to the file of that name")
	}
}
