package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fingerprint is a hash over the names and contents of a tree.
func fingerprint(t *testing.T, root string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		h.Write([]byte(path[len(root):] + "\x00"))
		h.Write(text)
		return err
	})
	must(t, err)
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Figures of two machines can be compared only if both had the same bytes.
func TestCorporaAreTheSameEverywhere(t *testing.T) {
	tiny, random, sparse := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, tinyFiles(t.Context(), tiny, 1200))
	must(t, randomFile(t.Context(), filepath.Join(random, "random"), 1<<20, 1<<20, 1))
	must(t, randomFile(t.Context(), filepath.Join(sparse, "sparse"), 64<<20, 2<<20, 2))
	got := []string{fingerprint(t, tiny), fingerprint(t, random), fingerprint(t, sparse)}
	if d := cmp.Diff([]string{"5ee8f79810df8473", "73ed1a088b631d6b", "1be8bb10631a770f"}, got); d != "" {
		t.Errorf("the corpora have changed (-want +got):\n%s", d)
	}
	_, err := edit(tiny, 0)
	must(t, err)
	if got, want := fingerprint(t, tiny), "d753e4106b9967d9"; got != want {
		t.Errorf("after edits %s, want %s", got, want)
	}
}

func TestASparseFileHasHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	must(t, randomFile(t.Context(), path, 1<<30, 2<<20, 2))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	text := make([]byte, 16)
	for off, data := range map[int64]bool{0: true, 1<<20 - 16: true, 1 << 20: false, 1 << 29: true, 1<<29 + 1<<20: false} {
		_, err := f.ReadAt(text, off)
		must(t, err)
		if got := string(text) != strings.Repeat("\x00", 16); got != data {
			t.Errorf("data at %d: %t, want %t", off, got, data)
		}
	}
}

func TestEditsTouchWhatTheySay(t *testing.T) {
	root := t.TempDir()
	must(t, tinyFiles(t.Context(), root, 3000))
	before := sizesOf(t, root)
	got, err := edit(root, 1)
	must(t, err)
	after := sizesOf(t, root)
	var found edits
	for name, size := range before {
		now, there := after[name]
		if !there {
			now, there = after[strings.Replace(name, "/", ".renamed/", 1)]
		}
		switch {
		case !there:
			found.deleted++
		case now > size:
			found.appended++
		}
	}
	for name := range after {
		if _, there := before[strings.Replace(name, ".renamed", "", 1)]; !there {
			found.added++
		}
		if strings.Contains(name, ".renamed/") {
			found.renamed++
		}
	}
	if d := cmp.Diff(found, got, cmp.AllowUnexported(edits{})); d != "" {
		t.Errorf("edits (-found +said):\n%s", d)
	}
	if got.renamed < 300 {
		t.Errorf("%d files are in the renamed folder, want most of 500", got.renamed)
	}
	got.renamed = 0
	if want := (edits{appended: 30, added: 200, deleted: 200}); got != want {
		t.Errorf("edits: %+v, want %+v", got, want)
	}
}

func sizesOf(t *testing.T, root string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		all[path[len(root)+1:]] = info.Size()
		return err
	})
	must(t, err)
	return all
}

func TestThePageComparesMedians(t *testing.T) {
	at := func(wall time.Duration, peak, stored int64, noise float64) sample {
		return sample{wall: wall, cpu: wall / 2, peak: peak << 20, stored: stored << 20, noise: noise}
	}
	r := &results{
		corpus: corpus{name: "A tree", kind: "source"}, extent: extent{1234, 5 << 20}, floor: 9 << 20,
		edits: edits{appended: 12, added: 200, deleted: 200, renamed: 11},
		runs: map[key][]sample{
			{"vaultik", first}: {at(3*time.Second, 90, 7, 0), at(99*time.Second, 99, 7, 0.5), at(1*time.Second, 80, 7, 0), at(2*time.Second, 70, 7, 0.1)},
			{"restic", first}:  {at(8*time.Second, 100, 10, 0.4)},
			{find, unchanged}:  {at(time.Second/4, 9, 0, 0)},
		},
	}
	m := machine{cpu: "Abacus", cores: 2, memory: 8 << 30, kernel: "6.1", system: "Debian", fileSystem: "ext4"}
	tools := []*tool{{name: "vaultik", version: "0.1"}, {name: "restic", version: "0.19"}}
	text := page(options{runs: 3, patience: time.Minute}, m, tools, []*results{r}, time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	for _, line := range []string{
		"| date | 2026-11-25 |",
		"| restic | 0.19 |",
		"| borg | not there |",
		"| machine | 2 × Abacus, 8.0 GiB |",
		"| A tree | first backup | wall ÷ restic | ≤ 0.5 | 0.25 | reached † |",
		"| A tree | first backup | stored ÷ restic | ≤ 0.8 | 0.70 | reached † |",
		"| A tree | first backup | peak memory | ≤ 250 MiB | 80.00 MiB | reached |",
		"| A tree | unchanged | wall ÷ restic | ≤ 0.15 |  | not measured |",
		"1,234 entries, 5.0 MiB. Edits: 12 files appended to, 200 added, 200 deleted; 11 in the renamed folder.",
		"| first backup | vaultik | 3 | 2.00 s | 0.25 | 1.00 s | 80 MiB | 7.0 MiB | 0.70 |",
		"| first backup | restic † | 1 | 8.00 s |  | 4.00 s | 100 MiB | 10 MiB |  |",
		"| unchanged | find | 1 | 0.25 s |  | 0.12 s | ≤ 9.0 MiB |  |  |",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the page lacks %q:\n%s", line, text)
		}
	}
}

func TestAToolWithEnoughQuietRunsIsDone(t *testing.T) {
	quiet, loud, slow := sample{}, sample{noise: 0.3}, sample{wall: time.Hour, noise: 0.3}
	b := &bench{options: options{runs: 2, patience: time.Minute}, tools: []*tool{{name: "done"}, {name: "loud"}, {name: "slow"}}}
	r := &results{corpus: corpus{kind: "tiny"}, runs: map[key][]sample{
		{"done", first}: {quiet, loud, quiet}, {"done", unchanged}: {quiet, quiet},
		{"loud", first}: {quiet, loud}, {"loud", unchanged}: {quiet, quiet},
		{"slow", first}: {slow}, {"slow", unchanged}: {quiet},
	}}
	var got []string
	for _, t := range b.due(r, 1) {
		got = append(got, t.name)
	}
	if d := cmp.Diff([]string{"loud"}, got); d != "" {
		t.Errorf("due in the next round (-want +got):\n%s", d)
	}
}

func TestToolsTakeTurnsInBeingFirst(t *testing.T) {
	b := &bench{options: options{runs: 2}, tools: []*tool{{name: "a"}, {name: "b"}, {name: "c"}}}
	var got []string
	for round := range 4 {
		got = append(got, b.due(&results{}, round)[0].name)
	}
	if d := cmp.Diff([]string{"a", "b", "c", "a"}, got); d != "" {
		t.Errorf("first in each round (-want +got):\n%s", d)
	}
}

// What a child used is told apart from what others did meanwhile.
func TestARunIsMeasured(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 4<<20), 0o644))
	s, err := measure(command(t.Context(), "sha256sum", filepath.Join(dir, "file")))
	must(t, err)
	if s.wall <= 0 || s.cpu <= 0 || s.peak <= 0 {
		t.Errorf("a run of sha256sum cost %+v", s)
	}
	_, err = measure(command(t.Context(), "sha256sum", filepath.Join(dir, "none")))
	if err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a failing program: %v, want what it said", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
