package config

import (
	"crypto/rand"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/stores"
	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

const (
	testRecipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	goodConfig    = `store = "file:///srv/backup"
writer = "ann"
state_dir = "/var/lib/vaultik"
recipients = ["` + testRecipient + `"]
compression = "better"
limit_upload = "5MiB/s"
[sets.home]
paths = ["/home/ann", "/etc/"]
exclude = ["*.o", "/home/ann/.cache"]
exclude_file = ["/etc/vaultik/exclude"]
exclude_if_present = [".nobackup"]
exclude_larger_than = "4GiB"
exclude_caches = true
one_file_system = true

[sets.mail]
paths = ["/var/mail"]
`
)

func TestConfigSaysEverything(t *testing.T) {
	c, err := Parse("vaultik.toml", []byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Store.String(); got != "file:///srv/backup" {
		t.Errorf("store %q", got)
	}
	if got := seal.Level(c.Compression); got != seal.Better {
		t.Errorf("compression %v", got)
	}
	if c.CompactPerRun != 1<<30 || c.ResealPerRun != 0 {
		t.Errorf("compact_per_run %d, reseal_per_run %d", c.CompactPerRun, c.ResealPerRun)
	}
	if c, err := Parse("vaultik.toml", []byte("compact_per_run = \"0\"\nreseal_per_run = \"10GiB\"\n"+goodConfig)); err != nil || c.CompactPerRun != 0 || c.ResealPerRun != 10<<30 {
		t.Errorf("with compact_per_run and reseal_per_run: %v, %v", c, err)
	}
	if c.LimitUpload != 5<<20 {
		t.Errorf("limit_upload %d", c.LimitUpload)
	}
	if c.CacheSize != 0 {
		t.Errorf("cache_size %d", c.CacheSize)
	}
	if c, err := Parse("vaultik.toml", []byte("cache_size = \"20GiB\"\n"+goodConfig)); err != nil || c.CacheSize != 20<<30 {
		t.Errorf("with cache_size: %v, %v", c, err)
	}
	if d := cmp.Diff([]string{"home", "mail"}, c.SetNames()); d != "" {
		t.Errorf("sets:\n%s", d)
	}
	want := Set{
		Paths: []Folder{{"/home/ann"}, {"/etc"}}, Exclude: []string{"*.o", "/home/ann/.cache"},
		ExcludeFile: []Folder{{"/etc/vaultik/exclude"}}, ExcludeIfPresent: []string{".nobackup"},
		ExcludeLargerThan: 4 << 30, ExcludeCaches: true, OneFileSystem: true,
	}
	if d := cmp.Diff(want, c.Sets[Name{"home"}], cmp.AllowUnexported(Folder{})); d != "" {
		t.Errorf("set home (-want +got):\n%s", d)
	}
}

// Every mistake is told with its place, and what was perhaps meant.
func TestConfigMistakesAreToldWithTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		says           []string
	}{
		{"misspelt at the top", "writer =", "writter =", []string{"c.toml:2:1:", `no setting "writter"`, `did you mean "writer"`}},
		{"misspelt in a set", "exclude_caches", "exclude_cache", []string{"c.toml:13:1:", `"sets.home.exclude_cache"`, `did you mean "exclude_caches"`}},
		{"nothing near", "compression", "zzzzzz", []string{"c.toml:5:1:", "known here: store, writer"}},
		{"no TOML", `"ann"`, `"ann`, []string{"c.toml:2:"}},
		{"a key twice", "compression = \"better\"", "writer = \"bob\"", []string{"c.toml:5:"}},
		{"a list for a size", `"4GiB"`, `["4GiB"]`, []string{"c.toml:12:1:", "sets.home.exclude_larger_than must be a string"}},
		{"a number for a size", `"4GiB"`, `400`, []string{"c.toml:12:1:", "must be a string"}},
		{"a size without unit", `"4GiB"`, `"400"`, []string{"c.toml:12:", `"400" is not a size; write it with its unit`}},
		{"a string for a list", `["*.o", "/home/ann/.cache"]`, `"*.o"`, []string{"c.toml:9:1:", "sets.home.exclude must be a list of strings"}},
		{"a number in a list", `"*.o"`, `7`, []string{"c.toml:9:1:", "must be a list of strings"}},
		{"a string for a yes", `one_file_system = true`, `one_file_system = "yes"`, []string{"c.toml:14:1:", "must be true or false"}},
		{"no table", `[sets.mail]`, `[sets]` + "\n" + `mail = "/var/mail"`, []string{"c.toml:17:1:", "sets.mail must be a table"}},
		{"no table of rules", `[sets.mail]`, "retention = 3\n" + `[sets.mail]`, []string{"c.toml:16:1:", "sets.home.retention must be a table, as [sets.home.retention] begins one"}},
		{"a number for tags", `[sets.mail]`, "[retention]\nkeep_tag = 3\n" + `[sets.mail]`, []string{"c.toml:17:1:", "retention.keep_tag must be a list of strings"}},
		{"a number for a set's tags", `[sets.mail]`, "retention = {keep_last = 2, keep_tag = 3}\n" + `[sets.mail]`, []string{"c.toml:16:", "sets.home.retention.keep_tag must be a list"}},
		{"a size that is none", `"4GiB"`, `"large"`, []string{"c.toml:12:", `"large" is not a size`}},
		{"no store", `file:///srv/backup`, `/srv/backup`, []string{"c.toml:1:", "file:///folder"}},
		{"a relative path", `"/var/mail"`, `"var/mail"`, []string{"c.toml:17:", "not an absolute path"}},
		{"a writer that cannot be", `"ann"`, `"../ann"`, []string{"c.toml:2:", "not a valid name"}},
		{"a set that cannot be", `[sets.mail]`, `[sets."a/b"]`, []string{"c.toml:16:7:", `"a/b" is not a valid name`}},
		{"a secret key", testRecipient, "AGE-SECRET-KEY-1QQQQ", []string{"c.toml:4:", "secret key"}},
		{"a recipient with a slip", testRecipient, strings.Replace(testRecipient, "ql3z", "ql3y", 1), []string{"c.toml:4:", `recipient "age1ql3y7hjy54pw3hyw"… is not a whole age public key`}},
		{"a compression that is none", `"better"`, `"best"`, []string{"c.toml:5:", "fastest, default, better, max or off"}},
		{"a rate that is none", `5MiB/s`, `fast`, []string{"c.toml:6:", `"fast" is not a rate`}},
		{"a set without paths", `["/var/mail"]`, `[]`, []string{`set "mail" has no paths`}},
		{"a recipient twice", `"` + testRecipient + `"]`, `"` + testRecipient + `", "` + testRecipient + `"]`, []string{"c.toml: recipients:", "twice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(goodConfig, c.from, c.to, 1)
			if text == goodConfig {
				t.Fatalf("%q is not in the config", c.from)
			}
			_, err := Parse("c.toml", []byte(text))
			if err == nil {
				t.Fatal("no error")
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error lacks %q:\n%v", s, err)
				}
			}
			if strings.Contains(err.Error(), "SECRET-KEY-1QQQQ") {
				t.Errorf("the error repeats a secret key:\n%v", err)
			}
		})
	}
}

