package stores

import (
	"strings"
	"testing"
)

func TestStoreAddresses(t *testing.T) {
	for _, c := range []struct{ in, folder, out string }{
		{"file:///srv/backup", "/srv/backup", "file:///srv/backup"},
		{"file:///srv//backup/", "/srv/backup", "file:///srv/backup"},
		{"file://localhost/srv", "/srv", "file:///srv"},
		{"file:///a%20b", "/a b", "file:///a%20b"},
		{"file:///a b", "/a b", "file:///a%20b"},
		{"file:///what%3F", "/what?", "file:///what%3F"},
	} {
		u, err := ParseURL(c.in)
		if err != nil || u.folder != c.folder || u.String() != c.out {
			t.Errorf("%q: folder %q, address %q, %v", c.in, u.folder, u, err)
		}
	}
	for in, says := range map[string]string{
		"":                        "not an address",
		"/srv/backup":             "file:///folder",
		"srv":                     "file:///folder",
		"file://srv/backup":       "three slashes",
		"file:srv":                "not an address",
		"ftp://host/x":            `no kind of store "ftp"`,
		"file:///x?region=eu":     "no options",
		"file:///x#y":             "%23",
		"file:///100%":            "%25",
		"file:///a%00b":           "NUL",
		"s3://":                   "",
		"s3://bucket?endpoint=::": "",
	} {
		if u, err := ParseURL(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v, want an error with %q", in, u, err, says)
		}
	}
}

// An address has one spelling: reading and writing it again changes nothing.
func FuzzStoreAddress(f *testing.F) {
	for _, s := range []string{
		"file:///srv/backup", "file:///a%20b/../c", "file://localhost/x", "file:////", "s3://bucket/prefix",
		"s3://bucket/a/b?endpoint=https://host:9000&region=eu&path_style=on", "s3://b?endpoint=http://127.0.0.1:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil {
			t.Fatalf("%q became %q, which is refused: %v", s, u, err)
		}
		if again.String() != u.String() {
			t.Errorf("%q became %q, then %q", s, u, again)
		}
	})
}
