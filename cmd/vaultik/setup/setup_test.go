package setup

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/state"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
)

// place is a folder with all that a machine has, the store included.
type place struct {
	dir string
	err bytes.Buffer // what the person is told
}

func newPlace(t *testing.T) *place {
	t.Helper()
	b := &place{dir: t.TempDir()}
	if err := os.Mkdir(b.dir+"/source", 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// plan is an init that is about to start.
func plan(t *testing.T, b *place) *Plan {
	t.Helper()
	u, err := stores.ParseURL("file://" + b.dir + "/store")
	if err != nil {
		t.Fatal(err)
	}
	return &Plan{
		Machine: Machine{
			UI: &ui.Printer{Out: io.Discard, Err: &b.err}, Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
			Random: rand.Reader, Version: "0.1.0",
		},
		Where: state.Folders{Config: b.dir + "/vaultik.toml", State: b.dir + "/state", Cache: b.dir + "/cache"},
		URL:   u, Paths: []string{b.dir + "/source"}, Writer: "ann", Kit: b.dir + "/kit.txt", Classic: true,
	}
}

// files lists what is below a folder, folders left out.
func files(t *testing.T, root string) []string {
	t.Helper()
	list := []string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(p, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// whole is what a finished init leaves.
var whole = []string{
	"kit.txt", "state/ann/chunker.secret", "state/ann/index.db", "state/ann/signing.key", "state/lock",
	"store/ann/signers/1.pub", "store/ann/signers/1.pub.minisig", "vaultik.toml",
}

var initSteps = []string{
	"make the writer's files", "claim the writer's name in the store", "make the writer's index", "certify the signing key",
	"write the recovery kit", "write the config", "finish",
}

var errTest = errors.New("the test's error")

// An init that fails at any step leaves nothing behind, and the next one
// succeeds under the same name.
func TestInitThatFailsLeavesNothing(t *testing.T) {
	for _, step := range initSteps {
		t.Run(step, func(t *testing.T) {
			b := newPlace(t)
			s := plan(t, b)
			s.before = func(name string) error {
				if name == step {
					return errTest
				}
				return nil
			}
			if err := s.Run(context.Background()); !errors.Is(err, errTest) {
				t.Fatalf("error %v", err)
			}
			if d := cmp.Diff([]string{}, files(t, b.dir)); d != "" {
				t.Errorf("left behind (-want +got):\n%s", d)
			}
			if err := plan(t, b).Run(context.Background()); err != nil {
				t.Fatalf("the next init: %v", err)
			}
			if d := cmp.Diff(whole, files(t, b.dir)); d != "" {
				t.Errorf("after the next init (-want +got):\n%s", d)
			}
		})
	}
}

// An init that is killed before any step is cleaned up by the next one, which
// gets the name that the killed one had claimed.
func TestInitThatIsKilledIsRepaired(t *testing.T) {
	type killed struct{}
	for _, step := range initSteps {
		t.Run(step, func(t *testing.T) {
			b := newPlace(t)
			s := plan(t, b)
			s.before = func(name string) error {
				if name == step {
					panic(killed{}) // nothing is undone
				}
				return nil
			}
			func() {
				defer func() {
					if _, ok := recover().(killed); !ok {
						t.Fatal("it was not killed")
					}
				}()
				_ = s.Run(context.Background())
			}()
			if err := plan(t, b).Run(context.Background()); err != nil {
				t.Fatalf("the next init: %v", err)
			}
			if d := cmp.Diff(whole, files(t, b.dir)); d != "" {
				t.Errorf("after the next init (-want +got):\n%s", d)
			}
			if step != initSteps[0] && !strings.Contains(b.err.String(), "an earlier init was interrupted") {
				t.Errorf("nobody was told:\n%s", b.err.String())
			}
		})
	}
}

// Cleaning up removes what the interrupted init made and nothing else.
func TestCleaningUpSparesWhatOthersMade(t *testing.T) {
	b := newPlace(t)
	s := plan(t, b)
	s.before = func(name string) error {
		if name != "finish" {
			return nil
		}
		// Meanwhile somebody replaced the kit, the config and the signer.
		for _, p := range []string{"kit.txt", "vaultik.toml", "store/ann/signers/1.pub"} {
			if err := errors.Join(os.Remove(b.dir+"/"+p), os.WriteFile(b.dir+"/"+p, []byte("theirs"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return errTest
	}
	if err := s.Run(context.Background()); !errors.Is(err, errTest) {
		t.Fatalf("error %v", err)
	}
	if d := cmp.Diff([]string{"kit.txt", "store/ann/signers/1.pub", "vaultik.toml"}, files(t, b.dir)); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
}

func TestInitRefusesWhatIsThere(t *testing.T) {
	for _, c := range []struct{ name, file, says string }{
		{"a config", "vaultik.toml", "this machine is set up"},
		{"a kit", "kit.txt", "never overwritten"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newPlace(t)
			if err := os.WriteFile(b.dir+"/"+c.file, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := plan(t, b).Run(context.Background()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if d := cmp.Diff([]string{c.file}, files(t, b.dir), sortStrings); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			if text, _ := os.ReadFile(b.dir + "/" + c.file); string(text) != "precious" {
				t.Errorf("%s was overwritten: %q", c.file, text)
			}
		})
	}
}

var sortStrings = cmp.Transformer("sort", func(list []string) map[string]bool {
	set := map[string]bool{}
	for _, s := range list {
		set[s] = true
	}
	return set
})
