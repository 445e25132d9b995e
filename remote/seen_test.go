package remote_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func openSeen(t *testing.T, path string) *remote.Seen {
	t.Helper()
	s, err := remote.OpenSeen(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARollbackIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen.json")
	a, b := remote.Sum([]byte("a")), remote.Sum([]byte("b"))
	for i, c := range []struct {
		store, writer string
		seq           remote.Seq
		hash          remote.Hash
		rollback      bool
		fork          bool
	}{
		{store: "s", writer: "host", seq: 0},
		{store: "s", writer: "host", seq: 5, hash: a},
		{store: "s", writer: "host", seq: 5, hash: a},
		{store: "s", writer: "host", seq: 5, hash: b, fork: true},
		{store: "s", writer: "host", seq: 4, hash: b, rollback: true},
		{store: "s", writer: "host", seq: 0, rollback: true},
		{store: "s", writer: "other", seq: 1, hash: b},
		{store: "another", writer: "host", seq: 4, hash: b},
		{store: "s", writer: "host", seq: 9, hash: b},
		{store: "s", writer: "host", seq: 5, hash: a, rollback: true},
	} {
		// Every step in a process of its own.
		err := openSeen(t, path).Check(c.store, c.writer, c.seq, c.hash, noon)
		var r *remote.Rollback
		if errors.As(err, &r) != c.rollback || errors.Is(err, remote.ErrNotTrusted) != (c.rollback || c.fork) || (err != nil) != (c.rollback || c.fork) {
			t.Errorf("step %d: %v", i, err)
		}
		if c.rollback && (r.Writer != c.writer || r.Shown != c.seq || r.When != "2026-01-02T12:00:00Z" || !strings.Contains(err.Error(), c.writer)) {
			t.Errorf("step %d: %+v", i, r)
		}
	}
	if diff := cmp.Diff([]string{"host", "other"}, openSeen(t, path).Writers("s")); diff != "" {
		t.Errorf("writers (-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info.Mode(), err)
	}
}

func TestTwoProcessesShareTheMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen.json")
	first, second := openSeen(t, path), openSeen(t, path)
	if err := first.Check("s", "host", 7, h, noon); err != nil {
		t.Fatal(err)
	}
	if err := second.Check("s", "other", 1, h, noon); err != nil {
		t.Fatal(err)
	}
	var r *remote.Rollback
	if err := second.Check("s", "host", 6, h, noon); !errors.As(err, &r) {
		t.Errorf("%v, want what the first process remembered", err)
	}
	if diff := cmp.Diff([]string{"host", "other"}, openSeen(t, path).Writers("s")); diff != "" {
		t.Errorf("writers (-want +got):\n%s", diff)
	}
}

func TestTheMemoryServesManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen.json")
	s := openSeen(t, path)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			err := s.Check("s", "host", remote.Seq(i+1), h, noon)
			if err != nil && !errors.Is(err, remote.ErrNotTrusted) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := openSeen(t, path).Check("s", "host", 50, h, noon); err != nil {
		t.Errorf("the newest is not remembered: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v, want one file", entries, err)
	}
}

func TestADamagedMemoryIsNotTakenForNone(t *testing.T) {
	for text, want := range map[string]error{
		"": remote.ErrCorrupt, "{}": remote.ErrCorrupt, `{"format":1,"stores":{"s":{"host":{"seq":-1}}}}`: remote.ErrCorrupt,
		`{"format":2,"stores":{}}`: remote.ErrUnsupported,
	} {
		path := writeFile(t, "seen.json", []byte(text))
		if _, err := remote.OpenSeen(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %v with the file's name", text, err, want)
		}
	}
}

func TestWhatCannotBeRememberedIsSaid(t *testing.T) {
	s := openSeen(t, filepath.Join(t.TempDir(), "missing", "seen.json"))
	if err := s.Check("s", "host", 1, h, noon); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
}
