package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"git.eeqj.de/sneak/vaultik/fs"
	"git.eeqj.de/sneak/vaultik/fs/fstest"
)

// people is a tree with files of several people, who hide some of them.
func people() []fstest.Entry {
	of := func(uid uint32, mode uint32) func(*fstest.Entry) {
		return func(e *fstest.Entry) { e.UID, e.GID, e.Mode = uid, uid, mode }
	}
	return []fstest.Entry{
		fstest.Dir("/").With(of(0, 0o755)),
		fstest.Regular("/open", []byte("for all")).With(of(0, 0o644)),
		fstest.Regular("/hers", []byte("hers")).With(of(4000, 0o600)),
		fstest.Regular("/su", []byte("#!/bin/sh")).With(of(0, 0o4755)),
		fstest.Dir("/closed").With(of(5000, 0o2700)),
		fstest.Regular("/closed/none", []byte("for nobody")).With(of(5000, 0)),
		fstest.Symlink("/link", "open").With(of(5000, 0o777)),
	}
}

// owners shows who owns what is in a tree, and may do what.
func owners(t *testing.T, root string, paths ...string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, p := range paths {
		var st unix.Stat_t
		var sx unix.Statx_t
		err := errors.Join(unix.Lstat(filepath.Join(root, p), &st),
			unix.Statx(unix.AT_FDCWD, filepath.Join(root, p), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx))
		if err != nil {
			t.Error(err)
		}
		out[p] = fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
		if sx.Uid != st.Uid || sx.Gid != st.Gid || uint32(sx.Mode) != st.Mode {
			t.Errorf("%s: statx says %d:%d %o", p, sx.Uid, sx.Gid, sx.Mode)
		}
	}
	return out
}

func TestAnOwnerIsShownForEverythingAndMayReadIt(t *testing.T) {
	m := mountSnapshot(t, Options{Owner: &Owner{4000, 4001}}, fs.ChunkOptions{}, people()...)
	want := map[string]string{
		"":            "4000:4001 0755",
		"open":        "4000:4001 0644",
		"hers":        "4000:4001 0600",
		"su":          "4000:4001 0755", // else a copy would lend the owner's rights
		"closed":      "4000:4001 2700",
		"closed/none": "4000:4001 0400",
		"link":        "4000:4001 0777",
	}
	paths := []string{"", "open", "hers", "su", "closed", "closed/none", "link"}
	for _, how := range []string{"looked up", "after a listing"} {
		if diff := cmp.Diff(want, owners(t, m.Dir(), paths...)); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		names(t, m.path("closed"))
		names(t, m.Dir())
	}
}

func TestAnOwnerIsShownInAStoreBeforeAndAfterASnapshotIsEntered(t *testing.T) {
	w := fstest.New(t)
	w.Snapshot("ann", "home", people()...)
	m, _ := mountStore(t, w, Options{Owner: &Owner{4000, 4001}})
	snapshot := "snapshots/ann-20261124-031022Z"
	want := map[string]string{"": "4000:4001 0555", "snapshots": "4000:4001 0555", "latest": "4000:4001 0777", snapshot: "4000:4001 0755"}
	for _, how := range []string{"before", "after"} {
		if diff := cmp.Diff(want, owners(t, m.Dir(), "", "snapshots", "latest", snapshot)); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		names(t, filepath.Join(m.Dir(), snapshot))
	}
}

// Others are let in only where the mount is open to them, and then as far as
// owners and modes do.
func TestWhoMayReadWhat(t *testing.T) {
	needRoot(t, "become somebody else")
	needPrograms(t, "setpriv", "cat")
	for _, c := range []struct {
		name string
		o    Options
		want map[string]bool
	}{
		{"closed to others", Options{}, map[string]bool{"open": false, "hers": false, "closed/none": false}},
		{"open to others", Options{AllowOther: true}, map[string]bool{"open": true, "hers": true, "closed/none": false}},
		{"open, and all hers", Options{AllowOther: true, Owner: &Owner{4000, 4001}}, map[string]bool{"open": true, "hers": true, "closed/none": true}},
		{"open, and all another's", Options{AllowOther: true, Owner: &Owner{4002, 4002}}, map[string]bool{"open": true, "hers": false, "closed/none": false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mountSnapshot(t, c.o, fs.ChunkOptions{}, people()...)
			for p := m.Dir(); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
				if p != m.Dir() {
					if err := os.Chmod(p, 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			for name, may := range c.want {
				out, err := exec.Command("setpriv", "--reuid=4000", "--regid=4001", "--clear-groups", "cat", m.path(name)).CombinedOutput()
				if (err == nil) != may {
					t.Errorf("%s: %v: %s", name, err, out)
				}
			}
			for name := range c.want { // whoever mounted may always
				if _, err := os.ReadFile(m.path(name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
