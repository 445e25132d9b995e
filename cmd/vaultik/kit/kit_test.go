package kit

import (
	"bytes"
	"crypto/rand"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testKit(t testing.TB) *Kit {
	root, err := remote.GenerateSigningKey(bytes.NewReader(bytes.Repeat([]byte{7}, 4096)))
	if err != nil {
		t.Fatal(err)
	}
	return &Kit{
		Store: "s3://bucket/prefix?endpoint=https%3A%2F%2Fhost", Writer: "ann", Made: time.Unix(1_800_000_000, 0).UTC(), By: "0.1.0", Root: root,
		Identity:   "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX",
		Recipients: []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"},
	}
}

// facts are what a kit must give back, in a form that can be compared.
func facts(k *Kit) []any {
	return []any{k.Store, k.Writer, k.Made.UTC(), k.By, k.Root.Text(), k.Identity, k.Recipients}
}

// Kits are printed and kept for decades: one that was written is read for
// ever, and today's are written as the golden one.
func TestKitIsWrittenAndReadAsEver(t *testing.T) {
	k := testKit(t)
	path := filepath.Join("testdata", "v1", "kit.txt")
	if *update {
		if err := os.WriteFile(path, []byte(k.Text()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(golden), k.Text()); d != "" {
		t.Errorf("the kit (-golden +now):\n%s", d)
	}
	got, err := Parse(string(golden))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(facts(k), facts(got)); d != "" {
		t.Errorf("what is read (-want +got):\n%s", d)
	}
	for i, l := range lines(k.Text()) {
		if len(l) > 80 && !strings.HasPrefix(l, "# Recipient:") && !strings.HasPrefix(l, "# RW") && !strings.HasPrefix(l, "# Store:") {
			t.Errorf("line %d is too long to print: %q", i+1, l)
		}
	}
}

func TestKitMayBeRetyped(t *testing.T) {
	k := testKit(t)
	for name, change := range map[string]func(string) string{
		"line ends of another system": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"trailing space":              func(s string) string { return strings.ReplaceAll(s, "\n", "  \n") },
		"no comments": func(s string) string {
			var keep []string
			for i, l := range lines(s) {
				if i == 0 || factLine.MatchString(l) || strings.HasPrefix(l, "# RW") || !strings.HasPrefix(l, "#") {
					keep = append(keep, l)
				}
			}
			return strings.Join(keep, "\n")
		},
	} {
		got, err := Parse(change(k.Text()))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(facts(k), facts(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestDamagedKitsAreRefused(t *testing.T) {
	k := testKit(t)
	other, err := remote.GenerateSigningKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, says string }{
		{"another file", title, "# a recovery kit ", "not a recovery kit"},
		{"from the future", title + "1", title + "2", "version \"2\""},
		{"no root key", "# RW", "# XX", "lacks the root key"},
		{"another public key", k.Root.Public().String(), other.Public().String(), "does not belong"},
		{"another secret key", k.Root.Base64(), other.Base64(), "does not belong"},
		{"a damaged public key", "# " + k.Root.Public().String(), "# " + k.Root.Public().String()[:55] + "!", "line"},
		{"a damaged secret key", k.Root.Base64(), k.Root.Base64()[:100], "line"},
		{"no store", "# Store: ", "# Shop: ", "lacks its Store"},
		{"two stores", "# Writer: ann", "# Writer: ann\n# Store: file:///x", "second store"},
		{"no such store", "# Store:  s3:", "# Store:  ftp:", "no kind of store"},
		{"no such writer", "# Writer: ann", "# Writer: a/b", "not a valid name"},
		{"two identities", k.Identity, k.Identity + "\n" + k.Identity, "second age identity"},
		{"other text", k.Identity, "hello", "neither a comment"},
	} {
		text := strings.Replace(k.Text(), c.from, c.to, 1)
		if c.name == "no root key" {
			text = strings.ReplaceAll(k.Text(), c.from, c.to)
		}
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		} else if strings.Contains(err.Error(), k.Identity[:30]) {
			t.Errorf("%s: the error repeats the identity: %v", c.name, err)
		}
	}
}

// Whatever is read as a kit is written and read back as the same.
func FuzzKit(f *testing.F) {
	k := testKit(f)
	f.Add(k.Text())
	f.Add(title + "1\n")
	f.Add(strings.ReplaceAll(k.Text(), "\n", "\r\n"))
	without := *k
	without.Identity = ""
	f.Add(without.Text())
	f.Add(strings.Replace(k.Text(), "vaultik "+k.By+"\n", "vaultik\n", 1))
	f.Fuzz(func(t *testing.T, text string) {
		k, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(k.Text())
		if err != nil {
			t.Fatalf("written anew it is refused: %v\n%s", err, k.Text())
		}
		if d := cmp.Diff(facts(k), facts(again)); d != "" {
			t.Errorf("written anew it differs:\n%s", d)
		}
	})
}
