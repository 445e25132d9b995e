package seal_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

func TestFingerprintsAreSHA256OfTheText(t *testing.T) {
	const a, b = "age1aaa", "age1bbb"
	// printf age1aaa | sha256sum, and printf 'age1aaa\nage1bbb' | sha256sum
	const wantA = "e02ce129cd08557b7af6da5a81370545f0245069049621e82ce0aeb36d916148"
	const wantSet = "8227b8c6253e635b675f50cc0b41047c0a750641e6261eddb6ec8eeff8a2019b"
	if got := seal.Fingerprint(a); got != wantA {
		t.Errorf("Fingerprint is %s, want %s", got, wantA)
	}
	if got := seal.RecipientSet([]string{a, b}).String(); got != wantSet {
		t.Errorf("RecipientSet is %s, want %s", got, wantSet)
	}
	if seal.RecipientSet([]string{b, a}) != seal.RecipientSet([]string{a, b}) {
		t.Error("RecipientSet depends on the order")
	}
	if seal.RecipientSet([]string{a}) == seal.RecipientSet([]string{a, b}) {
		t.Error("RecipientSet does not see a recipient that came")
	}
}

// wrong is key with one character mistyped.
func wrong(key string) string {
	for _, c := range []string{"q", "p"} {
		if strings.ToUpper(key) == key {
			c = strings.ToUpper(c)
		}
		if key[20:21] != c {
			return key[:20] + c + key[21:]
		}
	}
	panic("unreachable")
}

func TestUnusableRecipientsAreRefusedWithAReason(t *testing.T) {
	classic, hybrid := newPerson(t, "x25519"), newPerson(t, "hybrid")
	secret := classic.identities[0].(*age.X25519Identity).String()
	many := make([]string, 60)
	for i := range many {
		many[i] = newPerson(t, "hybrid").public
	}
	for _, c := range []struct {
		name       string
		recipients []string
		reason     string
	}{
		{"none", nil, "no recipients"},
		{"twice", []string{classic.public, classic.public}, "recipient 2 is there twice"},
		{"mixed", []string{classic.public, hybrid.public}, "can't mix post-quantum and classic"},
		{"a secret key", []string{classic.public, secret}, "recipient 2: this is a secret key"},
		{"an ssh key", []string{"ssh-ed25519 AAAA"}, "recipient 1: not an age public key"},
		{"a typing error", []string{wrong(classic.public)}, "recipient 1: "},
		{"upper case", []string{strings.ToUpper(classic.public)}, "recipient 1: not an age public key"},
		{"spaces", []string{classic.public + " "}, "recipient 1: "},
		{"too many", many, "use fewer recipients"},
	} {
		_, err := seal.ParseRecipients(c.recipients)
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows a secret key", c.name)
		}
	}
}

func TestARecoveryKitIsAnIdentityFile(t *testing.T) {
	classic, hybrid := newPerson(t, "x25519"), newPerson(t, "hybrid")
	kit := "# vaultik recovery kit\r\n#\n\n" +
		"  " + classic.identities[0].(*age.X25519Identity).String() + "\r\n" +
		"# untrusted comment: minisign secret key\n\n" +
		hybrid.identities[0].(*age.HybridIdentity).String()
	ids, err := seal.ParseIdentities(strings.NewReader(kit), "kit.txt")
	if err != nil || len(ids) != 2 {
		t.Fatalf("%d identities, %v", len(ids), err)
	}
	for i, p := range []person{classic, hybrid} {
		if got, err := open(sealed(t, p.recipients, []byte("hello")), ids[i:i+1], 5); err != nil || string(got) != "hello" {
			t.Errorf("identity %d: %q, %v", i, got, err)
		}
	}
}

func TestUnusableIdentityFilesAreRefusedWithAReason(t *testing.T) {
	secret := newPerson(t, "x25519").identities[0].(*age.X25519Identity).String()
	for _, c := range []struct {
		name   string
		file   io.Reader
		reason string
		is     error
	}{
		{"empty", strings.NewReader(""), `"my kit" holds no AGE-SECRET-KEY`, seal.ErrNoIdentity},
		{"comments only", strings.NewReader("# AGE-SECRET-KEY-1\n"), `"my kit" holds no AGE-SECRET-KEY`, seal.ErrNoIdentity},
		{"public key", strings.NewReader("# kit\nage1xyz\n"), `"my kit", line 2: neither a comment nor an age identity`, nil},
		{"typing error", strings.NewReader("\n\n" + wrong(secret)), `"my kit", line 3: not a whole age identity`, nil},
		{"post-quantum cut", strings.NewReader("AGE-SECRET-KEY-PQ-1QQQQ"), `"my kit", line 1: not a whole age identity`, nil},
		{"encrypted", strings.NewReader("age-encryption.org/v1\n-> scrypt"), "decrypt it with `age -d` first", nil},
		{"encrypted, armored", strings.NewReader("-----BEGIN AGE ENCRYPTED FILE-----\n"), "decrypt it with `age -d` first", nil},
		{"huge", strings.NewReader(strings.Repeat("# x\n", 1<<19)), "is longer than 1048576 bytes", nil},
		{"unreadable", iotest.ErrReader(io.ErrClosedPipe), `read identity file "my kit"`, io.ErrClosedPipe},
	} {
		_, err := seal.ParseIdentities(c.file, "my kit")
		if err == nil || !strings.Contains(err.Error(), c.reason) || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if err != nil && strings.Contains(err.Error(), secret[20:30]) {
			t.Errorf("%s: the error shows a part of a secret key", c.name)
		}
		if errors.Is(err, remote.ErrCorrupt) {
			t.Errorf("%s: not the store's fault: %v", c.name, err)
		}
	}
}

func FuzzParseIdentities(f *testing.F) {
	f.Add("# kit\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n")
	f.Add("AGE-SECRET-KEY-PQ-1QQ")
	f.Add("\r\n#\x00\n")
	f.Fuzz(func(t *testing.T, file string) {
		ids, err := seal.ParseIdentities(strings.NewReader(file), "f")
		if (err == nil) != (len(ids) > 0) {
			t.Errorf("%d identities, %v", len(ids), err)
		}
	})
}
