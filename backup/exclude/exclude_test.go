package exclude

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"git.eeqj.de/sneak/vaultik/backup/source"
	"git.eeqj.de/sneak/vaultik/metastore"
)

func compile(t *testing.T, r Rules, roots ...string) *Matcher {
	t.Helper()
	m, err := Compile(r, roots)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPatternsAreHeldAgainstTheRightPath(t *testing.T) {
	for _, c := range []struct {
		patterns string // separated by spaces
		roots    string
		root     string
		rel      string
		want     bool
	}{
		{"*.o", "/home", "/home", "ann/x.o", true},
		{"*.o", "/home /srv", "/srv", "x.o", true},
		{".cache/", "/home", "/home", "ann/.cache", true},
		{".cache/", "/home", "/home", "ann/.cache/deep/below", true},

		// A path from the top …
		{"/home/ann/.cache", "/home/ann", "/home/ann", ".cache", true},
		{"/home/ann/.cache", "/home", "/home", "ann/.cache", true},
		{"/home/ann/.cache", "/", "/", "home/ann/.cache", true},
		{"/home/ann/.cache", "/ /home", "/home", "ann/.cache", true},
		{"/home/*/.cache", "/home/ann", "/home/ann", ".cache", true},
		{"/home/**/.cache", "/home/ann", "/home/ann", "x/.cache", true},
		{"/home/ann/.cache", "/home /home/bob", "/home/bob", ".cache", false},
		{"/home/ann/", "/home", "/home", "ann/x", true},
		// … unless it leads into none of the set's paths.
		{"/.cache", "/home/ann", "/home/ann", ".cache", true},
		{"/.cache", "/home/ann", "/home/ann", "x/.cache", false},
		{"/*/.cache", "/home", "/home", "ann/.cache", true},
		{"/srv/x", "/home", "/home", "srv/x", true},

		// Without a slash in front it is relative to each path.
		{"doc/*.txt", "/home/ann /srv", "/srv", "doc/a.txt", true},
		{"doc/*.txt", "/home/ann", "/home/ann", "x/doc/a.txt", false},
		{"home/ann/x", "/home/ann", "/home/ann", "x", false},
		{"a/**/b", "/", "/", "a/b", true},

		// The last one decides, but not below a folder that is left out.
		{"*.o !keep.o", "/", "/", "x/keep.o", false},
		{"!keep.o *.o", "/", "/", "x/keep.o", true},
		{"/x !/x/keep", "/", "/", "x/keep", true},
		{"/x/* !/x/keep", "/", "/", "x/keep", false},

		// The set's own path stays.
		{"ann", "/home/ann", "/home/ann", "", false},
		{"/home/ann", "/home/ann", "/home/ann", "", false},
		{"*", "/home/ann", "/home/ann", "", false},
		{"*", "/home/ann", "/home/ann", "x", true},
		{"\xff*", "/", "/", "\xff\xfe", true},
	} {
		m := compile(t, Rules{Patterns: strings.Fields(c.patterns)}, strings.Fields(c.roots)...)
		if got := m.Path(c.root, c.rel, true); got != c.want {
			t.Errorf("%q, set of %s: %s + %q left out: %t, want %t", c.patterns, c.roots, c.root, c.rel, got, c.want)
		}
	}
}

// A walk that asks folder by folder and a question about a whole path get the
// same answer.
func TestDirectoryAndPathAgree(t *testing.T) {
	atom := rapid.SampledFrom([]string{"a", "b", "/", "*", "**", "?", "/a", "a/", "/a/b"})
	rapid.Check(t, func(t *rapid.T) {
		var r Rules
		for _, p := range rapid.SliceOfN(rapid.SliceOfN(atom, 1, 4), 1, 4).Draw(t, "patterns") {
			line := strings.Join(p, "")
			if rapid.Bool().Draw(t, "negated") {
				line = "!" + line
			}
			if _, err := Compile(Rules{Patterns: []string{line}}, nil); err == nil {
				r.Patterns = append(r.Patterns, line)
			}
		}
		root := rapid.SampledFrom([]string{"/", "/a", "/a/b"}).Draw(t, "root")
		m, err := Compile(r, []string{root})
		if err != nil {
			t.Fatal(err)
		}
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 1, 4).Draw(t, "path")
		walked := false
		for i, name := range names {
			d := m.Directory(root, strings.Join(names[:i], "/"))
			e := source.Entry{Name: name, Stat: metastore.Stat{Type: metastore.Directory}}
			first := d.Excludes(e)
			if d.Excludes(e) != first {
				t.Fatal("a second answer differs from the first")
			}
			walked = walked || first
		}
		if got := m.Path(root, strings.Join(names, "/"), true); got != walked {
			t.Fatalf("patterns %q: walking to %q under %s: %t, asked at once: %t", r.Patterns, names, root, walked, got)
		}
	})
}

