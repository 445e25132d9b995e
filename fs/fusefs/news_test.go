package fusefs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
	"git.eeqj.de/sneak/vaultik/remote"
)

// A lost blob is one message, however many files are in it, and so is a store
// that does not answer, however many blobs are asked for.
func TestWhatIsKnownIsNotToldAgainForAWhile(t *testing.T) {
	read := func(path, blob string, why error) error {
		return fmt.Errorf("read %q: %w", path, &fs.BlobError{Key: blob, Err: why})
	}
	var told []string
	now := time.Unix(1_800_000_000, 0)
	n := newNews(func(err error) { told = append(told, err.Error()) })
	n.now = func() time.Time { return now }
	away := errors.New("away")
	for _, step := range []struct {
		after time.Duration
		err   error
		want  string // begins with; "" if nothing is told
	}{
		{0, read("/a", "one", fs.ErrLost), `read "/a": blob "one": lost from the store; other files in this blob`},
		{0, read("/b", "one", fs.ErrLost), ""},
		{0, read("/c", "two", fs.ErrLost), `read "/c": blob "two": lost`},
		{time.Minute, read("/a", "one", fs.ErrLost), ""},
		{10 * time.Minute, read("/b", "one", fs.ErrLost), `read "/b": blob "one": lost`},
		{0, read("/a", "three", away), `read "/a": blob "three": away`},
		{0, read("/b", "four", away), ""},
		{11 * time.Second, read("/b", "four", away), `read "/b": blob "four": away`},
		{0, errors.New("x"), "x"},
		{0, errors.New("y"), "y"},
		{0, errors.New("x"), ""},
	} {
		told = nil
		now = now.Add(step.after)
		n.tell(step.err)
		if got := strings.Join(told, "\n"); !strings.HasPrefix(got, step.want) || (got == "") != (step.want == "") {
			t.Errorf("%v: got %q, want %q", step.err, got, step.want)
		}
	}
	for i := range 3 * maxTold {
		n.tell(fmt.Errorf("%d", i))
	}
	if len(n.told) > maxTold {
		t.Errorf("%d are remembered", len(n.told))
	}
}

// What a person reads about a lost blob: the path as the snapshot has it, and
// the blob, each once.
func TestALostBlobIsOneMessageWithOnePath(t *testing.T) {
	m := mountSnapshot(t, Options{}, fs.ChunkOptions{},
		fstest.Regular("/home/ann/a", fstest.Noise(1, 300_000)), fstest.Regular("/home/ann/b", fstest.Noise(2, 300_000)))
	first := m.manifest.Blobs.Add[0]
	key := remote.BlobKey("ann", first.Seq, first.SHA256)
	if err := m.Store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := os.ReadFile(m.path("home/ann", name)); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := fmt.Sprintf(`read "/home/ann/a" in snapshot %s: blob %q: lost from the store; other files in this blob may fail as well, which is not told for 10m0s`, m.manifest.Snapshot, key)
	if diff := cmp.Diff(want, fmt.Sprint(m.warned())); diff != "" {
		t.Error(diff)
	}
}
