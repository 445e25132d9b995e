package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFoldersFollowTheSystemsRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		root   bool
		vars   map[string]string
		option string
		want   Folders
		says   string
	}{
		{"root", true, nil, "", Folders{"/etc/vaultik/vaultik.toml", "/var/lib/vaultik", "/var/cache/vaultik"}, ""},
		{"a user", false, map[string]string{"HOME": "/home/ann"}, "",
			Folders{"/home/ann/.config/vaultik/vaultik.toml", "/home/ann/.local/state/vaultik", "/home/ann/.cache/vaultik"}, ""},
		{"XDG", false, map[string]string{"HOME": "/home/ann", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "relative"}, "",
			Folders{"/c/vaultik/vaultik.toml", "/s/vaultik", "/home/ann/.cache/vaultik"}, ""},
		{"own", true, map[string]string{"VAULTIK_CONFIG": "/a/b.toml", "VAULTIK_STATE_DIR": "/s/", "VAULTIK_CACHE_DIR": "/c"}, "",
			Folders{"/a/b.toml", "/s", "/c"}, ""},
		{"option", true, map[string]string{"VAULTIK_CONFIG": "relative"}, "/x.toml", Folders{"/x.toml", "/var/lib/vaultik", "/var/cache/vaultik"}, ""},
		{"no home", false, nil, "", Folders{}, "HOME is not set"},
		{"no home but all else", false, map[string]string{"VAULTIK_CONFIG": "/c", "VAULTIK_STATE_DIR": "/s", "VAULTIK_CACHE_DIR": "/d"}, "", Folders{"/c", "/s", "/d"}, ""},
		{"relative", true, map[string]string{"VAULTIK_STATE_DIR": "state"}, "", Folders{}, `VAULTIK_STATE_DIR="state" is not an absolute path`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := FindAll(func(v string) string { return c.vars[v] }, c.root, c.option)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("second")); !os.IsExist(err) {
		t.Errorf("second create: %v", err)
	}
	link := path + ".link"
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	if err := Create(link, []byte("through")); !os.IsExist(err) {
		t.Errorf("through a dangling link: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if b, _ := os.ReadFile(path); string(b) != "first" {
		t.Errorf("content %q", b)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