// Sets are backed up in the order in which the file has them, however they
// are written.
func TestSetsKeepTheirOrder(t *testing.T) {
	for text, want := range map[string][]string{
		goodConfig: {"home", "mail"},
		"[sets.z]\npaths = ['/z']\n[sets.a]\npaths = ['/a']":                     {"z", "a"},
		"sets = { z = { paths = ['/z'] }, m = { paths = ['/m'] } }":              {"z", "m"},
		"sets.z.paths = ['/z']\nsets.a.paths = ['/a']\nsets.z.exclude = ['*.o']": {"z", "a"},
	} {
		c, err := Parse("c.toml", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if d := cmp.Diff(want, c.SetNames()); d != "" {
			t.Errorf("(-want +got):\n%s%s", d, text)
		}
	}
}

// What init writes is read back as it was meant, whatever the paths are.
func TestWrittenConfigIsReadBack(t *testing.T) {
	root := rootForTest(t)
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringMatching(`[ -~äöü€\t]{0,20}`)
		folder := url.URL{Scheme: "file", Path: "/" + filepath.Clean(rapid.StringMatching(`[a-z %?#äö'"\\]{1,12}`).Draw(r, "store"))}
		u, err := stores.ParseURL(folder.String())
		if err != nil {
			r.Fatal(err)
		}
		w := Template{
			Store: u.String(), Writer: "ann", StateDir: filepath.Clean("/" + text.Draw(r, "state")), RootKey: root, Recipients: []string{testRecipient},
		}
		set := TemplateSet{Name: "default"}
		for range rapid.IntRange(1, 4).Draw(r, "paths") {
			set.Paths = append(set.Paths, filepath.Clean("/"+text.Draw(r, "path")))
		}
		w.Sets = []TemplateSet{set}
		c, err := Parse("c.toml", []byte(w.Text()))
		if err != nil {
			r.Fatalf("%v\n%s", err, w.Text())
		}
		var paths []string
		for _, p := range c.Sets[Name{"default"}].Paths {
			paths = append(paths, p.string)
		}
		got := []any{c.Store.String(), c.Writer.string, c.StateDir.string, c.RootKey.String(), c.PublicKeys(), paths}
		want := []any{w.Store, w.Writer, w.StateDir, w.RootKey, w.Recipients, set.Paths}
		if d := cmp.Diff(want, got); d != "" {
			r.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// The comments of a written config name settings that exist.
func TestCommentsOfAWrittenConfigAreSettings(t *testing.T) {
	w := Template{
		Store: "file:///s", Writer: "ann", StateDir: "/state", RootKey: rootForTest(t), Recipients: []string{testRecipient},
		Sets: []TemplateSet{{Name: "default", Paths: []string{"/home"}}},
	}
	var open []string
	for _, line := range strings.Split(w.Text(), "\n") {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") {
			line = rest
		}
		open = append(open, line)
	}
	c, err := Parse("c.toml", []byte(strings.Join(open, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Sets[Name{"default"}]; len(s.Exclude) == 0 || s.ExcludeLargerThan == 0 || !s.OneFileSystem || !s.ExcludeCaches || c.IdentityCommand == "" || c.LimitUpload == 0 || c.ResealPerRun == 0 {
		t.Errorf("not all settings are mentioned: %+v", c)
	}
}

// rootForTest is the public half of a root key.
func rootForTest(t *testing.T) string {
	t.Helper()
	root, err := remote.GenerateSigningKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return root.Public().String()
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]ByteCount{"1B": 1, "10kB": 10_000, "10KiB": 10_240, "1.5GiB": 3 << 29, "100 MiB": 100 << 20, "7M": 7_000_000} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1", "x", "MiB", "1 furlong", "1", "9,999", "99999999999EiB", "1e400", "NaN"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"100MiB", "1.5kB", "-1", "0", "18446744073709551615", "1e9", "9,999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n <= 0 {
			t.Errorf("%q is taken for %d", s, n)
		}
	})
}

// Every config either is refused with its name in front or is usable.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte("sets = 3"))
	f.Add([]byte("[sets.a]\npaths = ['/x']\n[[sets.a]]"))
	f.Add([]byte("store.x = 1\n\"\\u0000\" = 2"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("c.toml", text)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if strings.HasPrefix(line, "c.toml:") {
					return
				}
			}
			t.Fatalf("the error does not name the file: %v", err)
		}
		for n, s := range c.Sets {
			if len(s.Paths) == 0 {
				t.Errorf("set %q has no paths", n.string)
			}
			for _, p := range s.Paths {
				if !filepath.IsAbs(p.string) || strings.ContainsRune(p.string, 0) {
					t.Errorf("path %q", p.string)
				}
			}
			if s.ExcludeLargerThan < 0 {
				t.Errorf("size %d", s.ExcludeLargerThan)
			}
		}
	})
}

func TestRates(t *testing.T) {
	for in, want := range map[string]ByteRate{
		"5MiB/s": 5 << 20, "5MiB": 5 << 20, "500kB/s": 500_000, "500 KB/s": 500_000, "1.5MB/s": 1_500_000, "2M/s": 2_000_000, "4096B": 4096, " 1GiB /s ": 1 << 30,
	} {
		if got, err := ParseRate(in); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "is not a rate", "fast": "is not a rate", "5000": "is not a rate", "0": "is not a rate", "-5MiB/s": "is not a rate", "5MiB/h": "is not a rate", "5MiB/s/s": "is not a rate",
		"/s": "is not a rate", "NaN": "is not a rate", "99999999EB/s": "is not a rate",
		"5Mb/s": "bits", "5Mbit/s": "bits", "8000kbit": "bits", "999B/s": "too slow",
	} {
		if got, err := ParseRate(in); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "5MiB/s, in bytes") {
			t.Errorf("%q: %d, %v; want an error with %q and an example", in, got, err, says)
		}
	}
}
