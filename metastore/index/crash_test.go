package index

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/metastore"
)

// frozen is the file of an index as a crash would leave it, and its log.
type frozen struct{ db, wal []byte }

func (f frozen) thaw(t *testing.T) *Index {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index.db")
	for name, content := range map[string][]byte{path: f.db, path + "-wal": f.wal} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// freeze is an index's files as a crash would leave them now.
func freeze(t *testing.T, path string) frozen {
	t.Helper()
	db, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return frozen{db, wal}
}

// story commits two runs and begins a third, each with so many files. It
// returns what the two snapshots show, and the index at every commit.
func story(t *testing.T, files int) (shows []map[string]metastore.File, points []frozen) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index.db")
	x, err := Create(t.Context(), path, "ann", Options{OnCommit: func() {
		points = append(points, freeze(t, path))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	x.db.Batch = 100
	for seq := range int64(3) {
		r := begin(t, x, "home")
		record(t, r, "/", folder())
		record(t, r, "/a", withContent(t, r, file(uint64(seq)), fmt.Sprintf("content %d", seq)))
		for i := range files {
			record(t, r, fmt.Sprintf("/f%d", i), file(uint64(seq)))
		}
		if _, err := r.Close(t.Context(), at(t, r, fmt.Sprintf("/f%d", seq))); err != nil {
			t.Fatal(err)
		}
		if seq == 2 {
			break
		}
		shows = append(shows, dumpFiles(t, r))
		commit(t, r)
	}
	return shows, points
}

// stage orders what a Status can say.
func stage(s Status) int64 {
	switch {
	case s.Intent != nil:
		return 3*s.LastSeq + 2
	case s.Interrupted != 0:
		return 3*s.LastSeq + 1
	}
	return 3 * s.LastSeq
}

// settle ends what was under way and compares all that was committed.
func settle(t *testing.T, x *Index, shows []map[string]metastore.File) Status {
	t.Helper()
	s, err := x.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := s.LastSeq
	if s.Intent != nil {
		last = s.Intent.Seq
		err = x.Confirm(t.Context(), last)
	} else {
		err = x.Rollback(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for seq, show := range shows[:last] {
		if diff := cmp.Diff(show, readFiles(t, x.db.Conn, x.db.Conn, "SELECT "+versionColumns+" FROM snapshot_files f WHERE run = ?", seq+1)); diff != "" {
			t.Errorf("snapshot %d: %s", seq+1, diff)
		}
	}
	// The index is as good as new: the next run sees what the last one saw.
	r := begin(t, x, "home")
	if last > 0 {
		if diff := cmp.Diff(shows[last-1], dumpFiles(t, r)); diff != "" {
			t.Errorf("run %d begins with: %s", r.Seq(), diff)
		}
		if missing, err := r.Missing(t.Context()); len(missing) > 0 || err != nil {
			t.Errorf("missing: %v %v", missing, err)
		}
	}
	record(t, r, "/after", file(1))
	commit(t, r)
	return s
}

func TestACrashAtAnyCommitLosesNothing(t *testing.T) {
	shows, points := story(t, 250)
	seen := map[int64]bool{}
	var last int64
	for i, p := range points {
		s := settle(t, p.thaw(t), shows)
		now := stage(s)
		if now < last || i%2 == 0 && now != last {
			t.Errorf("point %d: stage %d after %d: %+v", i, now, last, s)
		}
		last, seen[now] = now, true
	}
	for want := range int64(8) {
		if !seen[want] && want != 3 { // Confirm leads from 2 to 3, Begin on to 4
			t.Errorf("no crash at stage %d", want)
		}
	}
	if !seen[3] {
		t.Error("no crash after the first commit")
	}
}

// A power cut may take the end of the log with it, at any byte.
func TestALogCutAnywhereIsAnEarlierState(t *testing.T) {
	shows, points := story(t, 5)
	for i, p := range points {
		whole := stage(settle(t, p.thaw(t), shows))
		for part := range 7 {
			cut := frozen{p.db, p.wal[:len(p.wal)*part/7]}
			if s := stage(settle(t, cut.thaw(t), shows)); s > whole {
				t.Errorf("point %d with %d bytes of log: stage %d, with all %d", i, len(cut.wal), s, whole)
			}
		}
	}
}