func TestLargeFilesAreLeftOut(t *testing.T) {
	m := compile(t, Rules{LargerThan: 1000, Patterns: []string{"!big"}}, "/")
	d := m.Directory("/", "x")
	got := map[string]bool{}
	for name, s := range map[string]metastore.Stat{
		"big":    {Type: metastore.Regular, Size: 1001},
		"limit":  {Type: metastore.Regular, Size: 1000},
		"folder": {Type: metastore.Directory, Size: 4096},
		"link":   {Type: metastore.Symlink, Size: 2000},
	} {
		got[name] = d.Excludes(source.Entry{Name: name, Stat: s})
	}
	if diff := cmp.Diff(map[string]bool{"big": true, "limit": false, "folder": false, "link": false}, got); diff != "" {
		t.Error(diff)
	}
}

func TestBoundariesAreKeptAsEmptyPlaces(t *testing.T) {
	const dir, file = metastore.Directory, metastore.Regular
	m := compile(t, Rules{Always: []string{"/var/lib/vaultik", "/srv/backup"}}, "/")
	one := compile(t, Rules{OneFileSystem: true}, "/")
	for _, c := range []struct {
		name  string
		m     *Matcher
		where string
		typ   metastore.Type
		dev   uint64
		v     source.Volume
		want  metastore.State
	}{
		{"ordinary folder", m, "/home", dir, 1, source.Volume{FSType: "ext4", Root: "/"}, metastore.StateComplete},
		{"store", m, "/srv/backup", dir, 1, source.Volume{FSType: "ext4", Root: "/"}, metastore.StateExcluded},
		{"below the state folder", m, "/var/lib/vaultik/x", dir, 1, source.Volume{FSType: "ext4", Root: "/"}, metastore.StateExcluded},
		{"name that only begins alike", m, "/srv/backup2", dir, 1, source.Volume{FSType: "ext4", Root: "/"}, metastore.StateComplete},
		{"proc", m, "/proc", dir, 2, source.Volume{FSType: "proc", Root: "/proc"}, metastore.StateExcluded},
		{"our own mount", m, "/mnt", dir, 2, source.Volume{FSType: "fuse.vaultik", Root: "/mnt"}, metastore.StateExcluded},
		{"another fuse mount", m, "/mnt", dir, 2, source.Volume{FSType: "fuse.sshfs", Root: "/mnt"}, metastore.StateComplete},
		{"network namespace", m, "/run/netns/x", file, 3, source.Volume{FSType: "nsfs", Root: "/run/netns/x"}, metastore.StateExcluded},
		{"other disk", m, "/data", dir, 2, source.Volume{FSType: "ext4", Root: "/data"}, metastore.StateComplete},
		{"other disk, one file system", one, "/data", dir, 2, source.Volume{FSType: "ext4", Root: "/data"}, metastore.StateOtherFS},
		{"same disk, one file system", one, "/home", dir, 1, source.Volume{FSType: "ext4", Root: "/"}, metastore.StateComplete},
		{"btrfs subvolume, one file system", one, "/.snapshots", dir, 2, source.Volume{FSType: "btrfs", Root: "/"}, metastore.StateOtherFS},
		{"file mounted over a file", one, "/etc/hosts", file, 2, source.Volume{FSType: "ext4", Root: "/etc/hosts"}, metastore.StateOtherFS},
		{"file of an overlay's lower layer", one, "/etc/passwd", file, 2, source.Volume{FSType: "overlay", Root: "/"}, metastore.StateComplete},
	} {
		e := source.Entry{Stat: metastore.Stat{Type: c.typ}, Dev: c.dev}
		if got := c.m.Boundary(c.where, e, c.v, 1); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	root := compile(t, Rules{Always: []string{"/"}}, "/home")
	if got := root.Boundary("/home", source.Entry{}, source.Volume{FSType: "ext4"}, 0); got != metastore.StateExcluded {
		t.Errorf("below /: %q", got)
	}
}

func TestMarkersLeaveAFoldersContentOut(t *testing.T) {
	const signature = "Signature: 8a477f597d28d172789f06886806bc55"
	entries := func(typ metastore.Type, names ...string) []source.Entry {
		var list []source.Entry
		for _, name := range names {
			list = append(list, source.Entry{Name: name, Stat: metastore.Stat{Type: typ}})
		}
		return list
	}
	both := Rules{CacheDirs: true, IfPresent: []string{".nobackup"}}
	for _, c := range []struct {
		name    string
		rules   Rules
		entries []source.Entry
		tag     string
		err     error
		want    metastore.State
	}{
		{"tagged", both, entries(metastore.Regular, "A", "CACHEDIR.TAG", "b"), signature + "\n# cache", nil, metastore.StateCacheDir},
		{"wrong signature", both, entries(metastore.Regular, "CACHEDIR.TAG"), strings.ToUpper(signature), nil, metastore.StateComplete},
		{"short tag", both, entries(metastore.Regular, "CACHEDIR.TAG"), signature[:42], nil, metastore.StateComplete},
		{"unreadable tag", both, entries(metastore.Regular, "CACHEDIR.TAG"), signature, errors.New("no"), metastore.StateComplete},
		{"tag that is a link", both, entries(metastore.Symlink, "CACHEDIR.TAG"), signature, nil, metastore.StateComplete},
		{"rule off", Rules{}, entries(metastore.Regular, ".nobackup", "CACHEDIR.TAG"), signature, nil, metastore.StateComplete},
		{"marker", both, entries(metastore.FIFO, ".a", ".nobackup", "z"), "", nil, metastore.StateExcluded},
		{"nothing special", both, entries(metastore.Regular, "a"), "", nil, metastore.StateComplete},
		{"empty", both, nil, "", nil, metastore.StateComplete},
	} {
		m := compile(t, c.rules, "/")
		got := m.Marked(c.entries, func(e source.Entry) ([]byte, error) {
			if e.Name != "CACHEDIR.TAG" || e.Type != metastore.Regular {
				t.Errorf("%s: asked to read %q", c.name, e.Name)
			}
			return []byte(c.tag), c.err
		})
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMarkersAreKnownByName(t *testing.T) {
	for _, c := range []struct {
		rules Rules
		name  string
		want  bool
	}{
		{Rules{CacheDirs: true}, "CACHEDIR.TAG", true},
		{Rules{}, "CACHEDIR.TAG", false},
		{Rules{IfPresent: []string{"a", ".nobackup"}}, ".nobackup", true},
		{Rules{IfPresent: []string{"a", ".nobackup"}}, "b", false},
	} {
		if got := compile(t, c.rules, "/").Marker(c.name); got != c.want {
			t.Errorf("%+v: %q is a marker: %t, want %t", c.rules, c.name, got, c.want)
		}
	}
}

func TestRulesThatMakeNoSenseAreAllNamed(t *testing.T) {
	_, err := Compile(Rules{
		Patterns:   []string{"fine", "a//b", "[x", "#x"},
		IfPresent:  []string{"a/b", "ok", ""},
		Always:     []string{"relative", "/fine", "/not/../clean"},
		LargerThan: -1,
	}, []string{"/"})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`exclude pattern "a//b" has an empty name between two slashes`,
		`exclude pattern "[x" has a [ without its ]: write \[ for the character`,
		`exclude pattern "#x" is a comment: write \# for a name that begins with #`,
		`folder to leave out "relative" is not a clean absolute path`,
		`folder to leave out "/not/../clean" is not a clean absolute path`,
		`marker to look for "a/b" is not a file name`,
		`marker to look for "" is not a file name`,
		`size limit -1 is below zero`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestExcludeFileIsReadAsGitReadsOne(t *testing.T) {
	got, err := ReadFile(strings.NewReader("\ufeff*.o\r\n\n   \n# remark\n\\#x\n!keep.o\nlast\\ "))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"*.o", `\#x`, "!keep.o", `last\ `}, got); diff != "" {
		t.Error(diff)
	}
}

func TestExcludeFileErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"bad pattern", "a\n#\n\n[b\n", `line 4: pattern "[b" has a [ without its ]: write \[ for the character`},
		{"long line", "a\n" + strings.Repeat("x", 1<<20), "line 2 is longer than 65536 bytes"},
	} {
		if _, err := ReadFile(strings.NewReader(c.file)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := ReadFile(iotest.ErrReader(iotest.ErrTimeout)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("read error: %v", err)
	}
}

func FuzzReadFile(f *testing.F) {
	f.Add("*.o\n!/a/**/b/\r\n# x\n\\ \n")
	f.Add("\ufeff[a-\n")
	f.Fuzz(func(t *testing.T, file string) {
		patterns, err := ReadFile(strings.NewReader(file))
		if err != nil {
			return
		}
		m, err := Compile(Rules{Patterns: patterns}, []string{"/a"})
		if err != nil {
			t.Fatalf("read %q, but: %v", patterns, err)
		}
		m.Path("/a", "x/y/z", true)
	})
}

func BenchmarkDirectoryExcludes(b *testing.B) {
	m, err := Compile(Rules{Patterns: strings.Fields("*.o *.pyc node_modules/ .cache/ /home/ann/Downloads /var/tmp/* **/venv/lib !keep.o")}, []string{"/"})
	if err != nil {
		b.Fatal(err)
	}
	d := m.Directory("/", "home/ann/some/project/folder")
	e := source.Entry{Name: "a-file-name.go", Stat: metastore.Stat{Type: metastore.Regular}}
	b.ReportAllocs()
	for b.Loop() {
		if d.Excludes(e) {
			b.Fatal("left out")
		}
	}
}
