package remote_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
)

// key makes the same key for the same name, always. For tests only.
func key(t testing.TB, name string) remote.SigningKey {
	t.Helper()
	seed := remote.Sum([]byte("a key for tests: " + name))
	k, err := remote.GenerateSigningKey(bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysSurviveTheirText(t *testing.T) {
	k := key(t, "writer")
	for _, text := range []string{k.Text(), k.Base64(), k.Base64() + "\n", "\n" + k.Text()} {
		again, err := remote.ParseSigningKey(text)
		if err != nil {
			t.Fatalf("ParseSigningKey(%q): %v", text, err)
		}
		if again.Base64() != k.Base64() {
			t.Errorf("ParseSigningKey(%q) is another key", text)
		}
	}
	p := k.Public()
	for _, text := range []string{p.String(), string(p.File()), " " + p.String() + "\n", strings.ReplaceAll(string(p.File()), "\n", "\r\n")} {
		again, err := remote.ParsePublicKey(text)
		if err != nil {
			t.Fatalf("ParsePublicKey(%q): %v", text, err)
		}
		if !again.Equal(p) {
			t.Errorf("ParsePublicKey(%q) is another key", text)
		}
	}
}

func TestTextsThatAreNoKeysAreRefused(t *testing.T) {
	k, other := key(t, "writer"), key(t, "other")
	raw, _ := base64.StdEncoding.DecodeString(k.Base64())
	foreign, _ := base64.StdEncoding.DecodeString(other.Base64())
	mixed := append(bytes.Clone(raw[:len(raw)-64]), foreign[len(raw)-64:]...) // another public half
	encrypted := bytes.Clone(raw)
	copy(encrypted[2:], "Sc") // as a password makes it
	for name, text := range map[string]string{
		"nothing": "", "a public key": k.Public().String(), "a line too many": k.Text() + k.Base64(),
		"another comment": strings.Replace(k.Text(), "untrusted", "Untrusted", 1),
		"truncated":       k.Base64()[:200], "halves of two keys": base64.StdEncoding.EncodeToString(mixed),
		"a password": base64.StdEncoding.EncodeToString(encrypted),
	} {
		_, err := remote.ParseSigningKey(text)
		if err == nil {
			t.Errorf("%s: accepted as a secret key", name)
		} else if strings.Contains(err.Error(), k.Base64()[80:120]) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
	p := k.Public().String()
	for name, text := range map[string]string{
		"nothing": "", "truncated": p[:55], "longer": p + "A", "a line end inside": p[:20] + "\n" + p[20:],
		"another alphabet": "RW-_" + p[4:], "a secret key": k.Base64(), "ED instead of Ed": "RU" + p[2:],
	} {
		if _, err := remote.ParsePublicKey(text); err == nil {
			t.Errorf("%s: %q accepted as a public key", name, text)
		}
	}
}

func mustPrivate(t *testing.T, k remote.SigningKey) minisign.PrivateKey {
	t.Helper()
	var p minisign.PrivateKey
	if err := p.UnmarshalText([]byte(k.Text())); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSignaturesHoldForOneMessageAndOneKey(t *testing.T) {
	k, message := key(t, "writer"), []byte("a message")
	signature := k.Sign(message, "a comment that counts")
	comment, err := k.Public().Verify(message, signature)
	if err != nil || comment != "a comment that counts" {
		t.Fatalf("Verify = %q, %v", comment, err)
	}
	text := string(signature)
	old := minisign.SignWithComments(mustPrivate(t, k), message, "a comment that counts", "x")
	for name, c := range map[string]struct {
		key       remote.PublicKey
		message   string
		signature string
	}{
		"another message":           {k.Public(), "a massage", text},
		"another key":               {key(t, "other").Public(), "a message", text},
		"no key":                    {remote.PublicKey{}, "a message", text},
		"another trusted comment":   {k.Public(), "a message", strings.Replace(text, "that counts", "that lies", 1)},
		"the form without hashing":  {k.Public(), "a message", string(old)},
		"nothing":                   {k.Public(), "a message", ""},
		"no trusted comment":        {k.Public(), "a message", text[:strings.Index(text, "trusted comment: a")]},
		"no final line end":         {k.Public(), "a message", strings.TrimSuffix(text, "\n")},
		"something behind":          {k.Public(), "a message", text + "\n"},
		"line ends of another kind": {k.Public(), "a message", strings.ReplaceAll(text, "\n", "\r\n")},
		"megabytes":                 {k.Public(), "a message", "untrusted comment: " + strings.Repeat("x", 1<<20) + text[strings.Index(text, "\n"):]},
	} {
		if _, err := c.key.Verify([]byte(c.message), []byte(c.signature)); !errors.Is(err, remote.ErrNotTrusted) {
			t.Errorf("%s: %v, want ErrNotTrusted", name, err)
		}
	}
}

// The first line is nobody's word; everything else has one form.
func FuzzSignature(f *testing.F) {
	k, message := key(f, "writer"), []byte("a message")
	genuine := k.Sign(message, "a comment that counts")
	_, counts, _ := bytes.Cut(genuine, []byte("\n"))
	f.Add(genuine)
	f.Add(append([]byte("untrusted comment: another\n"), counts...))
	f.Add(bytes.ReplaceAll(genuine, []byte("="), []byte("")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, signature []byte) {
		comment, err := k.Public().Verify(message, signature)
		if err != nil {
			if !errors.Is(err, remote.ErrNotTrusted) {
				t.Errorf("%v is not ErrNotTrusted", err)
			}
			return
		}
		if _, rest, _ := bytes.Cut(signature, []byte("\n")); !bytes.Equal(rest, counts) || comment != "a comment that counts" {
			t.Errorf("accepted %q", signature)
		}
	})
}

// minisignProgram runs the stock program, and skips where there is none.
func minisignProgram(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("the minisign program is not installed")
	}
	return func(args ...string) (string, error) {
		out, err := exec.Command(path, args...).CombinedOutput()
		return string(out), err
	}
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheMinisignProgramAcceptsOurKeysAndSignatures(t *testing.T) {
	run := minisignProgram(t)
	k := key(t, "writer")
	message := writeFile(t, "message", []byte("a message"))
	signature := writeFile(t, "message.minisig", k.Sign([]byte("a message"), "a comment that counts"))
	pub := writeFile(t, "key.pub", k.Public().File())

	out, err := run("-V", "-H", "-Q", "-p", pub, "-m", message, "-x", signature)
	if diff := cmp.Diff("a comment that counts\n", out); err != nil || diff != "" {
		t.Errorf("minisign -V -p: %v\n%s", err, diff)
	}
	if out, err := run("-V", "-H", "-q", "-P", k.Public().String(), "-m", message, "-x", signature); err != nil {
		t.Errorf("minisign -V -P: %v: %s", err, out)
	}
	other := writeFile(t, "other.pub", key(t, "other").Public().File())
	if out, err := run("-V", "-H", "-q", "-p", other, "-m", message, "-x", signature); err == nil {
		t.Errorf("minisign accepts another key: %s", out)
	}

	// With our secret key it signs, and makes our public key file.
	secret := writeFile(t, "key", []byte(k.Text()))
	if out, err := run("-S", "-W", "-s", secret, "-m", message, "-t", "signed by the program", "-x", signature+".2"); err != nil {
		t.Fatalf("minisign -S: %v: %s", err, out)
	}
	theirs := readFile(t, signature+".2")
	if comment, err := k.Public().Verify([]byte("a message"), theirs); err != nil || comment != "signed by the program" {
		t.Errorf("Verify = %q, %v", comment, err)
	}
	if out, err := run("-R", "-W", "-s", secret, "-p", pub+".2"); err != nil {
		t.Fatalf("minisign -R: %v: %s", err, out)
	}
	if diff := cmp.Diff(string(k.Public().File()), string(readFile(t, pub+".2"))); diff != "" {
		t.Errorf("public key file (-ours +minisign's):\n%s", diff)
	}
}

func TestWeAcceptTheMinisignProgramsKeysAndSignatures(t *testing.T) {
	run := minisignProgram(t)
	dir := t.TempDir()
	secret, pub, message := filepath.Join(dir, "key"), filepath.Join(dir, "key.pub"), writeFile(t, "message", []byte("a message"))
	if out, err := run("-G", "-W", "-s", secret, "-p", pub); err != nil {
		t.Fatalf("minisign -G: %v: %s", err, out)
	}
	p, err := remote.ParsePublicKey(string(readFile(t, pub)))
	if err != nil {
		t.Fatal(err)
	}
	k, err := remote.ParseSigningKey(string(readFile(t, secret)))
	if err != nil {
		t.Fatal(err)
	}
	if !k.Public().Equal(p) {
		t.Errorf("the secret key is of %s, the public key %s", k.Public(), p)
	}
	if _, err := p.Verify([]byte("a message"), k.Sign([]byte("a message"), "")); err != nil {
		t.Errorf("signed with its key: %v", err)
	}
	if out, err := run("-S", "-W", "-s", secret, "-m", message, "-t", "prehashed"); err != nil {
		t.Fatalf("minisign -S: %v: %s", err, out)
	}
	if comment, err := p.Verify([]byte("a message"), readFile(t, message+".minisig")); err != nil || comment != "prehashed" {
		t.Errorf("Verify = %q, %v", comment, err)
	}
	if out, err := run("-S", "-l", "-W", "-s", secret, "-m", message, "-t", "old form"); err != nil {
		t.Fatalf("minisign -S -l: %v: %s", err, out)
	}
	if _, err := p.Verify([]byte("a message"), readFile(t, message+".minisig")); !errors.Is(err, remote.ErrNotTrusted) {
		t.Errorf("the form without hashing: %v, want ErrNotTrusted", err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAKeyNeedsItsRandomness(t *testing.T) {
	if _, err := remote.GenerateSigningKey(bytes.NewReader(make([]byte, 31))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("31 bytes of randomness: %v, want io.ErrUnexpectedEOF", err)
	}
}
